"""The ten metrics of the paper: how well clusters agree with labels, and how well both lie in a representation."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics as sk
from sklearn.metrics.cluster import contingency_matrix

from scfusionttt.errors import InputDataError
from scfusionttt.evaluation.vocabulary import TEN_METRICS

#: Above this many cells the silhouettes are means over a seeded sample of this size: exact ones cost n^2.
SILHOUETTE_SAMPLE = 20_000


class PairCounts(NamedTuple):
    """How the n(n-1)/2 pairs of cells fall; exact Python integers.

    ``tp``: together in labels and in clusters; ``fp``: in clusters only; ``fn``: in labels only; ``tn``: in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int


def pair_counts(labels: ArrayLike, clusters: ArrayLike) -> PairCounts:
    """Count pairs of cells by whether labels and clusters put them together (Hubert & Arabie 1985).

    Parameters
    ----------
    labels, clusters
        Two partitions of the same cells, ``[n]`` each, of any hashable values.
    """
    table = contingency_matrix(_codes(labels), _codes(clusters), sparse=True, dtype=np.int64)
    tp = _pairs(table.data)
    in_labels = _pairs(np.asarray(table.sum(axis=1)))
    in_clusters = _pairs(np.asarray(table.sum(axis=0)))
    return PairCounts(tp, in_clusters - tp, in_labels - tp, _pairs(table.sum()) - in_clusters - in_labels + tp)


def jaccard_index(pairs: PairCounts) -> float:
    """JI = TP / (TP + FP + FN), 0..1; 1 where neither partition joins any cells."""
    joined = pairs.tp + pairs.fp + pairs.fn
    return pairs.tp / joined if joined else 1.0


def f_measure(pairs: PairCounts) -> float:
    """F = 2 TP / (2 TP + FP + FN), the F1 of joining pairs, 0..1; equals 2 JI / (1 + JI)."""
    joined = 2 * pairs.tp + pairs.fp + pairs.fn
    return 2 * pairs.tp / joined if joined else 1.0


def fowlkes_mallows(pairs: PairCounts) -> float:
    """FMI = TP / sqrt((TP + FP)(TP + FN)), 0..1 (Fowlkes & Mallows 1983)."""
    if pairs.tp:
        return float((pairs.tp / (pairs.tp + pairs.fp)) ** 0.5 * (pairs.tp / (pairs.tp + pairs.fn)) ** 0.5)
    return 0.0 if pairs.fp or pairs.fn else 1.0


def silhouette(representation: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> float:
    """Mean silhouette width, -1..1, Euclidean (Rousseeuw 1987).

    NaN unless there are between 2 and n - 1 groups. Above `SILHOUETTE_SAMPLE` cells: the mean over a sample of that
    size drawn with `seed`.
    """
    x_nd, codes = _checked(representation, groups)
    if len(x_nd) > SILHOUETTE_SAMPLE:
        sample = np.random.default_rng(seed).choice(len(x_nd), SILHOUETTE_SAMPLE, replace=False)
        x_nd, codes = x_nd[sample], _codes(codes[sample])
    return float(sk.silhouette_score(x_nd, codes)) if _has_geometry(codes) else np.nan


def agreement(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Return the six metrics that compare two partitions: ARI, NMI, FMI, AMI, JI and F."""
    truth, found = _codes(labels), _codes(clusters)
    if len(truth) != len(found):
        raise InputDataError(f"{len(truth)} labels but {len(found)} clusters: give one of each for every cell")
    if len(truth) == 0:
        raise InputDataError("no cells to score: none carries a label")
    pairs = pair_counts(truth, found)
    return {
        "ARI": float(sk.adjusted_rand_score(truth, found)),
        "NMI": float(sk.normalized_mutual_info_score(truth, found)),
        "FMI": fowlkes_mallows(pairs),
        "AMI": float(sk.adjusted_mutual_info_score(truth, found)),
        "JI": jaccard_index(pairs),
        "F": f_measure(pairs),
    }


def geometry(labels: ArrayLike, clusters: ArrayLike, representation: ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Return the four metrics measured in a representation: ASW of the labels; SC, CHI and DBI of the clusters."""
    x_nd, found = _checked(representation, clusters)
    defined = _has_geometry(found)
    return {
        "ASW": (silhouette(x_nd, labels, seed=seed) + 1) / 2,
        "SC": silhouette(x_nd, found, seed=seed),
        "CHI": float(sk.calinski_harabasz_score(x_nd, found)) if defined else np.nan,
        "DBI": float(sk.davies_bouldin_score(x_nd, found)) if defined else np.nan,
    }


def ten_metrics(
    labels: ArrayLike, clusters: ArrayLike, representation: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Score clusters against labels with the ten metrics of scFusionTTT (arXiv 2410.13257).

    ===  ============================================================  =====================  ==============
    ARI  adjusted Rand index                                           clusters vs labels     -0.5..1
    NMI  mutual information over the mean of the two entropies         clusters vs labels     0..1
    FMI  Fowlkes-Mallows index, of pairs                               clusters vs labels     0..1
    ASW  average silhouette width, rescaled as (s + 1) / 2             labels in the space    0..1
    AMI  mutual information adjusted for chance (mean of entropies)    clusters vs labels     about 0..1
    JI   Jaccard index, of pairs                                       clusters vs labels     0..1
    SC   silhouette coefficient                                        clusters in the space  -1..1
    CHI  Calinski-Harabasz index                                       clusters in the space  0.., no unit
    F    F-measure, of pairs                                           clusters vs labels     0..1
    DBI  Davies-Bouldin index; lower is better                         clusters in the space  0.., no unit
    ===  ============================================================  =====================  ==============

    Parameters
    ----------
    labels, clusters
        Known and found groups of the same cells, ``[n]``; every cell given is scored.
    representation
        ``[n, d]``; without one (a method that yields only a graph) the four geometric metrics are NaN. They are NaN
        too where they are not defined: a single group, or as many groups as cells.
    seed
        Of the sample on which silhouettes of more than `SILHOUETTE_SAMPLE` cells are measured.

    Returns
    -------
    dict
        In the order of `TEN_METRICS`.

    Raises
    ------
    InputDataError
        The lengths differ, there are no cells, or the representation holds NaN or infinite values.
    """
    scores = agreement(labels, clusters)
    if representation is not None:
        scores |= geometry(labels, clusters, representation, seed=seed)
    return {name: scores.get(name, np.nan) for name in TEN_METRICS}


def _codes(groups: ArrayLike) -> np.ndarray:
    """Number the distinct values of `groups` from 0, so that scikit-learn sees integers whatever came in."""
    return pd.factorize(np.asarray(groups), use_na_sentinel=False)[0]


def _pairs(sizes: ArrayLike) -> int:
    """Sum of m(m - 1)/2 over group sizes; int64 holds it up to 4e9 cells."""
    sizes = np.asarray(sizes, dtype=np.int64)
    return int((sizes * (sizes - 1) // 2).sum())


def _has_geometry(codes: np.ndarray) -> bool:
    return 2 <= len(np.unique(codes)) < len(codes)


def _checked(representation: ArrayLike, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x_nd, codes = np.asarray(representation), _codes(groups)
    if x_nd.ndim != 2 or len(x_nd) != len(codes):
        raise InputDataError(f"a representation of shape {x_nd.shape} does not fit {len(codes)} cells: give [n, d]")
    bad = ~np.isfinite(x_nd).all(axis=1)
    if bad.any():
        raise InputDataError(
            f"the representation of {bad.sum()} of {len(x_nd)} cells (the first in row {bad.argmax()}) holds NaN or "
            "infinite values: leave those cells out or compute it again"
        )
    return x_nd, codes
