"""What is scored on which cells, so that figures of different protocols never share a column.

``unsupervised``: no label was seen. ``held-out``: labels of a split learned, scored on the others. ``paper``: as in the
paper's predecessor (fine-tuned, all cells scored, geometry in the UMAP), only to compare with published numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.classification import class_table, classification_scores, expected_calibration_error
from scfusionttt.evaluation.clustering import cluster_graph, neighbours, umap
from scfusionttt.evaluation.metrics import agreement, ten_metrics
from scfusionttt.evaluation.vocabulary import PROTOCOLS
from scfusionttt.labels import class_names, label_names

Protocol = Literal["unsupervised", "held-out", "zero-shot", "paper"]
Space = Literal["rep", "umap"]


@dataclass(frozen=True)
class Evaluation:
    """Scores together with what they were measured on.

    Attributes
    ----------
    protocol
        "unsupervised", "held-out" or "paper".
    scores
        One row per clustering seed (one row in all where nothing was clustered), one column per metric.
    n_cells, n_unlabelled
        Cells scored, and cells left out of the score because they carry no label.
    n_classes
        Distinct labels among the cells scored.
    n_clusters
        Clusters found with each seed, unlabelled cells included; empty for predictions.
    space
        Where ASW, SC, CHI and DBI were measured: "rep", "umap", or None without a representation.
    per_class
        Precision, recall, f1 and support of each class, for predictions.
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
        """Standard deviation (ddof 0) of each metric over clustering seeds."""
        return {str(name): float(value) for name, value in self.scores.std(ddof=0).items()}

    def summary(self) -> pd.DataFrame:
        """Return mean and spread of the metrics as a table: one row, or two where several seeds were clustered."""
        rows = {"mean": self.mean, "std": self.std} if len(self.scores) > 1 else {"value": self.mean}
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a metric that is not defined is None."""
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

    Leiden on 15 nearest neighbours, its resolution bisected until the number of clusters is that of the classes.
    Cells without a label are clustered with the rest and left out of the score.

    Parameters
    ----------
    representation
        ``[n, d]``, cells in the order of `labels`.
    labels
        Known class of every cell, ``[n]``; see `scfusionttt.labels` for which count as unlabelled.
    space
        Where ASW, SC, CHI and DBI are measured: "rep", the representation itself, or "umap", its two-dimensional map
        (drawn once, with the first seed), which is the published way. Clusters come from the representation in both.
    n_clusters
        Instead of the number of classes.

    Raises
    ------
    LabelError
        The labels do not fit the cells, or fewer than two classes are labelled.
    """
    if space not in get_args(Space):
        raise SettingError(f"space {space!r} does not exist: use one of {', '.join(get_args(Space))}")
    if not seeds:
        raise SettingError("no clustering seed was given: give at least one")
    cells = neighbours(representation, n_neighbors=n_neighbors)
    geometry = umap(cells, seed=seeds[0]) if space == "umap" else np.asarray(representation)
    return _score_graph(cells.obsp["connectivities"], labels, geometry, space, seeds, n_clusters, protocol)


def evaluate_graph(
    graph: sparse.spmatrix,
    labels: ArrayLike | pd.Series,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n_clusters: int | None = None,
    protocol: Protocol = "unsupervised",
) -> Evaluation:
    """Do the same for methods that give a weighted neighbour graph ``[n, n]`` in place of a representation.

    The geometric metrics are NaN: there is no space to measure them in.
    """
    return _score_graph(graph, labels, None, None, seeds, n_clusters, protocol)


def _score_graph(
    graph: sparse.spmatrix, labels: ArrayLike | pd.Series, geometry: np.ndarray | None, space: Space | None,
    seeds: Sequence[int], n_clusters: int | None, protocol: Protocol,
) -> Evaluation:  # fmt: skip
    known, truth = _known(labels, graph.shape[0])
    n_classes = _count_classes(truth)
    x_nd = None if geometry is None else geometry[known]
    found = [cluster_graph(graph, n_clusters or n_classes, seed=seed) for seed in seeds]
    rows = [ten_metrics(truth, one.labels[known], x_nd, seed=seed) for one, seed in zip(found, seeds)]
    return Evaluation(
        protocol=protocol,
        scores=pd.DataFrame(rows, index=pd.Index(seeds, name="seed")),
        n_cells=len(truth),
        n_unlabelled=graph.shape[0] - len(truth),
        n_classes=n_classes,
        n_clusters=tuple(one.n_clusters for one in found),
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
    """Score clusters that were found elsewhere with the ten metrics.

    Without a representation the geometric metrics are NaN; `space` only names what the representation is.

    Raises
    ------
    LabelError
        The labels do not fit the cells, or fewer than two classes are labelled.
    InputDataError
        The representation has other cells.
    """
    clusters = class_names(clusters)
    known, truth = _known(labels, len(clusters))
    n_classes = _count_classes(truth)
    geometry = None if representation is None else np.asarray(representation)
    if geometry is not None and len(geometry) != len(clusters):
        raise InputDataError(f"{len(geometry)} rows of a representation but {len(clusters)} clusters: cells must match")
    row = ten_metrics(truth, clusters[known], None if geometry is None else geometry[known])
    return Evaluation(
        protocol=protocol,
        scores=pd.DataFrame([row]),
        n_cells=len(truth),
        n_unlabelled=len(clusters) - len(truth),
        n_classes=n_classes,
        n_clusters=(len(np.unique(clusters)),),
        space=None if geometry is None else space,
    )


def evaluate_predictions(
    predicted: ArrayLike | pd.Series,
    labels: ArrayLike | pd.Series,
    confidence: ArrayLike | None = None,
    *,
    protocol: Protocol = "held-out",
) -> Evaluation:
    """Score predicted classes: accuracy, balanced accuracy, macro and weighted F1, ARI and NMI, a per-class table.

    Parameters
    ----------
    predicted, labels
        Predicted and known class, ``[n]``, of the cells to score; give held-out cells only.
    confidence
        Probability of the predicted class, ``[n]``; adds the expected calibration error ``ece``.
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


def _known(labels: ArrayLike | pd.Series, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are labelled, ``[n]`` bool, and the class names of those."""
    if np.shape(labels) != (n_cells,):
        raise LabelError(f"labels of shape {np.shape(labels)} for {n_cells} cells: give one label for every cell")
    names = label_names(labels)
    known = np.asarray(names != "", dtype=bool)
    if not known.any():
        raise LabelError(f"no labelled cell among {n_cells}: there is nothing to score against")
    return known, names[known].astype(str)


def _count_classes(truth: np.ndarray) -> int:
    """Return the number of classes; of one alone any clusters can be right."""
    n_classes = len(np.unique(truth))
    if n_classes < 2:
        raise LabelError(f"the labelled cells are of a single class ({truth[0]}); scores of clusters need two")
    return n_classes


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
