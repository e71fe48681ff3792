"""Scores of predicted cell types against labels."""

from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.labels import class_names


def classification_scores(labels: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Return accuracy, balanced accuracy, macro-F1 and weighted F1, each 0..1.

    ``balanced_accuracy`` is the mean recall and ``macro_f1`` the unweighted mean F1 over the classes in `labels`;
    ``weighted_f1`` weights F1 by the number of cells of each class. A prediction outside these classes, such as
    "unknown", counts as wrong and does not add a class.

    Parameters
    ----------
    labels, predicted
        Known and predicted classes, ``[n]``.

    Raises
    ------
    InputDataError
        The two differ in length, or are empty.
    """
    truth, predictions = _aligned(labels, predicted)
    per_class = class_table(truth, predictions)
    return {
        "accuracy": float((truth == predictions).mean()),
        "balanced_accuracy": float(per_class["recall"].mean()),
        "macro_f1": float(per_class["f1"].mean()),
        "weighted_f1": float(np.average(per_class["f1"], weights=per_class["support"])),
    }


def class_table(labels: ArrayLike, predicted: ArrayLike) -> pd.DataFrame:
    """Return precision, recall, f1 (0..1) and support (number of cells) of each class in `labels`; 0 if undefined.

    Parameters and errors are those of `classification_scores`.
    """
    truth, predictions = _aligned(labels, predicted)
    classes = np.unique(truth)
    columns = sk.precision_recall_fscore_support(truth, predictions, labels=classes, zero_division=0)
    return pd.DataFrame(
        dict(zip(("precision", "recall", "f1", "support"), columns)), index=pd.Index(classes, name="class")
    )


def confusion(labels: ArrayLike, predicted: ArrayLike) -> pd.DataFrame:
    """Return the number of cells of each known class (rows) for each predicted class (columns).

    Both axes start with the classes of `labels` in the same order; other predicted classes follow as columns.
    Parameters and errors are those of `classification_scores`.
    """
    truth, predictions = _aligned(labels, predicted)
    classes = np.unique(truth)
    columns = np.concatenate([classes, np.setdiff1d(predictions, classes)])
    table = pd.crosstab(pd.Series(truth, name="known"), pd.Series(predictions, name="predicted"))
    return table.reindex(index=classes, columns=columns, fill_value=0).rename_axis(index="known", columns="predicted")


def expected_calibration_error(
    labels: ArrayLike, predicted: ArrayLike, confidence: ArrayLike, *, n_bins: int = 15
) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al. 2017).

    Bins are weighted by their numbers of cells.

    Parameters
    ----------
    labels, predicted
        Known and predicted classes, ``[n]``.
    confidence
        Probability of the predicted class, ``[n]``, 0..1.
    n_bins
        Number of bins between 0 and 1, those without cells included.

    Returns
    -------
    float
        0 (calibrated) to 1.

    Raises
    ------
    InputDataError
        The three differ in length, are empty, or `confidence` has values that are no probabilities.
    SettingError
        `n_bins` is not a whole number above 0.
    """
    bins = reliability(labels, predicted, confidence, n_bins=n_bins)
    gap = (bins["accuracy"] - bins["confidence"]).abs()
    return float((gap * bins["cells"]).sum() / bins["cells"].sum())


def reliability(labels: ArrayLike, predicted: ArrayLike, confidence: ArrayLike, *, n_bins: int = 15) -> pd.DataFrame:
    """Compare confidence with accuracy over equal-width bins of confidence.

    Parameters
    ----------
    labels, predicted, confidence, n_bins
        As for `expected_calibration_error`, as are the errors.

    Returns
    -------
    DataFrame
        One row per non-empty bin: mean confidence (0..1), accuracy (0..1), cells (count).
    """
    if not isinstance(n_bins, Integral) or n_bins < 1:
        raise SettingError(f"n_bins must be a whole number above 0 (got {n_bins!r})")
    truth, predictions = _aligned(labels, predicted)
    confidences = np.asarray(confidence, dtype=np.float64)
    if confidences.shape != truth.shape or not ((confidences >= 0) & (confidences <= 1)).all():
        raise InputDataError(f"confidence must be one probability (0..1) for each of the {len(truth)} cells")
    bins = np.minimum((confidences * n_bins).astype(int), n_bins - 1)
    cells = pd.DataFrame({"confidence": confidences, "accuracy": (truth == predictions).astype(float), "cells": 1})
    return cells.groupby(bins).agg({"confidence": "mean", "accuracy": "mean", "cells": "sum"}).rename_axis("bin")


def _aligned(labels: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as class names, so that a label 3.0 and a predicted "3" are the same class."""
    shapes = np.shape(labels), np.shape(predicted)
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise InputDataError(
            f"labels of shape {shapes[0]} do not match predictions of shape {shapes[1]}; give one of each per cell"
        )
    return class_names(labels).astype(str), class_names(predicted).astype(str)
