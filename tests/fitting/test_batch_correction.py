"""Batch correction: the shifts of a batch."""

from dataclasses import replace

import numpy as np
import torch

from scfusionttt.fitting.batch_correction import _solve, fit_kinds
from scfusionttt.fitting.sample import read_sample
from scfusionttt.nn.correction import BatchCorrection

N_KINDS, N_VALUES, EFFECT, APART = 3, 5, 0.5, 5.0


def test_a_type_of_a_small_batch_alone_is_not_moved_to_its_kind_in_others():
    """Cells of a donor of few cells, assigned to a kind of others for want of their own, were merged with these."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2, 0, 1, 2, 0], [60, 60, 60, 4, 8, 8, 12])
    batch = np.repeat([0, 1], [180, 32])
    only = np.arange(len(kind)) >= 200  # its own type, which the first batch lacks
    means = np.eye(N_KINDS, N_VALUES) * 10
    values = means[kind] + rng.normal(0, 0.1, (len(kind), N_VALUES))
    values[batch == 1, 3] += EFFECT
    values[only, 4] += APART
    correction = BatchCorrection(2, N_KINDS, N_VALUES, N_VALUES)
    _solve(correction, torch.from_numpy(values), torch.eye(N_KINDS).double()[kind], batch[:, None], lambda x: x)

    corrected = correction(torch.from_numpy(values).float(), torch.from_numpy(batch)[:, None], lambda x: x).numpy()
    np.testing.assert_allclose(corrected[(batch == 1) & (kind > 0), 3], corrected[batch == 0, 3].mean(), atol=0.5)
    distance = np.linalg.norm(corrected[only].mean(axis=0) - corrected[(kind == 0) & (batch == 0)].mean(axis=0))
    assert distance > 0.8 * APART


def test_cells_that_do_not_differ_have_no_kinds(network, cells):
    """k-means warned of more kinds than distinct cells."""
    backbone = network().backbone
    sample = read_sample(network(), cells, torch.device("cpu"), seed=0)
    names = ("bottleneck", "genes", "proteins")
    alike = replace(sample, **{name: np.repeat(getattr(sample, name)[:1], 5, axis=0) for name in names})
    for one, is_fitted in ((alike, False), (sample, True)):
        correction = BatchCorrection(0, 2, backbone.representation.n_latent, backbone.n_latent)
        fit_kinds(backbone, correction, one, seed=0)
        assert correction.is_fitted == is_fitted
