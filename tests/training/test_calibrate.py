"""After training: probabilities mean what they say, and cells unlike any known class are told apart."""

import numpy as np
import pytest
import torch

from scfusionttt.nn.networks import carry_over
from scfusionttt.training.calibrate import calibrate
from scfusionttt.training.inference import embed, probabilities
from scfusionttt.training.probe import fit_head

CPU = torch.device("cpu")


@pytest.fixture
def halves(cells):
    return cells.subset(cells.rows[::2]), cells.subset(cells.rows[1::2])


@pytest.fixture
def trained(network, halves):
    classifier = network("finetune")
    fit_head(classifier, halves[0], CPU, hide_protein=0.2, class_balance=False, seed=0)
    return classifier


def cross_entropy(classifier, cells):
    table, codes = probabilities(classifier, cells, CPU)[0], cells.labels[cells.rows]
    return -np.log(table[np.arange(len(codes)), codes]).mean()


def test_overconfidence_is_taken_back_and_no_cell_changes_its_class(trained, halves):
    with torch.no_grad():
        trained.head.weight *= 1.9
        trained.head.bias *= 1.9
    before, loss = probabilities(trained, halves[1], CPU)[0], cross_entropy(trained, halves[1])
    calibrate(trained, *halves, CPU)
    after = probabilities(trained, halves[1], CPU)[0]
    assert cross_entropy(trained, halves[1]) < loss
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_known_cells_are_usual_and_far_ones_are_not(trained, halves):
    calibrate(trained, *halves, CPU)
    z = torch.from_numpy(embed(trained, halves[1], CPU))
    by_rna = torch.zeros(len(z), dtype=torch.bool)
    usual = trained.novelty.usual(trained.novelty(z), by_rna)
    ranks = torch.arange(1, len(z) + 1).flip(0) / len(z)  # of the cells as far or farther, nearest first
    assert (usual.sort(descending=True).values - ranks).abs().max() < 0.02
    far = trained.novelty(z + 100 * z.std())
    assert (trained.novelty.usual(far, by_rna) == 0).all()


def test_distance_is_that_of_mahalanobis(trained, halves):
    calibrate(trained, *halves, CPU)
    train = halves[0]
    z, codes = embed(trained, train, CPU).astype(float), train.labels[train.rows]
    means = np.stack([z[codes == code].mean(axis=0) for code in range(3)])
    inner = z - means[codes]
    covariance = inner.T @ inner / len(z)
    precision = np.linalg.inv(covariance + 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    apart = z[:, None] - means
    expected = np.sqrt(np.einsum("ncl,lk,nck->nc", apart, precision, apart)).min(axis=1)
    np.testing.assert_allclose(trained.novelty(torch.from_numpy(z).float()).numpy(), expected, rtol=1e-3)


def test_cells_seen_by_rna_alone_are_held_against_their_like(trained, halves):
    calibrate(trained, *halves, CPU)
    z = torch.from_numpy(embed(trained, halves[1], CPU, rna_only=True))
    usual = trained.novelty.usual(trained.novelty(z), torch.ones(len(z), dtype=torch.bool))
    assert abs(float(usual.mean()) - 0.5) < 0.02


def test_an_uncalibrated_model_finds_everything_usual(trained, halves):
    assert not trained.novelty.is_calibrated
    assert (probabilities(trained, halves[1], CPU)[1] == 1).all()


def test_a_student_takes_over_what_is_known_of_the_classes_it_shares(network, trained, halves):
    calibrate(trained, *halves, CPU)
    student = network("transfer", seed=1)
    carry_over(trained, ["a", "b", "c"], student, ["c", "new", "a"])
    assert torch.equal(student.novelty.means[[0, 2]], trained.novelty.means[[2, 0]])
    assert not student.novelty.means[1].isfinite().any()
    z = torch.randn(5, trained.backbone.n_latent, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(student.head(z)[:, [0, 2]].detach(), trained.head(z)[:, [2, 0]].detach(), rtol=1e-5)
