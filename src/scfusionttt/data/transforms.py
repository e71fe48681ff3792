"""Transformations of counts: pure functions with explicit constants, which a model can store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.config.settings import Scale
from scfusionttt.data.moments import Moments, moments
from scfusionttt.errors import SettingError

#: A standard deviation below this fraction of the mean is rounding error of a constant feature.
_CONSTANT = 1e-7
#: Exponent of the scale ``shrunk``: 1 scales each feature by its own, 0 all by the same (compared in docs/recipe.md).
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
        Counts of each cell over *all* genes, [n], needed if `counts` has only some of them; by default the row sums.

    Returns
    -------
    csr_matrix
        float32 [n, g], a copy; cells without counts remain zero.
    """
    size = library_sizes(counts) if library_size is None else np.asarray(library_size, dtype=np.float64)
    factor = np.divide(target_sum, size, out=np.zeros_like(size), where=size > 0).astype(np.float32)
    result = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    result.data *= np.repeat(factor, np.diff(result.indptr))
    np.log1p(result.data, out=result.data)
    return result


def highly_variable(counts: sparse.csr_matrix, *, n_top: int) -> np.ndarray:
    """Return the most variable genes of raw counts [n, g]; see `most_variable`."""
    return most_variable(scaled_moments(counts), n_top=n_top)


def scaled_moments(counts: sparse.csr_matrix, n: np.ndarray | None = None) -> Moments:
    """Return the moments of counts [n, g] scaled to 10,000 per cell; `n` as in `moments`."""
    scaled = counts.copy()
    size = library_sizes(counts)
    scaled.data *= np.repeat(np.divide(1e4, size, out=np.zeros_like(size), where=size > 0), np.diff(counts.indptr))
    return moments(scaled, n)


def most_variable(scaled: Moments, *, n_top: int) -> np.ndarray:
    """Choose genes by the dispersion of their scaled counts, normalised within 20 bins of their mean.

    This is flavor "seurat" of scanpy (Satija et al. 2015), computed from mean and variance.

    Parameters
    ----------
    scaled
        Moments of the genes from `scaled_moments`, [g].
    n_top
        Number of genes; all genes if there are fewer.

    Returns
    -------
    ndarray of int
        Exactly ``min(n_top, g)`` column positions, ascending; ties go to the first gene.

    Raises
    ------
    SettingError
        `n_top` is below 1.
    """
    if n_top < 1:
        raise SettingError(f"n_top must be at least 1 (got {n_top})")
    n_genes = len(scaled.mean)
    if n_top >= n_genes:
        return np.arange(n_genes)
    mean = np.where(scaled.mean > 0, scaled.mean, 1e-12)
    ratio = scaled.squares / np.maximum(scaled.n - 1, 1) / mean
    dispersion = pd.Series(np.log(ratio, out=np.full(n_genes, np.nan), where=ratio > 0))
    bins = dispersion.groupby(pd.cut(pd.Series(np.log1p(mean)), bins=20), observed=True)
    center, spread = bins.transform("mean"), bins.transform("std")
    alone = spread.isna()  # a gene alone in its bin counts as one standard deviation above the mean
    center, spread = center.where(~alone, 0.0), spread.where(~alone, center)
    normalized = ((dispersion - center) / spread).fillna(-np.inf).to_numpy()
    return np.sort(np.lexsort((np.arange(n_genes), -normalized))[:n_top])


def clr(counts: np.ndarray, *, log_geometric_mean: np.ndarray | None = None) -> np.ndarray:
    """Return the centred log-ratio of each protein across cells: ``log1p(x / exp(mean(log1p(x))))``.

    Parameters
    ----------
    counts
        Raw protein counts, [n, p]; NaN (not measured) stays NaN and is not part of the mean.
    log_geometric_mean
        ``mean(log1p(x))`` of each protein, [p], as stored with a model; by default computed from `counts`.

    Returns
    -------
    ndarray
        float32 [n, p], natural log, >= 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if log_geometric_mean is None:
        log_geometric_mean = moments(np.log1p(counts)).mean
    return np.log1p(counts / np.exp(log_geometric_mean)).astype(np.float32)


def mads_from_median(values: pd.Series) -> pd.Series:
    """Return how many scaled median absolute deviations values are above the median; NaN if most are equal."""
    if values.isna().all():  # pandas would warn of an empty mean
        return values
    deviations = values - values.median()
    spread = 1.4826 * deviations.abs().median()
    return deviations / (spread if spread > 0 else np.nan)


@dataclass(frozen=True, eq=False)
class Standardizer:
    """``(x - mean) / std``, clipped at +-clip, in units of the feature's standard deviation.

    Attributes
    ----------
    mean, std
        float64 [f]; `std` is the population standard deviation (ddof 0), 1 for a constant feature. With the scale
        ``global`` it is the root of the mean variance for all features. With ``shrunk`` it is the standard deviation to
        the power `SHRINKAGE`, times a constant that makes the mean variance of varying features 1: more variable
        features get more weight, but less than with ``global``.
    clip
        Largest absolute value, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: float | None = 10.0

    @classmethod
    def fit(cls, values: Moments, *, scale: Scale = "per_feature", clip: float | None = 10.0) -> "Standardizer":
        """Compute mean and scale from the moments of features, e.g. the sum of those of several blocks of cells."""
        if scale not in ("shrunk", "per_feature", "global"):
            raise SettingError(f"scale must be shrunk, per_feature or global (got '{scale}')")
        mean, std = values.mean, np.sqrt(values.variance)
        std[std <= _CONSTANT * np.abs(mean)] = 0.0
        if scale == "global":
            std[:] = np.sqrt(np.mean(std**2))
        elif scale == "shrunk":
            weight = np.sum(std ** (2 - 2 * SHRINKAGE)) / max(np.count_nonzero(std), 1)
            std = std**SHRINKAGE * np.sqrt(weight)
        return cls(mean, np.where(std > 0, std, 1.0), clip)

    @classmethod
    def identity(cls, n_features: int) -> "Standardizer":
        """Return a standardizer that leaves values unchanged."""
        return cls(np.zeros(n_features), np.ones(n_features), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "clip": self.clip}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Standardizer":
        """Build from the result of :meth:`to_dict`."""
        mean, std = (np.asarray(values[name], dtype=np.float64) for name in ("mean", "std"))
        return cls(mean, std, values["clip"])

    def transform(self, batch: np.ndarray) -> np.ndarray:
        """Standardise a dense batch [b, f]; NaN stays NaN. Returns float32."""
        values = ((batch - self.mean) / self.std).astype(np.float32)
        return values if self.clip is None else np.clip(values, -self.clip, self.clip, out=values)
