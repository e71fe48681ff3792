"""What sets groups of cells apart."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.threads import threads_kept


def top_features(
    values: sparse.csr_matrix | np.ndarray, names: Sequence[str], groups: ArrayLike, *, most: int = 5
) -> dict[str, list[str]]:
    """Return the features that stand out most in each group against all other cells: scanpy's t-test, by score.

    Parameters
    ----------
    values
        Log-normalised, [n, f]. Features measured in no cell, and then cells that lack one, are left out.
    names
        [f]; two features may share a name.
    groups
        Group of every cell, [n]. One with fewer than two cells, or the only one, has no features.
    most
        How many features at most; only those higher in the group than outside it.
    """
    group = pd.Series(np.asarray(groups).astype(str))
    features = np.arange(values.shape[1])
    if not sparse.issparse(values):
        features = np.flatnonzero(~np.isnan(values).all(axis=0))
        whole = ~np.isnan(values[:, features]).any(axis=1)
        values, group = values[whole][:, features], group[whole].reset_index(drop=True)
    found: dict[str, list[str]] = {name: [] for name in pd.unique(np.asarray(groups).astype(str))}
    sizes = group.value_counts()
    compared = sorted(sizes.index[sizes > 1])
    if len(sizes) < 2 or not compared or not len(features):
        return found
    import scanpy as sc

    cells = AnnData(values, obs=pd.DataFrame({"group": pd.Categorical(group)}, index=group.index.astype(str)))
    with threads_kept(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a feature that is constant, and pandas on scanpy's own tables
        sc.tl.rank_genes_groups(cells, "group", groups=compared, method="t-test", n_genes=min(most, len(features)))
    ranked = cells.uns["rank_genes_groups"]
    for name in compared:
        places, scores = ranked["names"][name].astype(int), ranked["scores"][name]
        found[name] = [str(names[features[place]]) for place, score in zip(places, scores) if score > 0]
    return found
