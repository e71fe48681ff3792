"""What a user would take instead: principal components and logistic regression, computed here and now."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError
from scfusionttt.evaluation.evaluate import Evaluation, evaluate_predictions
from scfusionttt.labels import class_names


def zscore(matrix: ArrayLike | sparse.spmatrix, *, fit_on: ArrayLike | None = None, clip: float = 10.0) -> np.ndarray:
    """Return ``(x - mean) / sd`` per feature, clipped to +-`clip`, ``[n, g]`` dense float32.

    Parameters
    ----------
    matrix
        Log-normalised RNA or centred log-ratios of proteins, ``[n, g]``, dense or sparse.
    fit_on
        Cells (mask or indices) that give mean and standard deviation; all of them by default.
    """
    x_ng = np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=np.float32)  # type: ignore[union-attr]
    if x_ng.ndim != 2 or not np.isfinite(x_ng).all():
        raise InputDataError("a peer needs a finite matrix of cells by features: leave cells with missing values out")
    fitted = x_ng if fit_on is None else x_ng[np.asarray(fit_on)]
    mean, sd = fitted.mean(axis=0, dtype=np.float64), fitted.std(axis=0, dtype=np.float64)
    scaled = (x_ng - mean.astype(np.float32)) / np.where(sd > 0, sd, 1).astype(np.float32)
    return np.clip(scaled, -clip, clip, out=scaled)


def pca(
    log_normalised: ArrayLike | sparse.spmatrix, n: int = 50, *, fit_on: ArrayLike | None = None, seed: int = 0
) -> np.ndarray:
    """Return `n` principal components of z-scored RNA, ``[n_cells, n]`` float32.

    Parameters
    ----------
    log_normalised
        Counts normalised to 1e4 per cell, then log1p, ``[n_cells, g]``.
    n
        Number of components; fewer where the matrix allows no more.
    fit_on
        Cells (mask or indices) that z-scores and axes are fitted on: the training cells of a held-out comparison.
    """
    from sklearn.decomposition import PCA

    x_ng = zscore(log_normalised, fit_on=fit_on)
    fitted = x_ng if fit_on is None else x_ng[np.asarray(fit_on)]
    model = PCA(min(n, min(fitted.shape) - 1), svd_solver="arpack", random_state=seed).fit(fitted)
    return model.transform(x_ng).astype(np.float32)


def features(
    log_normalised: ArrayLike | sparse.spmatrix,
    clr_protein: ArrayLike | None = None,
    *,
    fit_on: ArrayLike | None = None,
    n: int = 50,
    protein_weight: float = 3.0,
    seed: int = 0,
) -> np.ndarray:
    """Return RNA components, followed by z-scored centred log-ratio proteins times `protein_weight` where given."""
    rna = pca(log_normalised, n, fit_on=fit_on, seed=seed)
    if clr_protein is None:
        return rna
    return np.hstack([rna, protein_weight * zscore(clr_protein, fit_on=fit_on)])


def logistic_regression(
    train: ArrayLike, labels: ArrayLike, test: ArrayLike, **settings: Any
) -> tuple[np.ndarray, pd.DataFrame]:
    """Learn labels from features by L2-regularised logistic regression (C = 0.1) and predict other cells.

    Parameters
    ----------
    train, test
        Features of training and test cells, ``[n_train, d]`` and ``[n_test, d]``, such as rows of `features`.
    labels
        Class of the training cells, ``[n_train]``.
    **settings
        Replace those of `sklearn.linear_model.LogisticRegression`.

    Returns
    -------
    predicted, probabilities
        Classes ``[n_test]``, and a DataFrame ``[n_test, n_classes]`` whose columns are the classes.
    """
    from sklearn.linear_model import LogisticRegression

    labels = class_names(labels).astype(str)
    if len(np.unique(labels)) < 2:
        raise LabelError("logistic regression needs training cells of two classes")
    model = LogisticRegression(**{"C": 0.1, "max_iter": 1000, **settings}).fit(np.asarray(train), labels)
    probabilities = pd.DataFrame(model.predict_proba(np.asarray(test)), columns=model.classes_)
    return model.classes_[probabilities.to_numpy().argmax(axis=1)], probabilities


def score_logistic_regression(
    log_normalised: ArrayLike | sparse.spmatrix,
    clr_protein: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
) -> Evaluation:
    """Score logistic regression on held-out cells: 50 components of RNA, and proteins where every cell has them.

    The components are those of all cells, which pretraining, too, sees without labels.

    Parameters
    ----------
    log_normalised, clr_protein
        ``[n, g]`` and ``[n, p]``; NaN where a protein was not measured.
    labels
        Class of each cell, ``[n]``.
    train, held_out
        Rows.
    """
    protein = clr_protein if clr_protein.shape[1] and not np.isnan(clr_protein).any() else None
    x = features(log_normalised, protein)
    predicted, _ = logistic_regression(x[train], labels[train], x[held_out])
    return evaluate_predictions(predicted, labels[held_out], protocol="held-out")
