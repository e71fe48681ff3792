"""A classifier starts from the logistic regression on z, folded into its head."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scfusionttt.training.inference import embed, probabilities
from scfusionttt.training.probe import C, fit_head

CPU = torch.device("cpu")


def probed(network, cells, **settings):
    classifier = network("finetune")
    fit_head(classifier, cells, CPU, **{"hide_protein": 0.0, "class_balance": False, **settings})
    return classifier


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_head_gives_the_probabilities_of_the_regression(network, cells, n_classes):
    few = cells.subset(cells.rows[cells.labels < n_classes])
    classifier, codes = probed(network, few), few.labels[few.rows]
    z = embed(classifier, few, CPU).astype(float)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    expected = LogisticRegression(C=C, max_iter=1000).fit(z, codes).predict_proba(z)
    found = probabilities(classifier, few, CPU)
    share = found[:, :n_classes] / found[:, :n_classes].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, expected, atol=2e-3)


def test_a_class_without_cells_to_learn_from_is_never_named(network, cells):
    few = cells.subset(cells.rows[cells.labels != 1])
    assert not (probabilities(probed(network, few), cells, CPU).argmax(axis=1) == 1).any()


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
