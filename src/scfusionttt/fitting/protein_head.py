"""After pretraining: fit the head that imputes proteins from RNA alone, and estimate its errors on held-out cells."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd

from scfusionttt.fitting.nystroem import draw_landmarks, kernel_features
from scfusionttt.fitting.sample import Sample
from scfusionttt.masks import measured_together
from scfusionttt.nn.backbone import FusionBackbone
from scfusionttt.nn.heads import ProteinHead

#: Most cells to fit to where whole batches are left out, which takes longer; more change little.
MOST_CELLS = 2500
#: If cells and features are more than this, a regression uses so many directions of the features; others are noise.
MANY, MOST_DIRECTIONS = 1500, 500
#: Fewest cells with a measured protein to fit its regression to.
FEWEST_CELLS = 10
#: Ridge penalties relative to the mean squared norm of a cell, chosen for each protein by its out-of-fold error.
PENALTIES = np.logspace(-1.5, 2.5, 9)
#: The kernels fall to exp(-SHARPNESS) at the median distance between landmarks.
SHARPNESS = 1.0
#: The predicted error of a cell is at least this fraction of the protein's mean error.
LEAST_SPREAD = 0.3
#: Standard deviation between donors in units of the protein's own, assumed if the cells are of one batch: intervals are
#: for cells of other donors. Between two donors of development data it was 0 to 0.6.
DONOR = 0.4


def fit_protein_head(backbone: FusionBackbone, sample: Sample, *, seed: int) -> None:
    """Fit the head to the genes and their principal components; set the margins of its intervals.

    Errors are estimated on cells that were not fitted to: whole batches are left out if the model has a batch key,
    single cells otherwise.

    Parameters
    ----------
    backbone
        Its PCA skip has been fitted.
    sample
        Cells of pretraining.
    seed
        Draws the landmarks and, if whole batches are left out, fewer of the cells.
    """
    head, skip = backbone.protein_head, backbone.view
    assert head is not None and skip is not None
    genes, proteins, batches = sample.genes, sample.proteins, sample.batches
    measured = np.flatnonzero(np.isfinite(proteins).any(axis=1))
    if batches.shape[1] and len(measured) > MOST_CELLS:
        kept = np.sort(np.random.default_rng(seed).choice(measured, MOST_CELLS, replace=False))
        genes, proteins, batches = genes[kept], proteins[kept], batches[kept]
    batch = batches[:, 0] if batches.shape[1] else np.zeros(len(genes), dtype=np.int64)
    components = genes @ skip.axes.cpu().numpy()
    head.cpu().landmarks.copy_(torch.from_numpy(components[draw_landmarks(len(genes), len(head.landmarks), seed)]))
    for rows, columns in measured_together(np.isfinite(proteins)):
        if rows.sum() >= FEWEST_CELLS:
            _fit_panel(head, genes[rows], components[rows], proteins[np.ix_(rows, columns)], batch[rows], columns)


def _fit_panel(
    head: ProteinHead,
    genes: np.ndarray,
    components: np.ndarray,
    proteins: np.ndarray,
    batch: np.ndarray,
    columns: np.ndarray,
) -> None:
    """Fit the head to the proteins `columns`, measured in all of these cells.

    Parameters
    ----------
    genes, components
        Values [n, g] and principal components [n, k] of the cells.
    proteins
        Values [n, p].
    batch
        Batch of each cell, [n].
    columns
        Numbers of these proteins among all, [p].
    """
    folds = [np.flatnonzero(batch == level) for level in np.unique(batch)]
    fits = [Ridge(genes).fit(proteins, folds)]
    kernels: list[tuple[Ridge, np.ndarray]] = []
    n_fits = 1 + len(head.widths)  # the head predicts their mean
    head.slopes[:, columns] = torch.from_numpy(fits[0].slopes / n_fits).float()
    for number, n_components in enumerate(head.widths):
        features, back, gamma = kernel_features(
            components[:, :n_components], head.landmarks[:, :n_components], sharpness=SHARPNESS
        )
        kernels.append((Ridge(features), back))
        fits.append(kernels[-1][0].fit(proteins, folds))
        head.gammas[number] = gamma
        head.kernel_slopes[number][:, columns] = torch.from_numpy(back.T @ fits[-1].slopes / n_fits).float()
    head.bias[columns] = torch.from_numpy(np.mean([fit.intercept for fit in fits], axis=0)).float()
    _fit_errors(head, *kernels[0], np.mean([fit.errors for fit in fits], axis=0), folds, columns)
    if hasattr(head, "measured"):
        head.measured[np.ix_(np.unique(batch).astype(int), columns)] = True


def _fit_errors(
    head: ProteinHead,
    ridge: "Ridge",
    back: np.ndarray,
    errors: np.ndarray,
    folds: list[np.ndarray],
    columns: np.ndarray,
) -> None:
    """Fit a cell's standard deviation, from its out-of-fold errors [n, p], and the quantiles of errors in its units.

    `ridge` is on the features of the first kernel, with `back` [m, m] as in :func:`kernel_features`.
    """
    size = np.abs(errors)
    fitted = ridge.fit(size, folds)
    least = LEAST_SPREAD * size.mean(axis=0).clip(min=1e-6)
    ratio = errors / np.maximum(size - fitted.errors, least)
    deviation = np.sqrt((ratio**2).mean(axis=0)).clip(min=1e-6)
    rank = min(np.ceil(0.95 * (len(ratio) + 1)) / len(ratio), 1.0)
    for values, result in (
        (head.spread_slopes, back.T @ fitted.slopes * deviation),
        (head.spread_bias, fitted.intercept * deviation),
        (head.least_spread, least * deviation),
        (head.donor, np.full(len(columns), DONOR if len(folds) == 1 else 0.0)),
        (head.margins, np.quantile(ratio / deviation, [1 - rank, rank], axis=0)),
    ):
        values[..., columns] = torch.from_numpy(result).float()


class Fit(NamedTuple):
    """A regression of p targets on f features, and the errors of n cells that were left out."""

    slopes: np.ndarray  # [f, p]
    intercept: np.ndarray  # [p]
    errors: np.ndarray  # [n, p]


class Ridge:
    """Ridge regression on the features [n, f]; a single decomposition gives all fits and out-of-fold errors."""

    def __init__(self, features: np.ndarray) -> None:
        self.mean = features.mean(axis=0)
        self.centered = features - self.mean
        self.scale = max(float(np.square(self.centered).sum()) / len(features), 1e-12)
        left, values = _decompose(self.centered)
        kept = values > 1e-6 * self.scale
        self.left, self.values = left[:, kept].astype(float), values[kept].astype(float)  # [n, r], [r]

    def fit(self, targets: np.ndarray, folds: list[np.ndarray]) -> Fit:
        """Regress targets [n, p], each with the penalty of least error out of `folds`; of one fold, on each cell."""
        mean = targets.mean(axis=0)
        inner = self.left.T @ (targets - mean)
        penalties = PENALTIES * self.scale
        errors = np.array([self._errors(targets - mean, inner, penalty, folds) for penalty in penalties])
        best = (errors**2).mean(axis=1).argmin(axis=0)
        slopes = self.centered.T @ (self.left @ (inner / (self.values[:, None] + penalties[best])))
        chosen = np.take_along_axis(errors, best[None, None], axis=0)[0]
        return Fit(slopes, mean - self.mean @ slopes, chosen)

    def _errors(self, targets: np.ndarray, inner: np.ndarray, penalty: float, folds: list[np.ndarray]) -> np.ndarray:
        """Return the errors [n, p] of cells whose fold was left out, from the hat matrix of the fit to all."""
        weight = self.values / (self.values + penalty)
        residual = targets - self.left @ (weight[:, None] * inner)
        if len(folds) == 1:
            return residual / (1 - (self.left**2 @ weight) - 1 / len(targets))[:, None]
        errors = np.empty_like(residual)
        for rows in folds:
            left = self.left[rows]
            hat = (left * weight) @ left.T + 1 / len(targets)  # the second term is the intercept
            errors[rows] = np.linalg.solve(np.eye(len(rows)) - hat, residual[rows])
        return errors


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return left singular vectors [n, r] of a matrix [n, f], and its squared singular values [r]."""
    n, f = matrix.shape
    if min(n, f) > MANY:
        left, roots, _ = randomized_svd(matrix, MOST_DIRECTIONS, n_iter=2, random_state=0)
        return left, roots**2
    if n <= f:
        values, left = np.linalg.eigh(matrix @ matrix.T)
        return left, values
    values, right = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ right / np.sqrt(values.clip(min=1e-12)), values
