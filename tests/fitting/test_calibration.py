"""After training, probabilities are calibrated, and p-values identify cells of unknown classes."""

import numpy as np
import pytest
import torch

from scfusionttt.fitting.calibration import calibrate, set_novelty
from scfusionttt.fitting.kernel_head import fit_head
from scfusionttt.inference import latent, probabilities
from scfusionttt.nn.networks import carry_over

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


def test_overconfidence_is_corrected_and_predictions_stay(trained, halves):
    with torch.no_grad():
        trained.head.weight *= 1.9
        trained.head.bias *= 1.9
    before, loss = probabilities(trained, halves[1], CPU)[0], cross_entropy(trained, halves[1])
    calibrate(trained, *halves, CPU)
    after = probabilities(trained, halves[1], CPU)[0]
    assert cross_entropy(trained, halves[1]) < loss
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_p_values_of_known_cells_are_uniform_and_of_far_ones_zero(trained, halves):
    calibrate(trained, *halves, CPU)
    z = torch.from_numpy(latent(trained, halves[1], CPU))
    by_rna = torch.zeros(len(z), dtype=torch.bool)
    p_values = trained.novelty.p_value(trained.novelty(z), by_rna)
    ranks = torch.arange(1, len(z) + 1).flip(0) / len(z)  # of the cells as far or farther, nearest first
    assert (p_values.sort(descending=True).values - ranks).abs().max() < 0.1  # the means include these cells
    far = trained.novelty(z + 100 * z.std())
    assert (trained.novelty.p_value(far, by_rna) == 0).all()


def test_novelty_is_the_mahalanobis_distance(trained, halves, cells):
    calibrate(trained, *halves, CPU)
    z, codes = latent(trained, cells, CPU).astype(float), cells.labels[cells.rows]
    expected = mahalanobis(z, z, codes)
    np.testing.assert_allclose(trained.novelty(torch.from_numpy(z).float()).numpy(), expected, rtol=1e-3)


def test_p_values_come_from_cells_that_no_mean_includes(trained, halves):
    calibrate(trained, *halves, CPU)
    (z, codes), (held_out, _) = ((latent(trained, half, CPU).astype(float), half.labels[half.rows]) for half in halves)
    expected = np.quantile(mahalanobis(held_out, z, codes), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(trained.novelty.quantiles[0, ::250].numpy(), expected, rtol=1e-3)


def test_few_cells_are_held_out_in_turn(network, cells):
    """Distances to means that include the cell are too small: a new cell would look unknown."""
    classifier = network("finetune")
    z, codes = np.random.default_rng(0).normal(size=(60, classifier.backbone.n_latent)), np.repeat([0, 1, 2], 20)
    turns = [(np.setdiff1d(np.arange(60), held_out), held_out) for held_out in np.arange(60).reshape(5, 12)]
    set_novelty(classifier, z, z, codes, turns)
    distances = [mahalanobis(z[held_out], z[rows], codes[rows]) for rows, held_out in turns]
    expected = np.quantile(np.concatenate(distances), [0, 0.5, 1])
    np.testing.assert_allclose(classifier.novelty.quantiles[1, ::500].numpy(), expected, rtol=1e-3)
    assert expected[1] > 1.05 * np.median(mahalanobis(z, z, codes))


def mahalanobis(z, of, codes):
    means = np.stack([of[codes == code].mean(axis=0) for code in range(3)])
    inner = of - means[codes]
    covariance = inner.T @ inner / len(of)
    precision = np.linalg.inv(covariance + 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    apart = z[:, None] - means
    return np.sqrt(np.einsum("ncl,lk,nck->nc", apart, precision, apart)).min(axis=1)


def test_cells_without_proteins_have_a_null_distribution_of_their_own(trained, halves):
    calibrate(trained, *halves, CPU)
    z = torch.from_numpy(latent(trained, halves[1], CPU, rna_only=True))
    p_values = trained.novelty.p_value(trained.novelty(z), torch.ones(len(z), dtype=torch.bool))
    assert abs(float(p_values.mean()) - 0.5) < 0.05


def test_p_values_of_an_uncalibrated_model_are_one(network, cells):
    classifier = network("finetune")
    assert not classifier.novelty.is_calibrated
    assert (probabilities(classifier, cells, CPU)[1] == 1).all()


def test_a_student_inherits_the_classes_it_shares_with_its_teacher(network, trained, halves):
    calibrate(trained, *halves, CPU)
    student = network("transfer", seed=1)
    carry_over(trained, ["a", "b", "c"], student, ["c", "new", "a"])
    assert torch.equal(student.novelty.means[[0, 2]], trained.novelty.means[[2, 0]])
    assert not student.novelty.means[1].isfinite().any()
    z = torch.randn(5, trained.backbone.n_latent, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(student.head(z)[:, [0, 2]].detach(), trained.head(z)[:, [2, 0]].detach(), rtol=1e-5)
