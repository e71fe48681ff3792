"""A classifier starts from the logistic regression on z, or on its kernel, folded into its head."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scfusionttt.training.inference import embed, probabilities
from scfusionttt.training.probe import C_KERNEL, C_LINEAR, fit_head

CPU = torch.device("cpu")


def probed(network, cells, landmarks=40, **settings):
    classifier = network("finetune", landmarks=landmarks)
    fit_head(classifier, cells, CPU, **{"hide_protein": 0.0, "class_balance": False, "seed": 0, **settings})
    return classifier


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("landmarks", [0, 40])
def test_the_head_gives_the_probabilities_of_the_regression(network, cells, n_classes, landmarks):
    few = cells.subset(cells.rows[cells.labels < n_classes])
    classifier, codes = probed(network, few, landmarks), few.labels[few.rows]
    z = embed(classifier, few, CPU).astype(float)
    if landmarks:
        points, gamma = classifier.head.landmarks.numpy().astype(float), float(classifier.head.gamma)
        scale, axes = np.linalg.eigh(kernel(points, points, gamma))
        features, strength = kernel(z, points, gamma) @ (axes / np.sqrt(scale.clip(min=1e-6))), C_KERNEL
    else:
        features, strength = z / z.std(axis=0), C_LINEAR
    features = features - features.mean(axis=0)
    expected = LogisticRegression(C=strength, max_iter=3000).fit(features, codes).predict_proba(features)
    found = probabilities(classifier, few, CPU)[0]
    share = found[:, :n_classes] / found[:, :n_classes].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, expected, atol=2e-3)


def kernel(a, b, gamma):
    return np.exp(-gamma * ((a[:, None] - b) ** 2).sum(axis=2))


def test_few_cells_stand_for_several_landmarks_each(network, cells):
    few = cells.subset(cells.rows[:15])
    classifier = probed(network, few, landmarks=40)
    assert len(classifier.head.landmarks.unique(dim=0)) <= 15
    assert (probabilities(classifier, few, CPU)[0].argmax(axis=1) == few.labels[few.rows]).mean() > 0.9


def test_a_class_without_cells_to_learn_from_is_never_named(network, cells):
    few = cells.subset(cells.rows[cells.labels != 1])
    assert not (probabilities(probed(network, few), cells, CPU)[0].argmax(axis=1) == 1).any()


def test_the_body_stays_as_it_was(network, cells):
    before, after = network("finetune").backbone.state_dict(), probed(network, cells).backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_head_that_saw_cells_by_rna_alone_is_less_surprised_by_them(network, cells):
    measured = cells.subset(cells.rows[np.isfinite(cells.protein[cells.rows]).all(axis=1)])
    codes, loss = torch.from_numpy(measured.labels[measured.rows]).long(), {}
    for hide_protein in (0.0, 0.5):
        classifier = probed(network, measured, hide_protein=hide_protein)
        z = torch.from_numpy(embed(classifier, measured, CPU, rna_only=True))
        loss[hide_protein] = torch.nn.functional.cross_entropy(classifier.head(z), codes).item()
    assert loss[0.5] < 0.9 * loss[0.0]


def test_cells_of_one_class_leave_the_head_alone(network, cells):
    one = probed(network, cells.subset(cells.rows[cells.labels == 0]))
    assert torch.equal(one.head.weight, network("finetune").head.weight)
