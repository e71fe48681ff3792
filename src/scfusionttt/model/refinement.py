"""Predicted classes refined by the query itself: similar cells vote on one another's class."""

import numpy as np
import pandas as pd
import torch

from scfusionttt.data.loader import CellDataset, make_loader

#: Cells that vote on a cell, and the principal components in which they are nearest.
N_NEIGHBORS, N_COMPONENTS = 15, 20
#: Fewest cells per voter; in smaller queries each cell keeps its own prediction.
CELLS_PER_VOTER = 5
#: Weight of the votes relative to the cell's own prediction.
WEIGHT = 0.8
#: Added to p-values before their geometric mean; the null distribution has 1001 quantiles.
LEAST_P_VALUE = 1e-3
#: Most cells to fit the components to.
MOST_CELLS = 5000


def refine(
    probability: np.ndarray, p_value: np.ndarray, cells: CellDataset, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities [n, c] and p-values [n] of cells after a vote of their nearest neighbours.

    The classifier knows how reference cells differ, the query how its own cells do: a cell that lost the transcripts of
    its markers lies among others that kept them. Votes are divided by the square root of the class's frequency in the
    query, so that frequent classes do not outvote rare neighbours. The p-value becomes the geometric mean of those of
    the neighbours: a type that the reference lacks is unlike it in many cells, a known one in few.

    Parameters
    ----------
    probability, p_value
        By the classifier, [n, c] and [n].
    cells
        The same cells, each gene scaled by its mean and standard deviation in them.
    seed
        Seed of the principal components, in which cells are neighbours.
    """
    n_neighbors = min(N_NEIGHBORS, len(cells) // CELLS_PER_VOTER)
    if n_neighbors < 2:
        return probability, p_value
    from sklearn.neighbors import NearestNeighbors

    components = _components(cells, seed)
    nearest = NearestNeighbors(n_neighbors=n_neighbors).fit(components).kneighbors(return_distance=False)
    votes = probability / np.sqrt(probability.mean(axis=0)).clip(min=1e-6)
    votes = np.mean([votes[column] for column in nearest.T], axis=0)
    votes /= votes.sum(axis=1, keepdims=True)
    together = np.exp(np.mean([np.log(p_value[column] + LEAST_P_VALUE) for column in nearest.T], axis=0))
    return (1 - WEIGHT) * probability + WEIGHT * votes, (together - LEAST_P_VALUE).astype(p_value.dtype)


def _components(cells: CellDataset, seed: int) -> np.ndarray:
    """Return principal components [n, k] of the scaled genes."""
    from sklearn.decomposition import PCA

    rows = np.sort(np.random.default_rng(seed).permutation(cells.rows)[:MOST_CELLS])
    sample = torch.cat([batch.rna for batch in make_loader(cells.subset(rows), batch_size=1000)]).numpy()
    if not sample.var(axis=0).any():
        return np.zeros((len(cells), 1))
    # Randomised solvers depend on the order of the cells, and so would the classes of some cells.
    n_components = min(N_COMPONENTS, *sample.shape)
    solver = "arpack" if n_components < min(sample.shape) else "full"
    pca = PCA(n_components, svd_solver=solver, random_state=seed).fit(sample)
    parts, order = zip(
        *((pca.transform(batch.rna.numpy()), batch.row.numpy()) for batch in make_loader(cells, batch_size=1000)),
        strict=True,
    )
    # Cells of a store are read in the order on disk.
    return np.concatenate(parts)[pd.Index(np.concatenate(order)).get_indexer(pd.Index(cells.rows))]
