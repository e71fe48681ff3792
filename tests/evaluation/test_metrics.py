import math

import numpy as np
import pytest
from sklearn import metrics as sk

from scfusionttt.errors import InputDataError
from scfusionttt.evaluation import TEN_METRICS, metrics
from scfusionttt.evaluation.metrics import agreement, silhouette, ten_metrics


@pytest.fixture
def blobs():
    """Three blobs of cells, and clusters that split one of them and misplace a few cells."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["B", "NK", "T"], [40, 50, 60])
    x_nd = rng.normal(size=(150, 5)) + np.repeat([[0.0], [3.0], [6.0]], [40, 50, 60], axis=0)
    clusters = np.repeat([7, 3, 1, 2], [40, 50, 20, 40])
    clusters[::17] = 3
    return labels, clusters, x_nd


def test_pairs_by_hand():
    # labels {0,1,2}{3,4}; clusters {0,1}{2,3}{4}: the pair (0,1) agrees, (2,3) is joined wrongly, and
    # (0,2), (1,2), (3,4) are split
    scores = agreement(list("aaabb"), list("xxyyz"))
    assert (scores["JI"], scores["F"]) == (1 / 5, 2 / 6)
    assert scores["FMI"] == pytest.approx((1 / 2 * 1 / 4) ** 0.5)


def test_pairs_of_a_million_cells_are_counted_without_overflow():
    labels = np.zeros(1_000_000, dtype=np.int8)
    scores = agreement(labels, labels)
    assert scores["JI"] == scores["F"] == scores["FMI"] == 1


def test_against_scikit_learn(blobs):
    labels, clusters, x_nd = blobs
    scores = ten_metrics(labels, clusters, x_nd)
    assert tuple(scores) == TEN_METRICS
    expected = {
        "ARI": sk.adjusted_rand_score(labels, clusters),
        "NMI": sk.normalized_mutual_info_score(labels, clusters),
        "FMI": sk.fowlkes_mallows_score(labels, clusters),
        "ASW": (sk.silhouette_score(x_nd, labels) + 1) / 2,
        "AMI": sk.adjusted_mutual_info_score(labels, clusters),
        "SC": sk.silhouette_score(x_nd, clusters),
        "CHI": sk.calinski_harabasz_score(x_nd, clusters),
        "DBI": sk.davies_bouldin_score(x_nd, clusters),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_names_and_order_of_cells_do_not_matter(blobs):
    labels, clusters, x_nd = blobs
    order = np.random.default_rng(1).permutation(len(labels))
    renamed = np.array(list("pqrs"))[np.unique(clusters, return_inverse=True)[1]]
    once = ten_metrics(labels, clusters, x_nd)
    assert ten_metrics(labels[order], renamed[order], x_nd[order]) == pytest.approx(once)


def test_perfect_clusters(blobs):
    labels, _, x_nd = blobs
    scores = ten_metrics(labels, labels, x_nd)
    assert all(scores[name] == pytest.approx(1) for name in ("ARI", "NMI", "FMI", "AMI", "JI", "F"))
    assert scores["ASW"] == pytest.approx((scores["SC"] + 1) / 2)


def test_without_a_representation_the_geometry_is_undefined(blobs):
    scores = ten_metrics(*blobs[:2])
    assert {name for name, value in scores.items() if math.isnan(value)} == {"ASW", "SC", "CHI", "DBI"}


@pytest.mark.parametrize("clusters", [np.zeros(6), np.arange(6)], ids=["one cluster", "all singletons"])
def test_degenerate_clusters_give_nan_geometry(clusters):
    labels = np.array(list("aabbbc"))
    x_nd = np.random.default_rng(0).normal(size=(6, 2))
    scores = ten_metrics(labels, clusters, x_nd)
    assert all(math.isnan(scores[name]) for name in ("SC", "CHI", "DBI"))
    assert scores["ARI"] == pytest.approx(0)
    assert math.isfinite(scores["ASW"])
    assert math.isnan(ten_metrics(np.zeros(6), clusters, x_nd)["ASW"])


def test_identical_singletons_agree():
    scores = ten_metrics(np.arange(5), np.arange(5))
    assert scores["ARI"] == scores["JI"] == scores["F"] == scores["FMI"] == 1


def test_silhouette_of_many_cells_is_sampled(blobs, monkeypatch):
    labels, _, x_nd = blobs
    exact = silhouette(x_nd, labels)
    monkeypatch.setattr(metrics, "SILHOUETTE_SAMPLE", 100)
    sampled = silhouette(x_nd, labels, seed=3)
    assert sampled == silhouette(x_nd, labels, seed=3)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.05)


def test_bad_input_is_named(blobs):
    labels, clusters, x_nd = blobs
    with pytest.raises(InputDataError, match="150 labels but 149 clusters"):
        ten_metrics(labels, clusters[1:])
    with pytest.raises(InputDataError, match="does not match 150 cells"):
        ten_metrics(labels, clusters, x_nd[1:])
    with pytest.raises(InputDataError, match="no labelled cells to score"):
        ten_metrics([], [])
    x_nd[4, 1] = np.nan
    with pytest.raises(InputDataError, match=r"1 of 150 cells \(the first in row 4\)"):
        ten_metrics(labels, clusters, x_nd)
