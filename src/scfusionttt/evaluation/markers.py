"""Marker genes and proteins of groups of cells."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.masks import measured_together
from scfusionttt.threads import threads_kept


def top_features(
    values: sparse.csr_matrix | np.ndarray,
    names: Sequence[str],
    groups: ArrayLike,
    *,
    panels: tuple[np.ndarray, np.ndarray] | None = None,
    most: int = 5,
) -> dict[str, list[str]]:
    """Return the top features of each group against all other cells, ranked by the score of scanpy's t-test.

    Parameters
    ----------
    values
        Log-normalised values [n, f]; NaN = not measured. Each feature is compared in the cells in which it was.
    names
        Names of the features [f]; duplicates are allowed.
    groups
        Group of each cell [n]. A group with fewer than two cells, or without another to compare with, has no features.
    panels
        Panel of each cell [n], and which features were measured in each panel, bool [k, f]; in place of NaN.
    most
        Maximum number of features per group; all have higher values inside the group than outside.

    Returns
    -------
    dict
        Names of the top features by group, the best first.
    """
    group = np.asarray(groups).astype(str)
    best: dict[str, list[tuple[float, str]]] = {name: [] for name in pd.unique(group)}
    if panels is None:
        one_panel = np.zeros(len(group), dtype=int), np.ones((1, len(names)), dtype=bool)
        panels = one_panel if sparse.issparse(values) else (np.arange(len(group)), ~np.isnan(values))
    panel, measured = panels
    for own, features in measured_together(measured):
        cells = own[panel]
        for name, scores in _scores(values[cells][:, features], group[cells], most).items():
            best[name] += [(score, str(names[features[place]])) for place, score in scores if score > 0]
    ranked = {name: sorted(found, key=lambda pair: -pair[0]) for name, found in best.items()}
    return {name: [feature for _, feature in found[:most]] for name, found in ranked.items()}


def _scores(values: sparse.csr_matrix | np.ndarray, group: np.ndarray, most: int) -> dict[str, list[tuple[int, float]]]:
    """Return the features of the highest scores in each group that can be compared, with these, the best first."""
    sizes = pd.Series(group).value_counts()
    compared = sorted(sizes.index[sizes > 1])
    if len(sizes) < 2 or not compared or not values.shape[1]:
        return {}
    import scanpy as sc

    cells = AnnData(values, obs=pd.DataFrame({"group": pd.Categorical(group)}, index=np.arange(len(group)).astype(str)))
    with threads_kept(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant features, and scanpy's use of pandas
        sc.tl.rank_genes_groups(cells, "group", groups=compared, method="t-test", n_genes=min(most, values.shape[1]))
    ranked = cells.uns["rank_genes_groups"]
    return {name: list(zip(ranked["names"][name].astype(int), ranked["scores"][name])) for name in compared}
