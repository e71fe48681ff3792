"""The PCA skip: components and proteins on one scale, unmeasured proteins predicted from RNA."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from scfusionttt.fitting.calibration import calibrate
from scfusionttt.fitting.kernel_head import fit_head
from scfusionttt.fitting.pca_skip import REACH, fit_pca_skip
from scfusionttt.fitting.sample import read_sample
from scfusionttt.inference import embed, probabilities, read_cells
from scfusionttt.nn.tokens import CellInputs, VisibleTokens

CPU = torch.device("cpu")
N_COMPONENTS, N_PROTEINS, N_BOTTLENECK = 5, 8, 6


def fit(network, cells):
    fit_pca_skip(network.backbone.view, read_sample(network, cells, CPU, seed=0), seed=0)


@pytest.fixture
def fitted(network, cells):
    fresh = network(components=2, skip_components=N_COMPONENTS)
    fit(fresh, cells)
    return fresh


def skip_values(network, cells):
    return read_cells(network, cells, CPU, lambda inputs: network.backbone(inputs).skip)


def test_components_are_principal_and_have_the_variance_of_the_proteins(fitted, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    view, genes = skip_values(fitted, cells), read_cells(fitted, cells, CPU, lambda inputs: inputs.rna)
    expected = PCA(N_COMPONENTS, svd_solver="full").fit_transform(genes)
    centered = view[:, :N_COMPONENTS] - view[:, :N_COMPONENTS].mean(axis=0)
    np.testing.assert_allclose(np.abs(np.corrcoef(centered[:, 0], expected[:, 0])[0, 1]), 1, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(centered.var(axis=0).sum()), 1, atol=1e-4)
    proteins = skip_values(fitted, measured)[:, N_COMPONENTS:]
    np.testing.assert_allclose(np.sqrt(proteins.var(axis=0).sum()), 1, atol=1e-4)


def test_the_latent_vector_is_the_bottleneck_with_the_first_components_and_the_proteins(fitted, cells):
    z, view = embed(fitted, cells, CPU), skip_values(fitted, cells)
    bottleneck = read_cells(fitted, cells, CPU, lambda inputs: fitted.backbone(inputs).bottleneck)
    reach = REACH * np.sqrt(bottleneck.var(axis=0).sum())
    expected = np.hstack([bottleneck, reach * view[:, :2], reach * view[:, N_COMPONENTS:]])
    assert z.shape[1] == fitted.backbone.n_latent == N_BOTTLENECK + 2 + N_PROTEINS
    np.testing.assert_allclose(z, expected, atol=1e-4)


def test_an_unmeasured_protein_is_predicted_from_rna(fitted, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    truth = skip_values(fitted, measured)[:, N_COMPONENTS:]
    predicted = read_cells(fitted, measured, CPU, lambda inputs: fitted.backbone(inputs.without_proteins()).skip)
    error = ((predicted[:, N_COMPONENTS:] - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum()
    assert error < 0.9


def test_hidden_and_absent_values_leave_no_trace(fitted, cells):
    inputs = CellInputs.of(cells.__getitems__(list(range(20))))
    visible = VisibleTokens(torch.rand(20, 10) < 0.5, torch.rand(20, N_PROTEINS) < 0.5)
    genes = fitted.backbone.rna_encoder.embedding.per_feature(visible.rna)
    noise = inputs._replace(
        rna=torch.where(genes, inputs.rna, 1e3), protein=torch.where(visible.protein, inputs.protein, 1e3)
    )
    fitted.eval()
    with torch.no_grad():
        assert torch.equal(fitted.backbone(inputs, visible).z, fitted.backbone(noise, visible).z)


def test_fewer_cells_than_components_leave_the_others_empty(network, cells):
    fresh = network(components=2, skip_components=50)
    fit(fresh, cells.subset(cells.rows[:7]))
    assert (fresh.backbone.view.axes[:, 7:] == 0).all()
    assert np.isfinite(embed(fresh, cells, CPU)).all()


def test_the_skip_keeps_what_an_untrained_body_loses(network, fitted, cells):
    """Types that differ in the second component alone, which an untrained body hardly keeps."""
    component = skip_values(fitted, cells)[:, 1]
    typed = cells.subset(cells.rows)
    typed.labels = cells.labels.copy()
    typed.labels[typed.rows] = np.digitize(component, np.quantile(component, [1 / 3, 2 / 3]))
    halves = typed.subset(typed.rows[::2]), typed.subset(typed.rows[1::2])
    right = {}
    for skip_components in (0, N_COMPONENTS):
        classifier = network("finetune", kernel=True, skip_components=skip_components)
        if skip_components:
            classifier.backbone.view.load_state_dict(fitted.backbone.view.state_dict())
        fit_head(classifier, halves[0], CPU, hide_protein=0.2, class_balance=False, seed=0)
        codes = probabilities(classifier, halves[1], CPU)[0].argmax(axis=1)
        right[skip_components] = (codes == typed.labels[halves[1].rows]).mean()
        calibrate(classifier, *halves, CPU)  # of head and skip alike: no cell changes its class
        assert (probabilities(classifier, halves[1], CPU)[0].argmax(axis=1) == codes).all()
    assert right[N_COMPONENTS] > right[0] + 0.1
