"""After pretraining: fit the PCA skip, which adds principal components and proteins to the bottleneck."""

import numpy as np
import torch

from scfusionttt.data.kinds import principal_axes, within_batches
from scfusionttt.fitting.sample import Sample
from scfusionttt.nn.backbone import PCASkip

#: Standard deviation of the components in the latent vector relative to that of the bottleneck; also of the proteins.
REACH = 0.7
#: Ridge penalties of the regression that predicts unmeasured proteins, chosen by leave-one-out error.
PENALTIES = np.logspace(-2, 4, 7)


def fit_pca_skip(skip: PCASkip, sample: Sample, *, seed: int) -> None:
    """Set the axes, the scales and the regression of unmeasured proteins on RNA. Needs no labels.

    `seed` starts the randomised decomposition.
    """
    within = within_batches(sample.genes, sample.batches)
    axes = principal_axes(within, skip.n_components, seed)
    axes /= _spread((within - within.mean(axis=0)) @ axes)
    with torch.no_grad():
        skip.cpu().axes[:, : axes.shape[1]] = torch.from_numpy(axes)
        skip.reach.fill_(REACH * _spread(sample.bottleneck))
        if skip.n_proteins:
            _fit_proteins(skip, np.hstack([sample.by_rna, sample.genes @ skip.axes.numpy()]), sample.proteins)


def _fit_proteins(skip: PCASkip, predictors: np.ndarray, proteins: np.ndarray) -> None:
    """Set the scale of the proteins [n, p], and their ridge regression on what RNA predicts them from [n, l + k]."""
    from sklearn.linear_model import RidgeCV

    is_measured = np.isfinite(proteins)
    variance = np.array([
        column[rows].var() if rows.any() else 0 for column, rows in zip(proteins.T, is_measured.T, strict=True)
    ])  # fmt: skip
    skip.protein_scale.fill_(1 / np.sqrt(max(variance.sum(), 1e-12)))
    for protein, (column, rows) in enumerate(zip(proteins.T, is_measured.T, strict=True)):
        if rows.sum() > 1:
            ridge = RidgeCV(PENALTIES).fit(predictors[rows], column[rows])
            skip.fill[:, protein] = torch.from_numpy(ridge.coef_)
            skip.fill_bias[protein] = float(ridge.intercept_)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of values [n, k] over all directions together, at least 1e-6."""
    return max(float(np.sqrt(values.var(axis=0).sum())), 1e-6)
