"""Peers without training: principal components, proteins, both side by side, logistic regression."""

import numpy as np
import pandas as pd

from scfusionttt.comparison.cells import Cells
from scfusionttt.evaluation.baselines import features, logistic_regression, pca, zscore

_BESIDE_PROTEIN = 30  # components of RNA


def rna_pca(cells: Cells, seed: int) -> np.ndarray:
    """Return 50 principal components of the z-scored genes."""
    return pca(cells.rna, seed=seed)


def adt(cells: Cells, seed: int) -> np.ndarray:
    """Return the z-scored log-ratios of the proteins; there is nothing for a seed to decide."""
    return zscore(cells.protein)


def concat(cells: Cells, seed: int) -> np.ndarray:
    """Return 30 components of RNA and the proteins side by side, each scaled to the same mean norm."""
    parts = pca(cells.rna, _BESIDE_PROTEIN, seed=seed), zscore(cells.protein)
    return np.hstack([part / np.linalg.norm(part, axis=1).mean() for part in parts])


def logistic(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Logistic regression on 50 components of RNA and the proteins.

    The components are those of all cells, which our model, too, sees without labels; types are learned from `train`.
    """
    return _logistic(cells, cells.protein, train, seed)


def logistic_rna(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Logistic regression on 50 components of RNA."""
    return _logistic(cells, None, train, seed)


def _logistic(cells: Cells, protein: np.ndarray | None, train: np.ndarray, seed: int) -> pd.DataFrame:
    x_nd = features(cells.rna, protein, seed=seed)
    return logistic_regression(x_nd[train], cells.labels[train], x_nd)[1]
