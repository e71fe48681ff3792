"""Evaluations: scores of representations, graphs, clusters and predictions, with the protocol they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.classification import class_table, classification_scores, expected_calibration_error
from scfusionttt.evaluation.clustering import cluster_graph, neighbours, umap
from scfusionttt.evaluation.integration import with_totals
from scfusionttt.evaluation.metrics import agreement, ten_metrics
from scfusionttt.evaluation.vocabulary import PROTOCOLS, Protocol
from scfusionttt.labels import class_names, label_names

Space = Literal["rep", "umap"]


@dataclass(frozen=True)
class Evaluation:
    """Scores, with their protocol and the cells they were measured on.

    Attributes
    ----------
    protocol
        A key of :data:`~scfusionttt.evaluation.PROTOCOLS`.
    scores
        One row per clustering seed (a single row if nothing was clustered), one column per metric.
    n_cells, n_unlabelled
        Number of cells scored, and of cells left out because they have no label (or no cluster, if clusters are given).
    n_classes
        Number of distinct labels among the cells scored.
    n_clusters
        Number of clusters for each seed, including those of unlabelled cells; empty for predictions.
    space
        Space of ASW, SC, CHI and DBI: "rep", "umap", or None without a representation.
    per_class
        Precision, recall, f1 (0..1) and support (cells) of each class; for predictions only.
    """

    protocol: Protocol
    scores: pd.DataFrame
    n_cells: int
    n_unlabelled: int
    n_classes: int
    n_clusters: tuple[int, ...] = ()
    space: Space | None = None
    per_class: pd.DataFrame | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise SettingError(f"protocol {self.protocol!r} does not exist; choose one of: {', '.join(PROTOCOLS)}")

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each metric over clustering seeds."""
        return {str(name): float(value) for name, value in self.scores.mean().items()}

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation (ddof 0) of each metric over clustering seeds; NaN for one seed."""
        spread = self.scores.std(ddof=0 if len(self.scores) > 1 else 1)
        return {str(name): float(value) for name, value in spread.items()}

    def summary(self) -> pd.DataFrame:
        """Return a table with the mean and, if there are several seeds, the standard deviation of each metric."""
        rows = {"mean": self.mean, "std": self.std} if len(self.scores) > 1 else {"value": self.mean}
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; undefined metrics are None."""
        result: dict[str, Any] = {
            "protocol": self.protocol,
            "space": self.space,
            "n_cells": self.n_cells,
            "n_unlabelled": self.n_unlabelled,
            "n_classes": self.n_classes,
            "n_clusters": list(self.n_clusters),
            "seeds": [int(seed) for seed in self.scores.index] if self.n_clusters else [],
            "metrics": _without_nan(self.mean),
            "std": _without_nan(self.std),
        }
        if self.per_class is not None:
            result["per_class"] = self.per_class.astype({"support": int}).to_dict(orient="index")
        return result

    def with_integration(self, scores: Mapping[str, float]) -> "Evaluation":
        """Return a copy with the scores of :func:`~scfusionttt.evaluation.integration_scores` and their totals."""
        rows = [
            with_totals({**dict(zip(map(str, self.scores.columns), row)), **scores})
            for row in self.scores.to_numpy().tolist()
        ]
        return replace(self, scores=pd.DataFrame(rows, index=self.scores.index))


def evaluate_representation(
    representation: ArrayLike,
    labels: ArrayLike | pd.Series,
    *,
    space: Space = "rep",
    seeds: Sequence[int] = (0, 1, 2),
    n_clusters: int | None = None,
    n_neighbors: int = 15,
    protocol: Protocol = "unsupervised",
) -> Evaluation:
    """Cluster a representation once per seed and score the clusters with the ten metrics.

    Clusters are Leiden clusters of the nearest-neighbour graph; the resolution is bisected until there are as many
    clusters as classes. Cells without a label are clustered with the others but not scored.

    Parameters
    ----------
    representation
        ``[n, d]``, cells in the order of `labels`.
    labels
        Class of each cell, ``[n]``; see `scfusionttt.labels` for the values that mean "not labelled".
    space
        Space of ASW, SC, CHI and DBI: "rep", the representation itself, or "umap", its UMAP (computed once, with the
        first seed), as in the paper. Clusters are those of the representation in either case.
    seeds
        Seeds of the clustering.
    n_clusters
        Number of clusters; the number of classes by default.
    n_neighbors
        Neighbours of a cell in the graph, including itself.
    protocol
        How the scores are obtained, a key of `scfusionttt.evaluation.vocabulary.PROTOCOLS`; shown with them.

    Raises
    ------
    InputDataError
        The representation is not a finite matrix with at least three rows.
    LabelError
        The labels do not match the cells, or have fewer than two classes.
    SettingError
        There is no such space or protocol, no seed, or `n_clusters` or `n_neighbors` is out of range.
    """
    if space not in get_args(Space):
        raise SettingError(f"space {space!r} does not exist; choose one of: {', '.join(get_args(Space))}")
    _require_seeds(seeds)
    cells = neighbours(representation, n_neighbors=n_neighbors)
    geometry = umap(cells, seed=seeds[0]) if space == "umap" else np.asarray(representation)
    return _score_graph(cells.obsp["connectivities"], labels, geometry, space, seeds, n_clusters, protocol)


def evaluate_as_published(
    representation: ArrayLike, labels: ArrayLike | pd.Series, *, seeds: Sequence[int] = (0, 1, 2)
) -> Evaluation:
    """Score a representation as the scripts of scMMAE do, the predecessor of scFusionTTT: protocol ``paper``.

    Clusters are Leiden clusters of resolution 1 on the unweighted graph of 20 neighbours of all cells, whatever their
    number; ASW, SC, CHI and DBI are computed on the UMAP.

    Parameters
    ----------
    representation, labels, seeds
        As for `evaluate_representation`, as are the errors.
    """
    _require_seeds(seeds)
    cells = neighbours(representation, n_neighbors=20)
    graph = cells.obsp["connectivities"].astype(bool).astype(np.float64)
    geometry = umap(cells, seed=seeds[0])
    return _score_graph(graph, labels, geometry, "umap", seeds, None, "paper", resolution=1.0)


def evaluate_graph(
    graph: sparse.spmatrix,
    labels: ArrayLike | pd.Series,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n_clusters: int | None = None,
    protocol: Protocol = "unsupervised",
    resolution: float | None = None,
) -> Evaluation:
    """Cluster and score a weighted neighbour graph ``[n, n]``, as `evaluate_representation` does a representation.

    The geometric metrics are NaN.

    Parameters
    ----------
    graph
        Symmetric weights between cells, ``[n, n]``, such as ``obsp["connectivities"]``.
    labels, seeds, n_clusters, protocol
        As for `evaluate_representation`, as are the errors.
    resolution
        Resolution of Leiden, with which the number of clusters is left open; None: it is bisected.
    """
    _require_seeds(seeds)
    return _score_graph(graph, labels, None, None, seeds, n_clusters, protocol, resolution=resolution)


def _score_graph(
    graph: sparse.spmatrix, labels: ArrayLike | pd.Series, geometry: np.ndarray | None, space: Space | None,
    seeds: Sequence[int], n_clusters: int | None, protocol: Protocol, *, resolution: float | None = None,
) -> Evaluation:  # fmt: skip
    known, truth = _known(labels, graph.shape[0])
    n_classes = _count_classes(truth)
    x_nd = None if geometry is None else geometry[known]
    number = n_classes if n_clusters is None else n_clusters
    how: dict[str, Any] = {"n_clusters": number} if resolution is None else {"resolution": resolution}
    clusters = [cluster_graph(graph, **how, seed=seed) for seed in seeds]
    rows = [ten_metrics(truth, one.labels[known], x_nd, seed=seed) for one, seed in zip(clusters, seeds)]
    return Evaluation(
        protocol=protocol,
        scores=pd.DataFrame(rows, index=pd.Index(seeds, name="seed")),
        n_cells=len(truth),
        n_unlabelled=graph.shape[0] - len(truth),
        n_classes=n_classes,
        n_clusters=tuple(one.n_clusters for one in clusters),
        space=space,
    )


def evaluate_clusters(
    clusters: ArrayLike | pd.Series,
    labels: ArrayLike | pd.Series,
    representation: ArrayLike | None = None,
    *,
    space: Space = "rep",
    protocol: Protocol = "unsupervised",
) -> Evaluation:
    """Score given clusters with the ten metrics.

    Parameters
    ----------
    clusters, labels
        Cluster and class of each cell, ``[n]``; cells without either are left out.
    representation
        ``[n, d]``, for the geometric metrics; NaN without one.
    space
        What `representation` is.
    protocol
        How the scores are obtained, a key of `scfusionttt.evaluation.vocabulary.PROTOCOLS`; shown with them.

    Raises
    ------
    LabelError
        The labels do not match the cells, or have fewer than two classes.
    InputDataError
        The representation has another number of cells.
    SettingError
        There is no such protocol.
    """
    clusters = class_names(clusters)
    known, truth = _known(labels, len(clusters), clustered=clusters != "")
    n_classes = _count_classes(truth)
    geometry = None if representation is None else np.asarray(representation)
    if geometry is not None and len(geometry) != len(clusters):
        raise InputDataError(
            f"{len(geometry)} rows of a representation but {len(clusters)} clusters; give one of each per cell"
        )
    row = ten_metrics(truth, clusters[known], None if geometry is None else geometry[known])
    return Evaluation(
        protocol=protocol,
        scores=pd.DataFrame([row]),
        n_cells=len(truth),
        n_unlabelled=len(clusters) - len(truth),
        n_classes=n_classes,
        n_clusters=(len(set(clusters) - {""}),),
        space=None if geometry is None else space,
    )


def evaluate_predictions(
    predicted: ArrayLike | pd.Series,
    labels: ArrayLike | pd.Series,
    confidence: ArrayLike | None = None,
    *,
    protocol: Protocol = "held-out",
) -> Evaluation:
    """Score predicted classes with accuracy, balanced accuracy, macro and weighted F1, ARI and NMI, and class by class.

    Parameters
    ----------
    predicted, labels
        Predicted and known class of the cells to score, ``[n]``; for the protocol "held-out", held-out cells only.
    confidence
        Probability of the predicted class, ``[n]``, 0..1; adds the expected calibration error ``ece``.
    protocol
        How the scores are obtained, a key of `scfusionttt.evaluation.vocabulary.PROTOCOLS`; shown with them.

    Raises
    ------
    InputDataError
        `confidence` has another number of cells, or values that are no probabilities.
    LabelError
        The labels do not match the cells, or no cell has one.
    SettingError
        There is no such protocol.
    """
    predicted = class_names(predicted)
    known, truth = _known(labels, len(predicted))
    row = classification_scores(truth, predicted[known])
    row |= {name: value for name, value in agreement(truth, predicted[known]).items() if name in ("ARI", "NMI")}
    if confidence is not None:
        row["ece"] = expected_calibration_error(truth, predicted[known], np.asarray(confidence)[known])
    return Evaluation(
        protocol=protocol,
        scores=pd.DataFrame([row]),
        n_cells=len(truth),
        n_unlabelled=len(predicted) - len(truth),
        n_classes=len(np.unique(truth)),
        per_class=class_table(truth, predicted[known]),
    )


def _require_seeds(seeds: Sequence[int]) -> None:
    if not len(seeds):
        raise SettingError("seeds is empty; give at least one clustering seed")


def _known(
    labels: ArrayLike | pd.Series, n_cells: int, *, clustered: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are labelled (and `clustered`), ``[n]`` bool, and the class names of those."""
    if np.shape(labels) != (n_cells,):
        raise LabelError(f"labels of shape {np.shape(labels)} for {n_cells} cells; give one label per cell")
    names = label_names(labels)
    known = np.asarray(names != "", dtype=bool)
    if not known.any():
        raise LabelError(f"none of the {n_cells} cells is labelled; there is nothing to score against")
    if clustered is not None:
        known &= clustered
        if not known.any():
            raise LabelError(f"none of the {n_cells} cells has both a label and a cluster; there is nothing to score")
    return known, names[known].astype(str)


def _count_classes(truth: np.ndarray) -> int:
    """Return the number of classes; with a single class any clustering would be perfect."""
    n_classes = len(np.unique(truth))
    if n_classes < 2:
        raise LabelError(
            f"the labelled cells have a single class ({truth[0]}); clusters are scored against at least two"
        )
    return n_classes


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
