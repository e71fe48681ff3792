"""Latent scaling changes the scale of the bottleneck only: the decoders reconstruct the same values."""

import numpy as np
import pytest
import torch

from scfusionttt.fitting.latent_scaling import _decoders, _metric, scale_latent
from scfusionttt.fitting.sample import read_sample
from scfusionttt.model import stages
from scfusionttt.model.stages import train_pretraining
from scfusionttt.nn.tokens import CellInputs

CPU = torch.device("cpu")


@pytest.fixture
def trained(network, cells, config, run):
    """A network before its latent is scaled."""
    fresh = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "fit_latent", lambda *_: None)
        train_pretraining(fresh, cells, config.pretrain, run())
    return fresh


def scale(network, cells):
    return scale_latent(network, read_sample(network, cells, CPU, seed=0))


def test_the_same_values_are_reconstructed_after_scaling(trained, cells):
    inputs = CellInputs.of(cells.__getitems__(list(range(20))))
    trained.eval()
    with torch.no_grad():
        trained.backbone.representation.bottleneck.weight *= torch.linspace(1, 50, trained.backbone.n_latent)[:, None]
        before = trained(inputs, from_tokens=False)
        scale(trained, cells)
        after = trained(inputs, from_tokens=False)
    assert not torch.allclose(before.fused.z, after.fused.z, rtol=0.1)
    torch.testing.assert_close(after.rna_z, before.rna_z, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.protein_z, before.protein_z, rtol=1e-3, atol=1e-3)


def test_distances_are_those_of_the_reconstructed_cells_whatever_the_scale_was(trained, cells):
    with torch.no_grad():
        trained.backbone.representation.bottleneck.weight[0] *= 100
        scale(trained, cells)
    z = torch.from_numpy(read_sample(trained, cells, CPU, seed=0).bottleneck)
    with torch.no_grad():
        metric = sum(_metric(z.double() - z.double().mean(dim=0), decoder(z)) for decoder in _decoders(trained))
    torch.testing.assert_close(metric, torch.eye(len(metric), dtype=metric.dtype), rtol=0.05, atol=0.05)


def test_the_scaled_sample_is_what_the_scaled_network_computes(trained, cells):
    sample, again = scale(trained, cells), read_sample(trained, cells, CPU, seed=0)
    np.testing.assert_allclose(sample.bottleneck, again.bottleneck, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(sample.by_rna, again.by_rna, rtol=1e-3, atol=1e-4)


def test_pretraining_ends_with_latent_scaling(network, cells, config, run, trained):
    fresh = network()
    train_pretraining(fresh, cells, config.pretrain, run())
    scale(trained, cells)
    for one, other in zip(fresh.state_dict().values(), trained.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
