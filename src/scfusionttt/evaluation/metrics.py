"""The ten metrics of the paper: agreement of clusters with labels, and separation of both in a representation."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics as sk
from sklearn.metrics.cluster import contingency_matrix

from scfusionttt.errors import InputDataError
from scfusionttt.evaluation.vocabulary import TEN_METRICS

#: Above this number of cells, silhouettes are computed on a random sample of this size, as the exact cost is n^2.
SILHOUETTE_SAMPLE = 20_000


class PairCounts(NamedTuple):
    """Numbers of the n(n-1)/2 pairs of cells, as exact Python integers.

    ``tp``: in the same label and the same cluster; ``fp``: same cluster only; ``fn``: same label only; ``tn``: neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int


def pair_counts(labels: ArrayLike, clusters: ArrayLike) -> PairCounts:
    """Count pairs of cells by whether they share a label and a cluster (Hubert & Arabie 1985).

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
    """Return JI = TP / (TP + FP + FN), 0..1; 1 if no pair shares a label or a cluster."""
    joined = pairs.tp + pairs.fp + pairs.fn
    return pairs.tp / joined if joined else 1.0


def f_measure(pairs: PairCounts) -> float:
    """Return F = 2 TP / (2 TP + FP + FN), the F1 over pairs, 0..1; equals 2 JI / (1 + JI)."""
    joined = 2 * pairs.tp + pairs.fp + pairs.fn
    return 2 * pairs.tp / joined if joined else 1.0


def fowlkes_mallows(pairs: PairCounts) -> float:
    """Return FMI = TP / sqrt((TP + FP)(TP + FN)), 0..1 (Fowlkes & Mallows 1983)."""
    if pairs.tp:
        return float((pairs.tp / (pairs.tp + pairs.fp)) ** 0.5 * (pairs.tp / (pairs.tp + pairs.fn)) ** 0.5)
    return 0.0 if pairs.fp or pairs.fn else 1.0


def silhouette(representation: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> float:
    """Return the mean silhouette width, -1..1, with Euclidean distances (Rousseeuw 1987).

    NaN unless there are between 2 and n - 1 groups. Above `SILHOUETTE_SAMPLE` cells, it is computed on a sample of that
    size, drawn with `seed`.
    """
    x_nd, codes = _checked(representation, groups)
    if len(x_nd) > SILHOUETTE_SAMPLE:
        sample = np.random.default_rng(seed).choice(len(x_nd), SILHOUETTE_SAMPLE, replace=False)
        x_nd, codes = x_nd[sample], _codes(codes[sample])
    return float(sk.silhouette_score(x_nd, codes)) if _has_geometry(codes) else np.nan


def agreement(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Return the six metrics that compare two partitions: ARI, NMI, FMI, AMI, JI and F."""
    truth, predicted = _codes(labels), _codes(clusters)
    if len(truth) != len(predicted):
        raise InputDataError(f"{len(truth)} labels but {len(predicted)} clusters; give one of each per cell")
    if len(truth) == 0:
        raise InputDataError("there are no labelled cells to score")
    pairs = pair_counts(truth, predicted)
    return {
        "ARI": float(sk.adjusted_rand_score(truth, predicted)),
        "NMI": float(sk.normalized_mutual_info_score(truth, predicted)),
        "FMI": fowlkes_mallows(pairs),
        "AMI": float(sk.adjusted_mutual_info_score(truth, predicted)),
        "JI": jaccard_index(pairs),
        "F": f_measure(pairs),
    }


def geometry(labels: ArrayLike, clusters: ArrayLike, representation: ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Return the four metrics that need a representation: ASW of the labels; SC, CHI and DBI of the clusters."""
    x_nd, codes = _checked(representation, clusters)
    defined = _has_geometry(codes)
    return {
        "ASW": (silhouette(x_nd, labels, seed=seed) + 1) / 2,
        "SC": silhouette(x_nd, codes, seed=seed),
        "CHI": float(sk.calinski_harabasz_score(x_nd, codes)) if defined else np.nan,
        "DBI": float(sk.davies_bouldin_score(x_nd, codes)) if defined else np.nan,
    }


def ten_metrics(
    labels: ArrayLike, clusters: ArrayLike, representation: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Score clusters against labels with the ten metrics of scFusionTTT (arXiv 2410.13257).

    ===  ============================================================  =====================  ==============
    ARI  adjusted Rand index                                           clusters vs labels     -0.5..1
    NMI  mutual information over the mean of both entropies            clusters vs labels     0..1
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
        Two groupings of the same cells, ``[n]`` each; all cells are scored.
    representation
        ``[n, d]``. Without one, the four geometric metrics are NaN. They are also NaN if undefined, with a single group
        or as many groups as cells.
    seed
        Seed of the sample for silhouettes of more than `SILHOUETTE_SAMPLE` cells.

    Returns
    -------
    dict
        Value by name, in the order of `TEN_METRICS`.

    Raises
    ------
    InputDataError
        The lengths differ, there are no cells, or the representation contains NaN or infinite values.
    """
    scores = agreement(labels, clusters)
    if representation is not None:
        scores |= geometry(labels, clusters, representation, seed=seed)
    return {name: scores.get(name, np.nan) for name in TEN_METRICS}


def _codes(groups: ArrayLike) -> np.ndarray:
    """Encode the distinct values of `groups` as integers from 0, so that scikit-learn accepts any type."""
    return pd.factorize(np.asarray(groups), use_na_sentinel=False)[0]


def _pairs(sizes: ArrayLike) -> int:
    """Return the sum of m(m - 1)/2 over group sizes; int64 suffices up to 4e9 cells."""
    sizes = np.asarray(sizes, dtype=np.int64)
    return int((sizes * (sizes - 1) // 2).sum())


def _has_geometry(codes: np.ndarray) -> bool:
    return 2 <= len(np.unique(codes)) < len(codes)


def _checked(representation: ArrayLike, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x_nd, codes = np.asarray(representation), _codes(groups)
    if x_nd.ndim != 2 or len(x_nd) != len(codes):
        raise InputDataError(f"a representation of shape {x_nd.shape} does not match {len(codes)} cells; give [n, d]")
    bad = ~np.isfinite(x_nd).all(axis=1)
    if bad.any():
        raise InputDataError(
            f"the representation of {bad.sum()} of {len(x_nd)} cells (the first in row {bad.argmax()}) contains NaN or "
            "infinite values; leave these cells out or compute it again"
        )
    return x_nd, codes
