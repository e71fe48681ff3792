"""Quality of a representation without clusters: labels of neighbours, and prediction of measured values."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.labels import label_names

_FOLDS = 5
_RIDGE = 1.0


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


def ridge_correlation(representation: ArrayLike, values: ArrayLike, *, seed: int = 0) -> float:
    """Return the mean Pearson correlation over features of values predicted for held-out cells by ridge regression.

    Parameters
    ----------
    representation
        ``[n, d]``; each dimension is z-scored.
    values
        Values to predict, ``[n, f]``, finite. Constant features are left out; NaN if all are constant.
    seed
        Seed of the five-fold cross-validation.
    """
    x_nd, y_nf = np.asarray(representation, dtype=np.float64), np.asarray(values, dtype=np.float64)
    x_nd = (x_nd - x_nd.mean(axis=0)) / np.maximum(x_nd.std(axis=0), 1e-12)
    y_nf = y_nf[:, y_nf.std(axis=0) > 0]
    if not y_nf.shape[1]:
        return np.nan
    fold = np.random.default_rng(seed).permutation(len(x_nd)) % _FOLDS
    predicted_nf = np.empty_like(y_nf)
    for held_out in (fold == number for number in range(_FOLDS)):
        x, y = x_nd[~held_out], y_nf[~held_out]
        weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
        predicted_nf[held_out] = x_nd[held_out] @ weights + y.mean(axis=0)
    predicted, true = (values - values.mean(axis=0) for values in (predicted_nf, y_nf))
    spread = np.sqrt((predicted**2).sum(axis=0) * (true**2).sum(axis=0))
    return float(np.mean((predicted * true).sum(axis=0) / np.maximum(spread, 1e-12)))
