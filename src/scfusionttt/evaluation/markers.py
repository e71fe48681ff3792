"""Marker genes and proteins of groups of cells."""

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
    """Return the top features of each group against all other cells, ranked by the score of scanpy's t-test.

    Parameters
    ----------
    values
        Log-normalised values [n, f]. Features that were measured in no cell, then cells with missing values, are left
        out.
    names
        Names of the features [f]; duplicates are allowed.
    groups
        Group of each cell [n]. A group with fewer than two cells, or without another to compare with, has no features.
    most
        Maximum number of features per group; all have higher values inside the group than outside.

    Returns
    -------
    dict
        Names of the top features by group, the best first.
    """
    group = pd.Series(np.asarray(groups).astype(str))
    features = np.arange(values.shape[1])
    if not sparse.issparse(values):
        features = np.flatnonzero(~np.isnan(values).all(axis=0))
        complete = ~np.isnan(values[:, features]).any(axis=1)
        values, group = values[complete][:, features], group[complete].reset_index(drop=True)
    top: dict[str, list[str]] = {name: [] for name in pd.unique(np.asarray(groups).astype(str))}
    sizes = group.value_counts()
    compared = sorted(sizes.index[sizes > 1])
    if len(sizes) < 2 or not compared or not len(features):
        return top
    import scanpy as sc

    cells = AnnData(values, obs=pd.DataFrame({"group": pd.Categorical(group)}, index=group.index.astype(str)))
    with threads_kept(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant features, and scanpy's use of pandas
        sc.tl.rank_genes_groups(cells, "group", groups=compared, method="t-test", n_genes=min(most, len(features)))
    ranked = cells.uns["rank_genes_groups"]
    for name in compared:
        places, scores = ranked["names"][name].astype(int), ranked["scores"][name]
        top[name] = [str(names[features[place]]) for place, score in zip(places, scores) if score > 0]
    return top
