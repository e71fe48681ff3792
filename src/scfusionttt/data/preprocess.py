"""Counts to the values a network sees: pure functions, whose constants are explicit so that a model can keep them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.data.counts import row_blocks, row_values
from scfusionttt.data.quiet import quiet
from scfusionttt.errors import SettingError
from scfusionttt.threads import threads_kept

#: A deviation below this share of the mean is rounding of a constant feature.
_CONSTANT = 1e-7
#: Of the scale ``shrunk``: 1 would be that of each feature, 0 one for all (docs/recipe.md tells what was tried).
SHRINKAGE = 0.75


def library_sizes(counts: sparse.csr_matrix) -> np.ndarray:
    """Return the sum of counts of each cell, float64 [n]."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def log_normalize(
    counts: sparse.csr_matrix, *, target_sum: float = 1e4, library_size: np.ndarray | None = None
) -> sparse.csr_matrix:
    """Return ``log1p(target_sum * x / library_size)``: natural log of 1 + counts per `target_sum`.

    Parameters
    ----------
    counts
        Raw counts, [n, g].
    target_sum
        Library size to which each cell is scaled.
    library_size
        Counts of each cell over *all* its genes, [n]; give it where `counts` holds only some of them.
        By default the row sums.

    Returns
    -------
    csr_matrix
        float32 [n, g], a copy; cells without counts stay zero.
    """
    size = library_sizes(counts) if library_size is None else np.asarray(library_size, dtype=np.float64)
    factor = np.divide(target_sum, size, out=np.zeros_like(size), where=size > 0).astype(np.float32)
    result = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    result.data *= np.repeat(factor, np.diff(result.indptr))
    np.log1p(result.data, out=result.data)
    return result


def highly_variable(
    counts: sparse.csr_matrix, *, n_top: int, batch: pd.Series | np.ndarray | None = None
) -> np.ndarray:
    """Choose genes by normalised dispersion of the log-normalised counts (scanpy's flavor "seurat").

    Parameters
    ----------
    counts
        Raw counts, [n, g].
    n_top
        How many genes; all of them if there are no more.
    batch
        Batch of each cell, [n]: genes variable in most batches come first.

    Returns
    -------
    ndarray of int
        Exactly ``min(n_top, g)`` column positions, ascending; ties go to the gene that comes first.
    """
    if n_top < 1:
        raise SettingError(f"n_top must be at least 1 (it is {n_top})")
    n_genes = counts.shape[1]
    if n_top >= n_genes:
        return np.arange(n_genes)
    import scanpy as sc

    names = pd.Index(np.arange(n_genes).astype(str))
    adata = AnnData(log_normalize(counts), var=pd.DataFrame(index=names))
    if batch is not None:
        adata.obs["batch"] = pd.Categorical(np.asarray(batch).astype(str))
    batch_key = None if batch is None else "batch"
    with quiet(), threads_kept():
        table = sc.pp.highly_variable_genes(
            adata, n_top_genes=n_top, flavor="seurat", batch_key=batch_key, inplace=False
        )
    table = table.loc[names]
    dispersion = table["dispersions_norm"].to_numpy(dtype=np.float64)
    dispersion = np.where(np.isnan(dispersion), -np.inf, dispersion)
    shared = table["highly_variable_nbatches"].to_numpy() if batch is not None else np.zeros(n_genes)
    return np.sort(np.lexsort((np.arange(n_genes), -dispersion, -shared))[:n_top])


def clr(counts: np.ndarray, *, log_geometric_mean: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Centred log-ratio of each protein across cells: ``log1p(x / exp(mean(log1p(x))))``.

    Parameters
    ----------
    counts
        Raw protein counts, [n, p]; NaN (not measured) stays NaN and does not enter the mean.
    log_geometric_mean
        ``mean(log1p(x))`` of each protein, [p], as saved with a model; by default that of `counts`.

    Returns
    -------
    values, log_geometric_mean
        float32 [n, p] (natural log, >= 0) and float64 [p] (0 for a protein measured in no cell).
    """
    counts = np.asarray(counts, dtype=np.float64)
    if log_geometric_mean is None:
        measured = np.isfinite(counts)
        total = np.where(measured, np.log1p(counts), 0.0).sum(axis=0)
        log_geometric_mean = total / np.maximum(measured.sum(axis=0), 1)
    constants = np.asarray(log_geometric_mean, dtype=np.float64)
    return np.log1p(counts / np.exp(constants)).astype(np.float32), constants


@dataclass(frozen=True, eq=False)
class Standardizer:
    """``(x - mean) / std``, clipped at +-clip, in units of the feature's standard deviation.

    Attributes
    ----------
    mean, std
        float64 [f]; `std` is the population one (ddof 0), and 1 for a constant feature. With the scale ``global``
        it is the same for all: the root of the mean variance. With ``shrunk`` it is the population one to the power
        `SHRINKAGE`, times what makes the mean variance of varying features 1: features that vary more weigh more, but
        not as much more as with one scale for all.
    clip
        Largest absolute value, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: float | None = 10.0

    @classmethod
    def fit(
        cls,
        matrix: sparse.csr_matrix | np.ndarray,
        *,
        scale: Literal["shrunk", "per_feature", "global"] = "per_feature",
        clip: float | None = 10.0,
    ) -> "Standardizer":
        """Take the moments of a matrix [n, f] without making it dense; NaN entries of a dense one are left out."""
        if scale not in ("shrunk", "per_feature", "global"):
            raise SettingError(f"scale='{scale}' is not known; choose shrunk, per_feature or global")
        mean, variance = _sparse_moments(matrix) if sparse.issparse(matrix) else _dense_moments(matrix)
        std = np.sqrt(variance)
        std[std <= _CONSTANT * np.abs(mean)] = 0.0
        if scale == "global":
            std[:] = np.sqrt(np.mean(std**2))
        elif scale == "shrunk":
            weight = np.sum(std ** (2 - 2 * SHRINKAGE)) / max(np.count_nonzero(std), 1)  # of a constant one: 0
            std = std**SHRINKAGE * np.sqrt(weight)
        return cls(mean, np.where(std > 0, std, 1.0), clip)

    @classmethod
    def identity(cls, n_features: int) -> "Standardizer":
        """Return the one that leaves values as they are."""
        return cls(np.zeros(n_features), np.ones(n_features), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "clip": self.clip}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Standardizer":
        """Build from what :meth:`to_dict` returned."""
        mean, std = (np.asarray(values[name], dtype=np.float64) for name in ("mean", "std"))
        return cls(mean, std, values["clip"])

    def transform(self, batch: np.ndarray) -> np.ndarray:
        """Standardise a dense batch [b, f]; NaN stays NaN. Returns float32."""
        values = ((batch - self.mean) / self.std).astype(np.float32)
        return values if self.clip is None else np.clip(values, -self.clip, self.clip, out=values)


def _sparse_moments(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population variance of each column, two passes over the stored values."""
    n, n_features = matrix.shape
    total, stored, squares = np.zeros(n_features), np.zeros(n_features), np.zeros(n_features)
    for rows in row_blocks(n):
        values, columns = row_values(matrix, rows)
        total += np.bincount(columns, weights=values, minlength=n_features)
        stored += np.bincount(columns, minlength=n_features)
    mean = total / max(n, 1)
    for rows in row_blocks(n):
        values, columns = row_values(matrix, rows)
        squares += np.bincount(columns, weights=(values - mean[columns]) ** 2, minlength=n_features)
    return mean, (squares + (n - stored) * mean**2) / max(n, 1)


def _dense_moments(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population variance of each column over its finite entries (0 where there is none)."""
    matrix = np.asarray(matrix, dtype=np.float64)
    measured = np.isfinite(matrix)
    n = np.maximum(measured.sum(axis=0), 1)
    mean = np.where(measured, matrix, 0.0).sum(axis=0) / n
    return mean, (np.where(measured, matrix - mean, 0.0) ** 2).sum(axis=0) / n
