"""Baselines: principal components and logistic regression."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError
from scfusionttt.evaluation.evaluate import Evaluation, evaluate_predictions
from scfusionttt.labels import class_names


def zscore(matrix: ArrayLike | sparse.spmatrix, *, fit_on: ArrayLike | None = None) -> np.ndarray:
    """Return ``(x - mean) / sd`` per feature, clipped to +-10, ``[n, g]`` dense float32.

    Parameters
    ----------
    matrix
        Log-normalised RNA or centred log-ratios of proteins, ``[n, g]``, dense or sparse.
    fit_on
        Cells (mask or indices) from which mean and standard deviation are computed; all by default.
    """
    x_ng = np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=np.float32)  # type: ignore[union-attr]
    if x_ng.ndim != 2 or not np.isfinite(x_ng).all():
        raise InputDataError(
            "a baseline needs a finite matrix of cells by features; leave out cells with missing values"
        )
    fitted = x_ng if fit_on is None else x_ng[np.asarray(fit_on)]
    mean, sd = fitted.mean(axis=0, dtype=np.float64), fitted.std(axis=0, dtype=np.float64)
    scaled = (x_ng - mean.astype(np.float32)) / np.where(sd > 0, sd, 1).astype(np.float32)
    return np.clip(scaled, -10, 10, out=scaled)


def pca(
    log_normalized: ArrayLike | sparse.spmatrix, n: int = 50, *, fit_on: ArrayLike | None = None, seed: int = 0
) -> np.ndarray:
    """Return `n` principal components of z-scored RNA, ``[n_cells, n]`` float32.

    Parameters
    ----------
    log_normalized
        Counts normalised to 1e4 per cell, then log1p, ``[n_cells, g]``.
    n
        Number of components; fewer if the matrix is too small.
    fit_on
        Cells (mask or indices) on which z-scores and components are fitted, such as the training cells; all by default.
    """
    from sklearn.decomposition import PCA

    x_ng = zscore(log_normalized, fit_on=fit_on)
    fitted = x_ng if fit_on is None else x_ng[np.asarray(fit_on)]
    model = PCA(min(n, min(fitted.shape) - 1), svd_solver="arpack", random_state=seed).fit(fitted)
    return model.transform(x_ng).astype(np.float32)


def features(
    log_normalized: ArrayLike | sparse.spmatrix,
    clr_protein: ArrayLike | None = None,
    *,
    fit_on: ArrayLike | None = None,
    n: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Return RNA components ``[n_cells, n]`` and, if given, z-scored proteins times 3, concatenated."""
    rna = pca(log_normalized, n, fit_on=fit_on, seed=seed)
    if clr_protein is None:
        return rna
    return np.hstack([rna, 3 * zscore(clr_protein, fit_on=fit_on)])


def logistic_regression(
    train: ArrayLike, labels: ArrayLike, test: ArrayLike, **settings: Any
) -> tuple[np.ndarray, pd.DataFrame]:
    """Fit L2-regularised logistic regression (C = 0.1) on labelled cells and predict other cells.

    Parameters
    ----------
    train, test
        Features of the training and test cells, ``[n_train, d]`` and ``[n_test, d]``, for example rows of `features`.
    labels
        Classes of the training cells, ``[n_train]``.
    **settings
        Passed to `sklearn.linear_model.LogisticRegression`.

    Returns
    -------
    predicted, probabilities
        Classes ``[n_test]``, and a DataFrame ``[n_test, n_classes]`` whose columns are the classes.

    Raises
    ------
    LabelError
        The training cells have fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    labels = class_names(labels).astype(str)
    if len(np.unique(labels)) < 2:
        raise LabelError("logistic regression needs training cells of at least two classes")
    model = LogisticRegression(**{"C": 0.1, "max_iter": 1000, **settings}).fit(np.asarray(train), labels)
    probabilities = pd.DataFrame(model.predict_proba(np.asarray(test)), columns=model.classes_)
    return model.classes_[probabilities.to_numpy().argmax(axis=1)], probabilities


def score_logistic_regression(
    log_normalized: ArrayLike | sparse.spmatrix,
    clr_protein: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
) -> Evaluation:
    """Score logistic regression on held-out cells, from 50 components of RNA and, if measured in every cell, proteins.

    The components are fitted on all cells, which pretraining also sees without labels.

    Parameters
    ----------
    log_normalized, clr_protein
        Values of genes ``[n, g]`` and proteins ``[n, p]``; NaN where a protein was not measured.
    labels
        Class of each cell, ``[n]``.
    train, held_out
        Indices of the training and of the held-out cells.
    """
    protein = clr_protein if clr_protein.shape[1] and not np.isnan(clr_protein).any() else None
    x = features(log_normalized, protein)
    predicted, _ = logistic_regression(x[train], labels[train], x[held_out])
    return evaluate_predictions(predicted, labels[held_out], protocol="held-out")
