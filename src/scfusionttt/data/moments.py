"""Mean and variance of features over blocks of cells."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy import sparse

from scfusionttt.data.counts import row_blocks, row_values


@dataclass(frozen=True, eq=False)
class Moments:
    """Of each feature: the cells in which it was measured, and the mean and sum of squared deviations in these; [f].

    Moments of blocks add up to those of all cells, apart from rounding (Chan, Golub and LeVeque 1983).
    """

    n: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        step = other.mean - self.mean
        return Moments(n, self.mean + step * share, self.squares + other.squares + step**2 * self.n * share)

    def __getitem__(self, features: Any) -> "Moments":
        """Return the moments of some features."""
        return Moments(self.n[features], self.mean[features], self.squares[features])

    def followed_by(self, other: "Moments") -> "Moments":
        """Return the moments of these features, then those of others of the same cells."""
        pairs = ((self.n, other.n), (self.mean, other.mean), (self.squares, other.squares))
        return Moments(*map(np.concatenate, pairs))

    @property
    def variance(self) -> np.ndarray:
        """Population variance, [f]; 0 for a feature measured in no cell."""
        return self.squares / np.maximum(self.n, 1)


def add_up(blocks: Iterable[Moments]) -> Moments:
    """Return the moments of all blocks together."""
    return reduce(Moments.__add__, blocks)


def moments(matrix: sparse.csr_matrix | np.ndarray, n: np.ndarray | None = None) -> Moments:
    """Return the moments of the columns of a block [n, f].

    Parameters
    ----------
    matrix
        Sparse (not made dense), or dense, where NaN means "not measured".
    n
        For a sparse matrix, the number of cells in which each feature was measured, [f], by default all; the other
        cells store no values for it.
    """
    if sparse.issparse(matrix):
        return _of_sparse(matrix, np.full(matrix.shape[1], matrix.shape[0]) if n is None else n)
    return _of_dense(matrix)


def _of_sparse(matrix: sparse.csr_matrix, n: np.ndarray) -> Moments:
    """Two passes over the stored values."""
    n_features = matrix.shape[1]
    total, stored, squares = np.zeros(n_features), np.zeros(n_features), np.zeros(n_features)
    for rows in row_blocks(matrix.shape[0]):
        values, columns = row_values(matrix, rows)
        total += np.bincount(columns, weights=values, minlength=n_features)
        stored += np.bincount(columns, minlength=n_features)
    mean = total / np.maximum(n, 1)
    for rows in row_blocks(matrix.shape[0]):
        values, columns = row_values(matrix, rows)
        squares += np.bincount(columns, weights=(values - mean[columns]) ** 2, minlength=n_features)
    return Moments(n, mean, squares + (n - stored) * mean**2)


def _of_dense(matrix: np.ndarray) -> Moments:
    matrix = np.asarray(matrix, dtype=np.float64)
    measured = np.isfinite(matrix)
    n = measured.sum(axis=0)
    mean = np.where(measured, matrix, 0.0).sum(axis=0) / np.maximum(n, 1)
    return Moments(n, mean, (np.where(measured, matrix - mean, 0.0) ** 2).sum(axis=0))
