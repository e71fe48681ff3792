"""How well a representation mixes batches and keeps cell types: the metrics of scIB (Luecken et al. 2022)."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError, missing_extra
from scfusionttt.labels import class_names, label_names

log = logging.getLogger("scfusionttt")

#: What counts as conservation of biology and as removal of batches, and the weights of the two.
BIOLOGY = ("NMI", "ARI", "label_asw", "isolated", "cLISI")
BATCH = ("batch_asw", "iLISI", "kBET", "connectivity", "PCR")
WEIGHTS = {"biology": 0.6, "batch": 0.4}
_NEIGHBORS, _OWN = 90, 15


def integration_scores(
    representation: ArrayLike,
    labels: ArrayLike | pd.Series,
    batches: ArrayLike | pd.Series,
    *,
    before: ArrayLike | None = None,
) -> dict[str, float]:
    """Score mixing of batches and conservation of labels, each 0 to 1, computed by scib-metrics.

    Another score, `own_batch` of the 15 nearest neighbours of each cell, is no part of the totals.

    Parameters
    ----------
    representation
        ``[n, d]``.
    labels, batches
        Label and batch of each cell, ``[n]``; cells without a label or a batch are left out.
    before
        Representation before integration ``[n, e]``, such as principal components, for PCR; without it there is none.

    Raises
    ------
    SettingError
        scib-metrics is not installed.
    LabelError, InputDataError
        There are fewer than two labels or batches, or no label has cells of two batches.
    """
    names, groups = label_names(labels), class_names(batches)
    known = (names != "") & (groups != "")
    if without := np.count_nonzero((names != "") & (groups == "")):
        log.warning("warning: mixing is scored without %d labelled cells, which have no batch", without)
    label, batch = (pd.factorize(values[known], sort=True)[0] for values in (names, groups))
    if batch.max(initial=0) < 1:
        raise InputDataError("the labelled cells have a single batch; mixing needs at least two")
    if label.max(initial=0) < 1:
        raise LabelError("mixing is scored within labels; at least two labels are needed")
    if len(np.unique(np.column_stack([label, batch]), axis=0)) == label.max() + 1:
        raise InputDataError("no label has cells of two batches, so that batches and labels cannot be told apart")
    x_nd = np.asarray(representation, dtype=np.float32)[known]
    before = None if before is None else np.asarray(before, dtype=np.float32)[known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: float(value) for name, value in _scores(_library(), x_nd, label, batch, before).items()}


def own_batch(neighbours: sparse.csr_matrix, batches: ArrayLike, groups: ArrayLike | None = None) -> pd.Series:
    """Return how often a cell's neighbours are from its own batch, relative to chance, by group.

    1: the batches are mixed; the number of batches, if these have as many cells: they are apart. Within a group, only
    neighbours of that group count, so that batches may have it in different numbers.

    Parameters
    ----------
    neighbours
        [n, n], with an entry for each neighbour of a cell (rows), such as ``obsp["distances"]``; a cell itself does not
        count.
    batches, groups
        Batch and group of each cell [n]; without groups, all cells are in the group ``all cells``. Cells without a
        batch do not count.

    Returns
    -------
    Series
        NaN for a group in which a single batch has cells, or no two neighbours are.
    """
    names = class_names(batches)
    known = names != ""
    group = np.full(len(names), "all cells", dtype=object) if groups is None else np.asarray(groups, dtype=object)
    batch, (codes, names) = pd.factorize(names[known])[0], pd.factorize(group[known], sort=True)
    pairs = neighbours[known][:, known].tocoo()
    others = pairs.row != pairs.col  # an approximate search stores each cell itself, too, at distance 0
    row, column = pairs.row[others], pairs.col[others]
    ratios = pd.Series(np.nan, index=pd.Index(names), dtype=float)
    for code, name in enumerate(names):
        inside = (codes[row] == code) & (codes[column] == code)
        first, second = batch[row[inside]], batch[column[inside]]
        sizes = np.bincount(batch[codes == code])
        chance = (sizes[first] - 1) / max(sizes.sum() - 1, 1)
        if np.count_nonzero(sizes) > 1 and chance.sum() > 0:
            ratios[name] = (first == second).sum() / chance.sum()
    return ratios


def with_totals(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores with ``biology``, ``batch`` and their weighted mean ``total``; what is missing is left out."""
    parts = {
        part: float(np.mean([scores[name] for name in members if np.isfinite(scores.get(name, np.nan))]))
        for part, members in (("biology", BIOLOGY), ("batch", BATCH))
    }
    return {**scores, **parts, "total": sum(WEIGHTS[part] * value for part, value in parts.items())}


def _library() -> Any:
    try:
        import scib_metrics
    except ImportError as error:
        raise missing_extra("bench", "scores of batches need scib-metrics") from error
    scib_metrics.settings.verbosity = logging.ERROR  # it reports every label that kBET skips
    return scib_metrics


def _scores(
    library: Any, x_nd: np.ndarray, label: np.ndarray, batch: np.ndarray, before: np.ndarray | None
) -> dict[str, Any]:
    from sklearn.neighbors import NearestNeighbors

    n = min(_NEIGHBORS, len(x_nd))
    index = NearestNeighbors(n_neighbors=n).fit(x_nd)
    distances, indices = index.kneighbors(x_nd)
    near = library.nearest_neighbors.NeighborsResults(indices=indices, distances=distances)
    scores = {
        "own_batch": own_batch(index.kneighbors_graph(n_neighbors=min(_OWN, n - 1)), batch).item(),
        "iLISI": library.ilisi_knn(near, batch),
        "kBET": library.kbet_per_label(near, batch, label),
        "connectivity": library.graph_connectivity(near.subset_neighbors(n=min(15, n)), label),
        "batch_asw": library.silhouette_batch(x_nd, label, batch),
        "cLISI": library.clisi_knn(near, label),
        "label_asw": library.silhouette_label(x_nd, label),
        "isolated": library.isolated_labels(x_nd, label, batch),
    }
    if before is not None:
        scores["PCR"] = library.pcr_comparison(before, x_nd, batch, categorical=True)
    return scores
