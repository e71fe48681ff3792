"""The plain view beside the bottleneck: components and proteins on one scale, told from RNA where not measured."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from scfusionttt.fitting import pca_skip as module
from scfusionttt.fitting.calibration import calibrate
from scfusionttt.fitting.kernel_head import fit_head
from scfusionttt.fitting.pca_skip import REACH, fit_view
from scfusionttt.inference import embed, probabilities, read_cells
from scfusionttt.nn.tokens import CellInputs, VisibleTokens

CPU = torch.device("cpu")
N_COMPONENTS, N_PROTEINS, N_BOTTLENECK = 5, 8, 6


@pytest.fixture
def viewed(network, cells):
    fresh = network(components=2, skip_components=N_COMPONENTS)
    fit_view(fresh, cells, CPU, seed=0)
    return fresh


def view_of(network, cells):
    return read_cells(network, cells, CPU, lambda inputs: network.backbone(inputs).view)


def test_components_are_the_principal_ones_and_both_parts_spread_alike(viewed, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    view, genes = view_of(viewed, cells), read_cells(viewed, cells, CPU, lambda inputs: inputs.rna)
    expected = PCA(N_COMPONENTS, svd_solver="full").fit_transform(genes)
    found = view[:, :N_COMPONENTS] - view[:, :N_COMPONENTS].mean(axis=0)
    np.testing.assert_allclose(np.abs(np.corrcoef(found[:, 0], expected[:, 0])[0, 1]), 1, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(found.var(axis=0).sum()), 1, atol=1e-4)
    proteins = view_of(viewed, measured)[:, N_COMPONENTS:]
    np.testing.assert_allclose(np.sqrt(proteins.var(axis=0).sum()), 1, atol=1e-4)


def test_the_representation_is_the_bottleneck_beside_the_first_components_and_the_proteins(viewed, cells):
    z, view = embed(viewed, cells, CPU), view_of(viewed, cells)
    bottleneck = read_cells(viewed, cells, CPU, lambda inputs: viewed.backbone(inputs).bottleneck)
    reach = REACH * np.sqrt(bottleneck.var(axis=0).sum())
    expected = np.hstack([bottleneck, reach * view[:, :2], reach * view[:, N_COMPONENTS:]])
    assert z.shape[1] == viewed.backbone.n_latent == N_BOTTLENECK + 2 + N_PROTEINS
    np.testing.assert_allclose(z, expected, atol=1e-4)


def test_a_protein_that_was_not_measured_is_told_from_rna(viewed, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    truth = view_of(viewed, measured)[:, N_COMPONENTS:]
    told = read_cells(viewed, measured, CPU, lambda inputs: viewed.backbone(inputs.without_proteins()).view)
    error = ((told[:, N_COMPONENTS:] - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum()
    assert error < 0.9


def test_what_is_hidden_or_absent_leaves_no_trace_in_the_view(viewed, cells):
    inputs = CellInputs.of(cells.__getitems__(list(range(20))))
    visible = VisibleTokens(torch.rand(20, 10) < 0.5, torch.rand(20, N_PROTEINS) < 0.5)
    genes = viewed.backbone.rna_encoder.embedding.per_feature(visible.rna)
    noise = inputs._replace(
        rna=torch.where(genes, inputs.rna, 1e3), protein=torch.where(visible.protein, inputs.protein, 1e3)
    )
    viewed.eval()
    with torch.no_grad():
        assert torch.equal(viewed.backbone(inputs, visible).z, viewed.backbone(noise, visible).z)


def test_many_cells_are_drawn_from_by_the_seed(network, cells, monkeypatch):
    monkeypatch.setattr(module, "MOST_VALUES", 300 * 50)
    axes = []
    for seed in (0, 0, 1):
        fresh = network(components=2)
        fit_view(fresh, cells, CPU, seed=seed)
        axes.append(fresh.backbone.view.axes)
    assert torch.equal(axes[0], axes[1])
    assert not torch.equal(axes[0], axes[2])


def test_fewer_cells_than_components_leave_the_others_empty(network, cells):
    fresh = network(components=2, skip_components=50)
    fit_view(fresh, cells.subset(cells.rows[:7]), CPU, seed=0)
    assert (fresh.backbone.view.axes[:, 7:] == 0).all()
    assert np.isfinite(embed(fresh, cells, CPU)).all()


def test_the_skip_knows_what_the_bottleneck_forgot(network, viewed, cells):
    """Types told by the second component alone, of which a body that never learned knows little."""
    component = view_of(viewed, cells)[:, 1]
    told = cells.subset(cells.rows)
    told.labels = cells.labels.copy()
    told.labels[told.rows] = np.digitize(component, np.quantile(component, [1 / 3, 2 / 3]))
    halves = told.subset(told.rows[::2]), told.subset(told.rows[1::2])
    right = {}
    for skip_components in (0, N_COMPONENTS):
        classifier = network("finetune", components=0, skip_components=skip_components)
        if skip_components:
            classifier.backbone.view.load_state_dict(viewed.backbone.view.state_dict())
        fit_head(classifier, halves[0], CPU, hide_protein=0.2, class_balance=False, seed=0)
        codes = probabilities(classifier, halves[1], CPU)[0].argmax(axis=1)
        right[skip_components] = (codes == told.labels[halves[1].rows]).mean()
        calibrate(classifier, *halves, CPU)  # of head and skip alike: no cell changes its class
        assert (probabilities(classifier, halves[1], CPU)[0].argmax(axis=1) == codes).all()
    assert right[N_COMPONENTS] > right[0] + 0.1
