"""How strongly antibodies stain each batch, estimated by comparing cells of the same kind.

The log-ratios of a protein in two batches differ by a shift, which the correction of batch effects removes, only while
the batches stain alike. Between studies counts differ up to 40 times, which has to be taken out of the counts.
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from scfusionttt.data.kinds import kinds, principal_axes, within_batches

#: Principal components of the RNA by which kinds of cells are distinguished.
N_COMPONENTS = 30
#: Cells per kind, and most kinds.
CELLS_PER_KIND, MOST_KINDS = 30, 50
#: Cells of overlapping kinds that a batch needs for half of its difference to be believed.
PENALTY = 10.0
#: Typical error of a difference; smaller ones are left to the correction of batch effects, which removes them as well.
ERROR = 0.4


def staining(
    genes: np.ndarray, log_counts: np.ndarray, batch: np.ndarray, sizes: np.ndarray, *, seed: int
) -> np.ndarray:  # fmt: skip
    """Return by how much more, in natural logarithms, each batch stains than the largest, [b, p]; NaN where unknown.

    The logarithms are the sum of a value per kind and one per batch, fitted by ridge regression. A type of one batch
    alone, or another composition, is so not taken for other staining.

    Parameters
    ----------
    genes
        Scaled genes, [n, g].
    log_counts
        ``log1p`` of the counts of the proteins, NaN where not measured, [n, p].
    batch, sizes
        Level of each cell in each batch key [n, keys], and the cells of each level of the first [b], of which those
        given here may be a sample.
    seed
        Starts the decomposition and Harmony.
    """
    axes = principal_axes(within_batches(genes, batch), N_COMPONENTS, seed)
    n_kinds = int(np.clip(round(len(genes) / CELLS_PER_KIND), 2, MOST_KINDS))
    degrees = kinds(genes @ axes, batch, n_kinds, seed=seed)
    measured = np.isfinite(log_counts)
    rows = [batch[:, 0] == level for level in range(len(sizes))]
    n = np.stack([degrees[own].T @ measured[own] for own in rows])
    total = np.stack([degrees[own].T @ np.nan_to_num(log_counts)[own] for own in rows])
    # As many cells are drawn of each large batch, so that those given here do not tell which is the largest.
    n_measured = [size * measured[own].sum(axis=0) / max(own.sum(), 1) for size, own in zip(sizes, rows)]
    return _batch_values(n, total, np.argmax(n_measured, axis=0))


def _batch_values(n: np.ndarray, total: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return the values of the batches [b, p], given cells and sums of logarithms by batch and kind, [b, k, p] each.

    `largest` are the batches [p] that the others are compared with.
    """
    of_kind = np.maximum(n.sum(axis=0), 1e-12)
    gram = -np.einsum("bkp,ckp->pbc", n / of_kind, n)
    n_cells = n.sum(axis=1)
    diagonal = np.arange(len(n))
    gram[:, diagonal, diagonal] += n_cells.T + PENALTY
    excess = (total - n * (total.sum(axis=0) / of_kind)).sum(axis=1)
    values = np.linalg.solve(gram, excess.T[:, :, None])[:, :, 0].T
    values -= values[largest, np.arange(values.shape[1])]
    for one in np.unique(largest):  # a batch may differ much from one, and little from the largest of other proteins
        columns = largest == one
        common = _common(values[:, columns], n_cells[:, columns])
        values[:, columns] = shrunk(np.where(n_cells[:, columns] > 0, common - common[one], 0.0), ERROR)
    return np.where(n_cells > 0, values, np.nan)


def _common(values: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Return values [b, p], those of batches that differ from each other by no more than the error as their mean.

    So batches of one study are left as they are next to a larger one of another.
    """
    from sklearn.metrics.pairwise import nan_euclidean_distances

    distance = nan_euclidean_distances(np.where(n_cells > 0, values, np.nan)) / np.sqrt(values.shape[1])
    distance = np.nan_to_num(distance, nan=np.finfo(float).max)[np.triu_indices(len(values), 1)]  # nothing in common
    groups = fcluster(linkage(distance, "complete"), ERROR, "distance") if len(distance) else np.ones(len(values))
    same = groups[:, None] == groups
    return same @ (n_cells * values) / np.maximum(same @ n_cells, 1e-12)


def shrunk(values: np.ndarray, error: float) -> np.ndarray:
    """Return what batches stain more than others [b, p], shrunk to 0 as James and Stein do, given the error of a value.

    Of batches that differ by no more than the error nothing is left, and of those that differ much nearly all.
    """
    square = (values**2).sum(axis=1, keepdims=True) / np.maximum((values != 0).sum(axis=1, keepdims=True), 1)
    return values * (1 - error**2 / np.maximum(square, error**2))
