"""The ten metrics of the paper: agreement of clusters with labels, and separation of both in a representation."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from scfusionttt.errors import InputDataError
from scfusionttt.evaluation.vocabulary import TEN_METRICS

#: Above this number of cells, silhouettes are computed on a random sample of this size, as the exact cost is n^2.
SILHOUETTE_SAMPLE = 20_000


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
    """Return the six metrics that compare two partitions: ARI, NMI, FMI, AMI, JI and F.

    FMI, JI and F compare the pairs of cells in the same cluster with those of the same label; they are 1 if there are
    no such pairs.
    """
    truth, predicted = _codes(labels), _codes(clusters)
    if len(truth) != len(predicted):
        raise InputDataError(f"{len(truth)} labels but {len(predicted)} clusters; give one of each per cell")
    if len(truth) == 0:
        raise InputDataError("there are no labelled cells to score")
    (_, fp), (fn, tp) = sk.pair_confusion_matrix(truth, predicted).tolist()
    any_pair = tp + fp + fn > 0
    return {
        "ARI": float(sk.adjusted_rand_score(truth, predicted)),
        "NMI": float(sk.normalized_mutual_info_score(truth, predicted)),
        "FMI": float(sk.fowlkes_mallows_score(truth, predicted)) if any_pair else 1.0,
        "AMI": float(sk.adjusted_mutual_info_score(truth, predicted)),
        "JI": tp / (tp + fp + fn) if any_pair else 1.0,
        "F": 2 * tp / (2 * tp + fp + fn) if any_pair else 1.0,
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
