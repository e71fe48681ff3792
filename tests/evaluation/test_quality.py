import numpy as np
import pytest
from scipy import sparse

from scfusionttt.evaluation import (
    evaluate_graph,
    evaluate_representation,
    mean_correlation,
    neighbour_agreement,
    neighbours,
    probe_f1,
    r_squared,
    ridge_correlation,
)


@pytest.fixture
def blobs():
    draw = np.random.default_rng(0)
    codes = np.arange(91) % 3
    return draw.normal(size=(91, 4)) * 0.1 + np.eye(4)[codes] * 5, np.array(["a", "b", "c"])[codes]


def test_a_graph_is_scored_as_the_representation_it_came_from(blobs):
    x, labels = blobs
    graph = neighbours(x).obsp["connectivities"]
    by_graph, by_x = evaluate_graph(graph, labels, seeds=[4]), evaluate_representation(x, labels, seeds=[4])
    assert by_graph.mean["ARI"] == by_x.mean["ARI"] == 1
    assert np.isnan(by_graph.mean["ASW"]) and by_graph.space is None


def test_neighbours_vote_by_weight_and_unlabelled_ones_have_no_vote():
    graph = sparse.csr_matrix([[0, 3, 2, 9], [3, 0, 0, 0], [2, 0, 0, 0], [9, 0, 0, 0]], dtype=float)
    assert neighbour_agreement(graph, ["a", "a", "b", "unknown"]) == pytest.approx(2 / 3)
    assert neighbour_agreement(sparse.csr_matrix((2, 2)), ["a", "b"]) == 0


def test_ridge_regression_predicts_signal_but_not_noise(blobs):
    x, _ = blobs
    noise = np.random.default_rng(1).normal(size=(91, 5))
    assert ridge_correlation(x, x[:, :2] + 3) > 0.99
    assert abs(ridge_correlation(x, noise)) < 0.3
    assert np.isnan(ridge_correlation(x, np.ones((91, 2))))


def test_ridge_regression_is_fair_to_wide_representations_of_few_cells():
    """With a fixed, weak penalty, 110 idle dimensions cost two thirds of the correlation."""
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=(150, 3)), 0.3 * rng.normal(size=(150, 110))
    values = signal @ rng.normal(size=(3, 40)) + 2 * rng.normal(size=(150, 40))
    narrow = ridge_correlation(signal, values)
    assert ridge_correlation(np.hstack([signal, noise]), values) > narrow - 0.1 > 0.4
    assert abs(ridge_correlation(noise, values)) < 0.05


def test_r_squared_is_one_for_the_truth_and_zero_for_the_mean():
    truth = np.array([[1.0, 5.0], [3.0, np.nan], [5.0, 9.0]])
    assert r_squared(np.nan_to_num(truth), truth) == 1
    assert r_squared(np.full((3, 2), [3.0, 7.0]), truth) == 0
    assert r_squared(np.full((3, 2), [4.0, 7.0]), truth) == pytest.approx(-3 / 16)
    assert np.isnan(r_squared(np.ones((2, 1)), np.ones((2, 1))))


def test_the_correlation_leaves_out_constant_features():
    truth = np.array([[1.0, 2.0, 7.0], [2.0, 1.0, 7.0], [3.0, 0.0, 7.0]])
    predicted = np.array([[1.0, 0.0, 1.0], [2.0, 1.0, 2.0], [3.0, 2.0, 0.0]])
    assert mean_correlation(predicted[:, [0]], truth[:, [0]]) == pytest.approx(1)
    assert mean_correlation(predicted, truth) == pytest.approx(0)
    assert np.isnan(mean_correlation(predicted[:, 2:], truth[:, 2:]))


def test_constant_features_are_left_out_whatever_their_value(blobs):
    """Rounding made most constants of float64 vary by 1e-17, so that each counted, with a correlation of 0."""
    z = np.asarray(blobs[0], dtype=np.float64)
    constant = np.column_stack([z[:, 0], np.full(len(z), 0.37)])
    assert (constant - constant.mean(axis=0)).any(axis=0).all()
    assert mean_correlation(constant, constant) == pytest.approx(1)
    assert ridge_correlation(z, constant) == pytest.approx(ridge_correlation(z, constant[:, :1]))
    assert np.isnan(r_squared(constant[:, 1:] + 1, constant[:, 1:]))


def test_a_feature_is_correlated_in_the_cells_that_have_it():
    """Features with a missing value were left out, and cells without one of the proteins: in a mosaic, all cells."""
    truth = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 3.0], [np.nan, 1.0]])
    predicted = np.array([[1.0, 9.0], [3.0, 5.0], [2.0, 4.0], [9.0, 0.0]])
    one, other = np.corrcoef(predicted[:3, 0], truth[:3, 0])[0, 1], np.corrcoef(predicted[1:, 1], truth[1:, 1])[0, 1]
    assert mean_correlation(predicted, truth) == pytest.approx((one + other) / 2)


def test_a_probe_reads_labels_that_are_there_and_no_others():
    rng = np.random.default_rng(0)
    labels = np.repeat(["B", "T", "NK"], 100)
    z = rng.normal(size=(300, 6)) + 4 * np.eye(6)[np.repeat([0, 1, 2], 100)]
    train = rng.permutation(300)[:60]
    rest = np.setdiff1d(np.arange(300), train)
    assert probe_f1(z, labels, train, rest) > 0.95
    assert probe_f1(1e4 * z + 7, labels, train, rest) == pytest.approx(probe_f1(z, labels, train, rest), abs=0.02)
    assert probe_f1(rng.normal(size=(300, 6)), labels, train, rest) < 0.5
