"""After pretraining: set the plain view of the cells that stands beside the bottleneck."""

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import read_cells
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs

#: Spread of the components in the representation as a share of the bottleneck's, and that of the proteins.
REACH = 0.7
#: Values that it is fitted to; more change it little.
MOST_VALUES = 40_000_000
#: Penalties among which leave-one-out error chooses, of the line that tells proteins that were not measured.
PENALTIES = np.logspace(-2, 4, 7)


def fit_view(network: PretrainNetwork, cells: CellDataset, device: torch.device, *, seed: int) -> None:
    """Set the axes, the scales, and the line to proteins that were not measured. Needs no label.

    Parameters
    ----------
    network
        Pretrained; it has a view.
    cells
        Those of pretraining; `seed` draws some where there are many.
    """
    view = network.backbone.view
    assert view is not None
    n_genes = len(view.axes)
    most = max(MOST_VALUES // n_genes, 2)
    if len(cells) > most:
        cells = cells.subset(np.sort(np.random.default_rng(seed).choice(cells.rows, most, replace=False)))
    bottleneck = read_cells(network, cells, device, lambda inputs: network.backbone(inputs).bottleneck)
    genes = read_cells(network, cells, device, lambda inputs: inputs.rna)
    if not (np.isfinite(bottleneck).all() and np.isfinite(genes).all()):
        return
    axes = _principal_axes(genes, view.n_components, seed)
    components = (genes - genes.mean(axis=0)) @ axes
    axes /= _spread(components)
    with torch.no_grad():
        view.axes[:, : axes.shape[1]] = torch.from_numpy(axes)
        view.reach.fill_(REACH * _spread(bottleneck))
    if view.n_proteins:
        _fit_proteins(network, cells, device)


def _principal_axes(genes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return principal axes [g, k] of values [n, g], fewer than `n` where there are no more."""
    from sklearn.decomposition import PCA

    return PCA(min(n, *genes.shape), svd_solver="randomized", random_state=seed).fit(genes).components_.T


def _fit_proteins(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> None:
    """Set the proteins' scale, and the line to them from what is known of a cell by its RNA alone."""
    from sklearn.linear_model import RidgeCV

    view = network.backbone.view
    assert view is not None

    def by_rna(inputs: CellInputs) -> Tensor:
        return torch.cat([network.backbone(inputs.without_proteins()).bottleneck, inputs.rna @ view.axes], dim=1)

    known = read_cells(network, cells, device, by_rna)
    values = read_cells(
        network, cells, device, lambda inputs: torch.where(inputs.protein_present, inputs.protein, torch.nan)
    )
    variance = np.array([column[np.isfinite(column)].var() if np.isfinite(column).any() else 0 for column in values.T])
    with torch.no_grad():
        view.protein_scale.fill_(1 / np.sqrt(max(variance.sum(), 1e-12)))
        for protein, column in enumerate(values.T):
            rows = np.isfinite(column)
            if rows.sum() > 1:
                line = RidgeCV(PENALTIES).fit(known[rows], column[rows])
                view.fill[:, protein] = torch.from_numpy(line.coef_)
                view.fill_bias[protein] = float(line.intercept_)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of values [n, k], all directions together, at least 1e-6."""
    return max(float(np.sqrt(values.var(axis=0).sum())), 1e-6)
