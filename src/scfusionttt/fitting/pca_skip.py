"""After pretraining: fit the PCA skip, which adds principal components and proteins to the bottleneck."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import read_cells
from scfusionttt.nn.backbone import PCASkip
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.memory import cells_at_once

#: Standard deviation of the components in the latent vector relative to that of the bottleneck; also of the proteins.
REACH = 0.7
#: Most gene values to fit to; more change little.
MOST_VALUES = 40_000_000
#: Ridge penalties of the regression that predicts unmeasured proteins, chosen by leave-one-out error.
PENALTIES = np.logspace(-2, 4, 7)


def fit_pca_skip(
    network: PretrainNetwork, skip: PCASkip, cells: CellDataset, device: torch.device, *, seed: int
) -> None:
    """Set the axes, the scales and the regression of unmeasured proteins on RNA. Needs no labels.

    Parameters
    ----------
    network
        A pretrained network.
    skip
        Its PCA skip.
    cells
        The cells of pretraining; `seed` draws a sample of many.
    """
    most = max(MOST_VALUES // len(skip.axes), 2)
    if len(cells) > most:
        cells = cells.subset(np.sort(np.random.default_rng(seed).choice(cells.rows, most, replace=False)))
    bottleneck, by_rna, genes, proteins = _read(network, cells, device)
    if not (np.isfinite(bottleneck).all() and np.isfinite(genes).all()):
        return
    within = _within_batches(genes, cells.batches[cells.rows])
    axes = _principal_axes(within, skip.n_components, seed)
    axes /= _spread((within - within.mean(axis=0)) @ axes)
    with torch.no_grad():
        skip.axes[:, : axes.shape[1]] = torch.from_numpy(axes)
        skip.reach.fill_(REACH * _spread(bottleneck))
        if skip.n_proteins:
            batches = torch.from_numpy(genes).split(cells_at_once(network, device))
            components = torch.cat([(batch.to(device) @ skip.axes).cpu() for batch in batches]).numpy()
            _fit_proteins(skip, np.hstack([by_rna, components]), proteins)


def _read(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> list[np.ndarray]:
    """Return, in one pass, the bottleneck, the bottleneck by RNA alone, and the scaled genes and proteins.

    Proteins are NaN where not measured; without proteins in the model, the two that concern them have no columns.
    """

    def read(inputs: CellInputs) -> Tensor:
        bottleneck = network.backbone(inputs).bottleneck
        widths[:] = [bottleneck.shape[1], 0, inputs.rna.shape[1], inputs.protein.shape[1]]
        parts = [bottleneck, inputs.rna]
        if inputs.protein.shape[1]:
            by_rna = network.backbone(inputs.without_proteins()).bottleneck
            widths[1] = by_rna.shape[1]
            parts = [bottleneck, by_rna, inputs.rna, torch.where(inputs.protein_present, inputs.protein, torch.nan)]
        return torch.cat(parts, dim=1)

    widths: list[int] = []
    values = read_cells(network, cells, device, read)
    return [np.ascontiguousarray(part) for part in np.split(values, np.cumsum(widths)[:-1], axis=1)]


def _within_batches(genes: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Return genes [n, g] less the mean of the cell's batches, so that no axis is spent on differences of batches."""
    if not batches.shape[1]:
        return genes
    within = genes.copy()
    for rows in pd.DataFrame(batches).groupby(list(range(batches.shape[1]))).indices.values():
        within[rows] -= genes[rows].mean(axis=0)
    return within


def _principal_axes(genes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return at most `n` principal axes [g, k] of values [n, g]."""
    from sklearn.decomposition import PCA

    return PCA(min(n, *genes.shape), svd_solver="randomized", random_state=seed).fit(genes).components_.T


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
