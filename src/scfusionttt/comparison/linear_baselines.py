"""Baselines without training: principal components, proteins, both concatenated, logistic regression."""

import numpy as np
import pandas as pd

from scfusionttt.comparison.cells import Cells
from scfusionttt.evaluation.baselines import features, logistic_regression, pca, zscore

#: Components of RNA that are concatenated with proteins.
CONCAT_COMPONENTS = 30


def rna_pca(cells: Cells, seed: int) -> np.ndarray:
    """Return 50 principal components of the z-scored genes [n, 50]."""
    return pca(cells.rna, seed=seed)


def adt(cells: Cells, seed: int) -> np.ndarray:
    """Return the z-scored log-ratios of the proteins [n, p]; the seed has no effect."""
    return zscore(cells.protein)


def concat(cells: Cells, seed: int, *, n_components: int = CONCAT_COMPONENTS) -> np.ndarray:
    """Return components of RNA and the proteins, concatenated and scaled to the same mean norm [n, components + p]."""
    parts = pca(cells.rna, n_components, seed=seed), zscore(cells.protein)
    return np.hstack([part / np.linalg.norm(part, axis=1).mean() for part in parts])


def concat_harmony(cells: Cells, seed: int) -> np.ndarray:
    """Return the same corrected by Harmony (Korsunsky et al. 2019) with its defaults."""
    from harmonypy import run_harmony

    table = pd.DataFrame({"batch": cells.batches.astype(str)})
    return run_harmony(concat(cells, seed), table, "batch", random_state=seed, verbose=False).Z_corr


def logistic(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the class probabilities of logistic regression on 50 components of RNA and the proteins.

    The components are fitted on all cells, which our model also sees without labels; only `train` gives labels.
    """
    return _logistic(cells, cells.protein, train, seed)


def logistic_rna(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the class probabilities of logistic regression on 50 components of RNA."""
    return _logistic(cells, None, train, seed)


def _logistic(cells: Cells, protein: np.ndarray | None, train: np.ndarray, seed: int) -> pd.DataFrame:
    x_nd = features(cells.rna, protein, seed=seed)
    return logistic_regression(x_nd[train], cells.labels[train], x_nd)[1]
