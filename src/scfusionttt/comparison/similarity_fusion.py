"""Similarity network fusion (Wang et al. 2014) with the distances and settings of CiteFuse (Kim et al. 2020)."""

import numpy as np
from scipy import sparse

from scfusionttt.comparison.cells import Cells
from scfusionttt.errors import InputDataError

#: Settings of CiteFuse: neighbours and width of the affinity, neighbours and iterations of the fusion.
AFFINITY_NEIGHBORS, SIGMA, NEIGHBORS, ITERATIONS = 30, 0.45, 20, 10
#: Most cells: the method keeps several matrices of all pairs.
MOST_CELLS = 20_000
_EPS = 1e-8


def snf(cells: Cells, seed: int) -> sparse.csr_matrix:
    """Return the fused similarities of each cell with its 20 most similar ones, [n, n]; the seed has no effect.

    The distance between cells is ``1 - correlation`` of their variable genes, and ``1 - rho`` of their proteins.
    CiteFuse clusters all similarities spectrally; here the clusters are those of every other method.

    Raises
    ------
    InputDataError
        There are too many cells to compare all pairs.
    """
    if len(cells.codes) > MOST_CELLS:
        raise InputDataError(f"snf compares all pairs of cells and takes at most {MOST_CELLS} (got {len(cells.codes)})")
    distances = 1 - np.corrcoef(cells.rna.toarray()), 1 - proportionality(cells.protein_counts)
    fused = fuse([affinity(distance) for distance in distances])
    np.fill_diagonal(fused, 0)
    kept = sparse.csr_matrix(_strongest(fused, NEIGHBORS))
    return kept.maximum(kept.T).tocsr()


def proportionality(counts: np.ndarray) -> np.ndarray:
    """Return rho of each pair of cells, ``2 cov / (var + var)`` of their log counts about each protein's mean, [n, n].

    Counts [n, p]; zeros are set to 1 (Quinn et al. 2017).
    """
    logs = np.log(np.maximum(counts, 1))
    covariance = np.cov(logs - logs.mean(axis=0))
    variance = np.diag(covariance)
    return 2 * covariance / np.maximum(variance[:, None] + variance, _EPS)


def affinity(distance: np.ndarray) -> np.ndarray:
    """Return Gaussian similarities [n, n] whose width follows the mean distance to the nearest cells."""
    distance = (distance + distance.T) / 2
    near = np.sort(distance, axis=1)[:, 1 : AFFINITY_NEIGHBORS + 1].mean(axis=1)
    width = SIGMA * ((near[:, None] + near + distance) / 3 + _EPS)
    similarity = np.exp(-0.5 * (distance / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    return (similarity + similarity.T) / 2


def fuse(affinities: list[np.ndarray]) -> np.ndarray:
    """Return the network [n, n] that the affinities of several modalities agree on, by mutual diffusion."""
    networks = [_normalized(one) for one in affinities]
    local = [_by_row(_strongest(one, NEIGHBORS)) for one in networks]
    for _ in range(ITERATIONS):
        total = np.sum(networks, axis=0)
        others = [(total - one) / (len(networks) - 1) for one in networks]
        networks = [_normalized(near @ other @ near.T) for near, other in zip(local, others, strict=True)]
    return _normalized(np.mean(networks, axis=0))


def _by_row(matrix: np.ndarray) -> np.ndarray:
    return matrix / matrix.sum(axis=1, keepdims=True)


def _normalized(matrix: np.ndarray) -> np.ndarray:
    """Return a symmetric copy in which a cell keeps half of the weight for itself."""
    scaled = matrix.copy()
    np.fill_diagonal(scaled, 0)
    scaled = _by_row(scaled) / 2
    np.fill_diagonal(scaled, 0.5)
    return (scaled + scaled.T) / 2


def _strongest(matrix: np.ndarray, k: int) -> np.ndarray:
    """Return a copy with all but the k largest values of each row set to 0."""
    n = len(matrix)
    smaller = np.argpartition(matrix, n - min(k, n), axis=1)[:, : n - min(k, n)]
    kept = matrix.copy()
    np.put_along_axis(kept, smaller, 0.0, axis=1)
    return kept
