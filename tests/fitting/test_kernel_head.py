"""A classifier starts from the logistic regression on z, or on its kernel, folded into its head."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scfusionttt.errors import NonFiniteLossError
from scfusionttt.fitting.kernel_head import C_KERNEL, C_LINEAR, fit_head
from scfusionttt.fitting.nystroem import kernel_features
from scfusionttt.inference import class_scores, latent, probabilities

CPU = torch.device("cpu")


def probed(network, cells, *, kernel=True, **settings):
    classifier = network("finetune", kernel=kernel)
    fit_head(classifier, cells, CPU, **{"hide_protein": 0.0, "class_balance": False, "seed": 0, **settings})
    return classifier


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kernel_head", [False, True])
def test_the_head_gives_the_probabilities_of_the_regression(network, cells, n_classes, kernel_head):
    few = cells.subset(cells.rows[cells.labels < n_classes])
    classifier, codes = probed(network, few, kernel=kernel_head), few.labels[few.rows]
    z = latent(classifier, few, CPU).astype(float)
    if kernel_head:
        points, gamma = classifier.head.landmarks.numpy().astype(float), float(classifier.head.gamma)
        scale, axes = np.linalg.eigh(kernel(points, points, gamma))
        features, strength = kernel(z, points, gamma) @ (axes / np.sqrt(scale.clip(min=1e-6))), C_KERNEL
    else:
        features, strength = z / z.std(axis=0), C_LINEAR
    features = features - features.mean(axis=0)
    expected = LogisticRegression(C=strength, max_iter=3000).fit(features, codes).predict_log_proba(features)
    scores = class_scores(classifier, few, CPU)[:, :n_classes]
    # a temperature apart
    apart, expected_apart = scores - scores[:, :1], expected - expected[:, :1]
    temperature = np.abs(expected_apart).max() / np.abs(apart).max()
    assert 0.499 <= temperature <= 2.001  # the bounds, to float32's rounding
    np.testing.assert_allclose(apart * temperature, expected_apart, atol=0.01 * np.abs(expected_apart).max())


def kernel(a, b, gamma):
    return np.exp(-gamma * ((a[:, None] - b) ** 2).sum(axis=2))


def test_few_cells_give_several_landmarks_each(network, cells):
    few = cells.subset(cells.rows[:15])
    classifier = probed(network, few)
    assert len(classifier.head.landmarks.unique(dim=0)) <= 15
    assert (probabilities(classifier, few, CPU)[0].argmax(axis=1) == few.labels[few.rows]).mean() > 0.9


def test_a_class_without_cells_is_never_predicted(network, cells):
    few = cells.subset(cells.rows[cells.labels != 1])
    assert not (probabilities(probed(network, few), cells, CPU)[0].argmax(axis=1) == 1).any()


def test_the_body_is_unchanged(network, cells):
    before, after = network("finetune", kernel=True).backbone.state_dict(), probed(network, cells).backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_hide_protein_improves_the_head_on_rna_alone(network, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    codes, loss = torch.from_numpy(measured.labels[measured.rows]).long(), {}
    for hide_protein in (0.0, 0.5):
        classifier = probed(network, measured, hide_protein=hide_protein)
        z = torch.from_numpy(latent(classifier, measured, CPU, rna_only=True))
        loss[hide_protein] = torch.nn.functional.cross_entropy(classifier.head(z), codes).item()
    assert loss[0.5] < 0.9 * loss[0.0]


def test_cells_of_one_class_leave_the_head_alone(network, cells):
    one = probed(network, cells.subset(cells.rows[cells.labels == 0]))
    assert torch.equal(one.head.weight, network("finetune", kernel=True).head.weight)


def test_probabilities_are_calibrated_on_new_cells(network, cells, monkeypatch):
    """A regression fitted this tightly is sure of itself; the temperature comes from cells held out in turn."""
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(cells.labels)) < 0.3, rng.integers(0, 3, len(cells.labels)), cells.labels)
    monkeypatch.setitem(cells.__dict__, "labels", noisy)
    learn, new = (cells.subset(cells.rows[part::2]) for part in (0, 1))
    classifier = probed(network, learn)
    sure = probabilities(classifier, new, CPU)[0].max(axis=1).mean()
    right = (probabilities(classifier, new, CPU)[0].argmax(axis=1) == new.labels[new.rows]).mean()
    assert abs(sure - right) < 0.1


def test_classes_of_a_single_cell_leave_nothing_to_hold_out(network, cells):
    one_each = np.array([np.flatnonzero(cells.labels == code)[0] for code in range(3)])
    classifier = probed(network, cells.subset(cells.rows[one_each]))
    assert not classifier.novelty.is_calibrated
    assert (probabilities(classifier, cells.subset(cells.rows[one_each]), CPU)[0].argmax(axis=1) == [0, 1, 2]).all()


def test_a_latent_vector_that_is_not_finite_is_refused_by_the_names_of_its_cells(network, cells, monkeypatch):
    monkeypatch.setitem(cells.__dict__, "rna", cells.rna.copy())
    cells.rna.data[cells.rna.indptr[5]] = np.nan
    with pytest.raises(NonFiniteLossError, match=f"in 1 of {len(cells)} cells \\({cells.cell_names[5]}\\)"):
        probed(network, cells)


def test_landmarks_may_be_on_an_apple_gpu():
    """Such a device has no float64, which they were converted to there: fine-tuning ended in a TypeError."""
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    there = SimpleNamespace(cpu=lambda: torch.from_numpy(z))
    features, _, gamma = kernel_features(z, there, sharpness=1.0)
    np.testing.assert_allclose(features @ features.T, kernel(z, z, gamma), atol=1e-5)
