"""Quality of a representation without clusters: labels of neighbours, and prediction of measured values."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.evaluation.baselines import logistic_regression
from scfusionttt.evaluation.evaluate import evaluate_predictions
from scfusionttt.labels import label_names

_FOLDS = 5
_PENALTIES = np.logspace(-1, 5, 13)


def neighbour_agreement(graph: sparse.csr_matrix, labels: ArrayLike) -> float:
    """Return the fraction of labelled cells whose labelled neighbours vote for their label.

    Parameters
    ----------
    graph
        Symmetric weights ``[n, n]`` of the votes. A cell without labelled neighbours counts as wrong.
    labels
        Labels ``[n]``.
    """
    names = label_names(labels)
    known = np.asarray(names != "", dtype=bool)
    classes, codes = np.unique(names[known], return_inverse=True)
    votes_nc = graph[known][:, known] @ np.eye(len(classes))[codes]
    return float(((votes_nc.argmax(axis=1) == codes) & (votes_nc.max(axis=1) > 0)).mean())


def probe_f1(representation: ArrayLike, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    """Return the macro F1 of held-out cells whose labels logistic regression (C = 1) reads from a representation.

    Parameters
    ----------
    representation
        ``[n, d]``, scaled as a whole: dimensions that matter little to distances matter little here.
    labels
        Labels ``[n]``.
    train, held_out
        Positions of the cells to learn from and to score.
    """
    x_nd = _scaled(representation)
    predicted, _ = logistic_regression(x_nd[train], labels[train], x_nd[held_out], C=1.0)
    return evaluate_predictions(predicted, labels[held_out]).mean["macro_f1"]


def neighbour_correlation(graph: sparse.csr_matrix, values: ArrayLike) -> float:
    """Return the mean Pearson correlation over features of values [n, f] with their weighted mean over neighbours.

    Parameters
    ----------
    graph
        Weights ``[n, n]``, without a cell's own.
    values
        Values that the graph was not computed from.
    """
    totals = np.asarray(graph.sum(axis=1)).ravel()
    means = sparse.diags_array(1 / np.maximum(totals, 1e-12)) @ graph @ np.asarray(values)
    return mean_correlation(means, values)


def r_squared(predicted: ArrayLike, values: ArrayLike) -> float:
    """Return the fraction of the variance of all features together that predictions explain, R squared.

    Parameters
    ----------
    predicted, values
        ``[n, f]``; values that are NaN are left out. The variance is about the mean of each feature.

    Returns
    -------
    1 for perfect predictions, 0 for the mean of each feature, below 0 for worse; NaN if no value varies.
    """
    y_nf = np.asarray(values, dtype=np.float64)
    known = np.isfinite(y_nf)
    total = np.sum(_centred(y_nf, known) ** 2)
    error = np.sum(np.where(known, np.asarray(predicted) - y_nf, 0.0) ** 2)
    return float(1 - error / total) if _varies(y_nf, known).any() else np.nan


def mean_correlation(predicted: ArrayLike, values: ArrayLike) -> float:
    """Return the mean Pearson correlation over features ``[n, f]``, each where it is not NaN.

    Features of constant values are left out; NaN if all are.
    """
    x_nf, y_nf = np.asarray(predicted, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = np.isfinite(y_nf)
    varies = _varies(y_nf, known)
    if not varies.any():
        return np.nan
    x_nf, y_nf = (_centred(both, known)[:, varies] for both in (x_nf, y_nf))
    spread = np.sqrt((x_nf**2).sum(axis=0) * (y_nf**2).sum(axis=0))
    return float(np.mean((x_nf * y_nf).sum(axis=0) / np.maximum(spread, 1e-12)))


def ridge_correlation(representation: ArrayLike, values: ArrayLike, *, seed: int = 0) -> float:
    """Return the mean Pearson correlation over features of values predicted for held-out cells by ridge regression.

    All features have the same penalty, chosen by leave-one-out error on the cells that the regression learns from: a
    fixed one would favour representations of few dimensions where cells are few.

    Parameters
    ----------
    representation
        ``[n, d]``, scaled as a whole, as in :func:`probe_f1`.
    values
        Values to predict, ``[n, f]``, finite. Constant features are left out; NaN if all are constant.
    seed
        Seed of the five-fold cross-validation.
    """
    from sklearn.linear_model import RidgeCV

    x_nd, y_nf = _scaled(representation), np.asarray(values, dtype=np.float64)
    y_nf = y_nf[:, _varies(y_nf, np.isfinite(y_nf))]
    if not y_nf.shape[1]:
        return np.nan
    fold = np.random.default_rng(seed).permutation(len(x_nd)) % _FOLDS
    predicted_nf = np.empty_like(y_nf)
    for held_out in (fold == number for number in range(_FOLDS)):
        x, y = x_nd[~held_out], y_nf[~held_out]
        # Without the mean, which is the lower, the higher the values held out.
        predicted = RidgeCV(_PENALTIES).fit(x, y).predict(x_nd[held_out]).reshape(-1, y.shape[1]) - y.mean(axis=0)
        predicted_nf[held_out] = predicted
    return mean_correlation(predicted_nf, y_nf)


def _scaled(representation: ArrayLike) -> np.ndarray:
    """Return a representation [n, d] with dimensions of mean 0 and, on average, of variance 1."""
    x_nd = np.asarray(representation, dtype=np.float64)
    return (x_nd - x_nd.mean(axis=0)) / np.sqrt(max(x_nd.var(axis=0).mean(), 1e-12))


def _varies(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which features [f] have different known values; rounding can give equal ones a deviation above 0."""
    low, high = values.min(axis=0, where=known, initial=np.inf), values.max(axis=0, where=known, initial=-np.inf)
    return low < high


def _centred(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return values [n, f] minus the mean of the known ones of each feature; 0 where not known."""
    filled = np.where(known, values, 0.0)
    return (filled - filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1)) * known
