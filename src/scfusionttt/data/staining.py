"""How strongly antibodies stain each batch, estimated by comparing cells of the same kind.

If two batches stain similarly, their log-ratios differ by a constant, which the correction of batch effects removes.
Between studies, counts differ up to 40-fold: this has to be divided out of the counts themselves.
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from scfusionttt.data.kinds import kinds, principal_axes, within_batches

#: Principal components of the RNA by which kinds of cells are distinguished.
N_COMPONENTS = 30
#: Cells per kind, and most kinds.
CELLS_PER_KIND, MOST_KINDS = 30, 50
#: Ridge penalty, in cells: a batch with as many cells of kinds that it shares keeps half of its difference.
PENALTY = 10.0
#: Typical error of a difference; smaller ones are left to the correction of batch effects.
ERROR = 0.4


def staining(
    genes: np.ndarray, log_counts: np.ndarray, batch: np.ndarray, sizes: np.ndarray, *, seed: int
) -> np.ndarray:  # fmt: skip
    """Return by how much more, in natural logarithms, each batch stains than the largest, [b, p]; NaN where unknown.

    The logarithm of a count is modelled as a value of the kind of cell plus one of the batch, by ridge regression, so
    that a type of a single batch, or another composition, is not mistaken for a difference in staining.

    Parameters
    ----------
    genes
        Scaled genes, [n, g].
    log_counts
        ``log1p`` of the counts of the proteins, NaN where not measured, [n, p].
    batch, sizes
        Level of each cell in each batch key [n, keys], and the number of all cells of each level of the first key [b],
        of which these may be a sample.
    seed
        Seed of the decomposition and of Harmony.
    """
    axes = principal_axes(within_batches(genes, batch), N_COMPONENTS, seed)
    n_kinds = int(np.clip(round(len(genes) / CELLS_PER_KIND), 2, MOST_KINDS))
    degrees = kinds(genes @ axes, batch, n_kinds, seed=seed)
    measured = np.isfinite(log_counts)
    rows = [batch[:, 0] == level for level in range(len(sizes))]
    n = np.stack([degrees[own].T @ measured[own] for own in rows])
    total = np.stack([degrees[own].T @ np.nan_to_num(log_counts)[own] for own in rows])
    # Large batches are sampled down to the same number of cells, so that the sample does not show which is the largest.
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
    for one in np.unique(largest):  # with different panels, the largest batch differs between proteins
        columns = largest == one
        common = _common(values[:, columns], n_cells[:, columns])
        values[:, columns] = shrunk(np.where(n_cells[:, columns] > 0, common - common[one], 0.0), ERROR)
    return np.where(n_cells > 0, values, np.nan)


def _common(values: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Return values [b, p] in which batches that differ by no more than the error have their mean.

    The batches of one study are then corrected by the same amount next to a larger batch of another.
    """
    from sklearn.metrics.pairwise import nan_euclidean_distances

    distance = nan_euclidean_distances(np.where(n_cells > 0, values, np.nan)) / np.sqrt(values.shape[1])
    distance = np.nan_to_num(distance, nan=np.finfo(float).max)[np.triu_indices(len(values), 1)]  # nothing in common
    groups = fcluster(linkage(distance, "complete"), ERROR, "distance") if len(distance) else np.ones(len(values))
    same = groups[:, None] == groups
    return same @ (n_cells * values) / np.maximum(same @ n_cells, 1e-12)


def shrunk(values: np.ndarray, error: float) -> np.ndarray:
    """Return differences in staining [b, p], shrunk to 0 as James and Stein do, given the error of a value.

    Differences of no more than the error become 0, and large ones hardly change.
    """
    square = (values**2).sum(axis=1, keepdims=True) / np.maximum((values != 0).sum(axis=1, keepdims=True), 1)
    return values * (1 - error**2 / np.maximum(square, error**2))
