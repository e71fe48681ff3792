import random

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.evaluation import clustering
from scfusionttt.evaluation.clustering import cluster, cluster_graph, neighbours, umap


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 60)
    centers = rng.normal(size=(6, 10)) * 3
    return labels, (rng.normal(size=(360, 10)) + centers[labels]).astype(np.float32)


@pytest.fixture(scope="module")
def graph(blobs):
    return neighbours(blobs[1]).obsp["connectivities"]


def test_the_requested_number_of_clusters(blobs, graph):
    labels, x_nd = blobs
    clusters = cluster(x_nd, 6)
    assert clusters.exact
    assert clusters.n_clusters == len(np.unique(clusters.labels)) == 6
    assert adjusted_rand_score(labels, clusters.labels) > 0.95
    # the graph computed once gives the same
    assert np.array_equal(cluster_graph(graph, 6).labels, clusters.labels)
    for n_clusters in (7, 12):
        assert cluster_graph(graph, n_clusters).n_clusters == n_clusters


def test_an_unreachable_number_of_clusters_is_reported():
    # two groups of cells without an edge between them never become one cluster
    far = np.random.default_rng(0).normal(size=(80, 3))
    far[40:] += 1000
    clusters = cluster(far, 1)
    assert clusters.n_clusters == 2
    assert clusters.n_requested == 1
    assert not clusters.exact
    assert umap(far).shape == (80, 2)


def test_the_largest_cluster_is_zero(graph):
    sizes = np.bincount(cluster_graph(graph, resolution=2.0).labels)
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.slow
def test_approximate_neighbours_of_many_cells_give_the_same_clusters(blobs, graph, monkeypatch):
    monkeypatch.setattr(clustering, "EXACT_NEIGHBORS", 100)
    near = neighbours(blobs[1], seed=3).obsp["connectivities"]
    assert (near != neighbours(blobs[1], seed=3).obsp["connectivities"]).nnz == 0
    assert adjusted_rand_score(cluster_graph(near, 6).labels, cluster_graph(graph, 6).labels) > 0.95


def test_a_given_resolution_is_used(graph):
    coarse, fine = cluster_graph(graph, resolution=0.1), cluster_graph(graph, resolution=5.0)
    assert coarse.resolution == 0.1
    assert coarse.n_clusters < fine.n_clusters


def test_agrees_with_scanpy(blobs):
    import scanpy as sc

    cells = neighbours(blobs[1])
    clusters = cluster_graph(cells.obsp["connectivities"], resolution=1.0)
    sc.tl.leiden(cells, resolution=1.0, flavor="igraph", n_iterations=2, directed=False)
    assert adjusted_rand_score(cells.obs["leiden"], clusters.labels) > 0.95


def test_the_seed_determines_the_clusters(graph):
    first = cluster_graph(graph, 9, seed=4)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    state, legacy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(cluster_graph(graph, 9, seed=4).labels, first.labels)
    assert random.getstate() == state
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_umap_of_the_fewest_cells_with_neighbours():
    """The report of three cells ended in a TypeError of scipy: a spectral start needs a fourth."""
    assert np.isfinite(umap(np.eye(3))).all()


def test_umap_is_seeded_and_does_not_change_its_input(blobs):
    labels, x_nd = blobs
    cells = neighbours(x_nd)
    first = umap(cells, seed=1)
    assert first.shape == (360, 2)
    assert np.isfinite(first).all()
    assert "X_umap" not in cells.obsm
    assert np.array_equal(umap(x_nd, seed=1), first)
    assert not np.array_equal(umap(cells, seed=2), first)
    centers = np.array([first[labels == one].mean(axis=0) for one in range(6)])
    own = np.linalg.norm(first[:, None] - centers, axis=2).argmin(axis=1)
    assert (own == labels).mean() > 0.95


def test_bad_input_is_named(graph):
    with pytest.raises(SettingError, match=r"n_clusters=0 is not between 1 and the number of cells \(360\)"):
        cluster_graph(graph, 0)
    with pytest.raises(InputDataError, match="finite"):
        neighbours(np.full((10, 2), np.nan))
    for n_neighbors in (1, 2.5):
        with pytest.raises(SettingError, match=rf"n_neighbors must be .* at least 2, .* \(got {n_neighbors}\)"):
            neighbours(np.zeros((10, 2)), n_neighbors=n_neighbors)
