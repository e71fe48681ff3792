"""Leiden clusters and UMAP of a representation, from its nearest-neighbour graph."""

import random
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.threads import threads_kept

#: Above this number of cells, neighbours are approximate (nearest-neighbour descent).
EXACT_NEIGHBORS = 50_000

_STEPS = 30
_LARGEST_RESOLUTION = 1024.0


@dataclass(frozen=True)
class Clustering:
    """Clusters of cells.

    Attributes
    ----------
    labels
        Cluster of every cell, ``[n]`` int; 0 is the largest.
    n_clusters
        Number of clusters.
    resolution
        Resolution of the Leiden objective.
    n_requested
        Requested number of clusters; None if a resolution was given instead.
    """

    labels: np.ndarray
    n_clusters: int
    resolution: float
    n_requested: int | None = None

    @property
    def exact(self) -> bool:
        """Whether the number of clusters is the requested one."""
        return self.n_requested is None or self.n_clusters == self.n_requested


def neighbours(representation: ArrayLike, *, n_neighbors: int = 15, seed: int = 0) -> AnnData:
    """Return an AnnData with the representation as X and scanpy's nearest-neighbour graph in obsp.

    Parameters
    ----------
    representation
        ``[n, d]``, finite; distances are Euclidean.
    n_neighbors
        Neighbours of a cell, including itself; fewer if there are no more cells.
    seed
        Seed of the approximate search above `EXACT_NEIGHBORS` cells.

    Raises
    ------
    InputDataError
        The representation is not a finite matrix with at least three rows.
    SettingError
        `n_neighbors` is not a whole number of at least 2.
    """
    import scanpy as sc

    if not isinstance(n_neighbors, Integral) or n_neighbors < 2:
        raise SettingError(
            f"n_neighbors must be a whole number of at least 2, as a cell itself counts (got {n_neighbors!r})"
        )
    x_nd = np.array(representation, dtype=np.float32)
    if x_nd.ndim != 2 or len(x_nd) < 3 or not np.isfinite(x_nd).all():
        raise InputDataError(
            f"cannot cluster a representation of shape {x_nd.shape}; give a finite matrix [n, d] of at least 3 cells"
        )
    cells = AnnData(x_nd)
    n_neighbors = min(int(n_neighbors), len(x_nd) - 1)
    search = "sklearn" if len(x_nd) <= EXACT_NEIGHBORS else _descent(n_neighbors, seed)
    with threads_kept():
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", transformer=search, random_state=seed)
    return cells


def cluster(
    representation: ArrayLike,
    n_clusters: int | None = None,
    *,
    resolution: float = 1.0,
    seed: int = 0,
    n_neighbors: int = 15,
) -> Clustering:
    """Cluster a representation with Leiden on its nearest-neighbour graph.

    Parameters
    ----------
    representation, n_neighbors
        As for `neighbours`.
    n_clusters, resolution, seed
        As for `cluster_graph`. The errors are those of both functions.
    """
    graph = neighbours(representation, n_neighbors=n_neighbors).obsp["connectivities"]
    return cluster_graph(graph, n_clusters, resolution=resolution, seed=seed)


def cluster_graph(
    graph: sparse.spmatrix, n_clusters: int | None = None, *, resolution: float = 1.0, seed: int = 0
) -> Clustering:
    """Cluster a weighted neighbour graph with Leiden (modularity, igraph, two iterations; Traag et al. 2019).

    Parameters
    ----------
    graph
        Symmetric weights between cells, ``[n, n]``, such as ``obsp["connectivities"]``.
    n_clusters
        Bisect the resolution until there are this many clusters. If no resolution gives exactly as many, the closest
        clustering is returned and `Clustering.exact` is False.
    resolution
        Resolution of the modularity, used without `n_clusters`; a higher one gives more clusters.
    seed
        The same seed gives the same clusters; global random states are neither used nor changed.

    Raises
    ------
    SettingError
        `n_clusters` is not between 1 and the number of cells.
    """
    import igraph

    n_cells = graph.shape[0]
    if n_clusters is not None and not 1 <= n_clusters <= n_cells:
        raise SettingError(f"n_clusters={n_clusters} is not between 1 and the number of cells ({n_cells})")
    upper = sparse.triu(graph, k=1).tocoo()
    edges = igraph.Graph(n=n_cells, edges=np.column_stack([upper.row, upper.col]), directed=False)
    if n_clusters is None:
        return _clustering(_leiden(edges, upper.data, resolution, seed), resolution, None)
    return _bisect(edges, upper.data, n_clusters, seed)


def umap(cells: AnnData | ArrayLike, *, seed: int = 0) -> np.ndarray:
    """Return the UMAP of a representation, ``[n, 2]`` (no unit).

    Parameters
    ----------
    cells
        Representation ``[n, d]``, or the result of `neighbours`.
    seed
        Seed of the layout.
    """
    import scanpy as sc

    cells = cells.copy() if isinstance(cells, AnnData) else neighbours(cells)
    start: Literal["spectral", "random"] = "spectral" if len(cells) > 3 else "random"  # needs more cells than vectors
    with threads_kept(), warnings.catch_warnings():
        # the spectral initialisation of a disconnected graph: umap-learn falls back by itself
        warnings.filterwarnings("ignore", module="umap|sklearn", category=UserWarning)
        sc.tl.umap(cells, init_pos=start, random_state=seed)
    return np.asarray(cells.obsm["X_umap"])


def _descent(n_neighbors: int, seed: int) -> Any:
    """Return an approximate search for scanpy 1.11, which cannot read the csr_array of pynndescent 0.7."""
    from pynndescent import PyNNDescentTransformer

    class Descent(PyNNDescentTransformer):
        def fit_transform(self, X, y=None, **settings):
            return sparse.csr_matrix(super().fit_transform(X, y, **settings))

    return Descent(n_neighbors=n_neighbors, random_state=seed)


def _bisect(edges, weights: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    low, high, step = 0.0, np.inf, 1.0
    best: Clustering | None = None
    for _ in range(_STEPS):
        clusters = _clustering(_leiden(edges, weights, step, seed), step, n_clusters)
        if best is None or abs(clusters.n_clusters - n_clusters) < abs(best.n_clusters - n_clusters):
            best = clusters
        if best.exact or step > _LARGEST_RESOLUTION:
            break
        low, high = (step, high) if clusters.n_clusters < n_clusters else (low, step)
        step = 2 * low if high == np.inf else (low + high) / 2
    assert best is not None  # _STEPS > 0
    return best


def _leiden(edges, weights: np.ndarray, resolution: float, seed: int) -> np.ndarray:
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        partition = edges.community_leiden(
            objective_function="modularity", weights=weights, resolution=resolution, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)
    return np.asarray(partition.membership)


def _clustering(membership: np.ndarray, resolution: float, n_requested: int | None) -> Clustering:
    codes, sizes = np.unique(membership, return_inverse=True, return_counts=True)[1:]
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return Clustering(rank[codes], len(sizes), resolution, n_requested)
