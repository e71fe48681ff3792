"""Kinds of cells: soft clusters across batches, found without labels."""

import numpy as np
import pandas as pd


def within_batches(genes: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Return genes [n, g] minus the mean of the cell's batch, so that no principal axis separates batches."""
    if not batch.shape[1]:
        return genes
    within = genes.copy()
    for rows in pd.DataFrame(batch).groupby(list(range(batch.shape[1]))).indices.values():
        within[rows] -= genes[rows].mean(axis=0)
    return within


def principal_axes(genes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return at most `n` principal axes [g, k] of values [n, g]; a single cell has none."""
    from sklearn.decomposition import PCA

    if len(genes) < 2:
        return np.zeros((genes.shape[1], 0), dtype=genes.dtype)
    return PCA(min(n, *genes.shape), svd_solver="randomized", random_state=seed).fit(genes).components_.T


def kinds(z: np.ndarray, batch: np.ndarray, n_kinds: int, *, seed: int, sigma: float = 0.1) -> np.ndarray:
    """Return the soft assignment [n, k] of cells with vectors z [n, l] and batches [n, keys] to kinds.

    Harmony (Korsunsky et al. 2019) finds the kinds or, without batches, k-means. `sigma` is the width of the
    assignment to kinds; Harmony's default.
    """
    table = pd.DataFrame(batch).rename(columns=str)
    keys = [key for key in table if table[key].nunique() > 1]
    if not keys:  # no batches, or the others have proteins alone
        from sklearn.cluster import KMeans
        from sklearn.preprocessing import normalize

        return np.eye(n_kinds)[KMeans(n_kinds, random_state=seed, n_init=1).fit_predict(normalize(z))]
    from harmonypy import run_harmony

    return run_harmony(z, table, keys, nclust=n_kinds, sigma=sigma, random_state=seed, verbose=False).R


def evenly_drawn(batch: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return the positions of at most `most` cells with batches [n, keys]; large batches lose cells first."""
    if len(batch) <= most:
        return np.arange(len(batch))
    drawn = pd.DataFrame(batch).sample(frac=1, random_state=np.random.default_rng(seed))
    groups = drawn.groupby(list(drawn.columns), observed=True)
    return np.sort(groups.head(max(most // groups.ngroups, 1)).index[:most])
