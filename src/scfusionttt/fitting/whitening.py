"""After pretraining: make directions of z count less in which cells of one kind differ, too."""

import numpy as np
import torch

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import embed_for_heads
from scfusionttt.nn.networks import PretrainNetwork

#: Neighbours of a cell that are taken for cells of its kind: as many as scanpy takes.
N_NEIGHBORS = 15
#: Cells that it is estimated on; more change it little.
MOST_CELLS = 10_000
#: No direction's noise is taken for less than this share of the mean variance.
FLOOR = 1e-3


def whiten(network: PretrainNetwork, cells: CellDataset, device: torch.device, *, seed: int) -> None:
    """Set the metric of z: each direction is divided by the noise in it to the power `whitening`. Needs no label.

    The noise is the spread of cells about the mean of their nearest neighbours. With a power of 1 it is the same in all
    directions of the new z: relevant component analysis (Bar-Hillel et al. 2005, JMLR 6), neighbours standing for cells
    that are known to be alike. With 0 z stays as it is. Its total spread stays in any case.

    Parameters
    ----------
    network
        Pretrained, its z scaled and its view set.
    cells
        Those of pretraining; `seed` draws some where there are many.
    """
    if len(cells) > MOST_CELLS:
        cells = cells.subset(np.sort(np.random.default_rng(seed).choice(cells.rows, MOST_CELLS, replace=False)))
    z = embed_for_heads(network, cells, device).astype(np.float64)
    if len(z) > 2 and np.isfinite(z).all() and z.var(axis=0).sum() > 0:
        with torch.no_grad():
            network.backbone.metric.copy_(torch.from_numpy(_metric(z, network.backbone.whitening)))


def _metric(z: np.ndarray, power: float) -> np.ndarray:
    """Return the symmetric map [l, l] of z [n, l]."""
    total = z.var(axis=0).sum()
    noise = _noise(z) + FLOOR * total / z.shape[1] * np.eye(z.shape[1])
    variance, axes = np.linalg.eigh(noise)
    metric = (axes * variance ** (-power / 2)) @ axes.T
    return metric * np.sqrt(total / (z @ metric).var(axis=0).sum())


def _noise(z: np.ndarray) -> np.ndarray:
    """Return the covariance [l, l] of z [n, l] about the mean of each cell's nearest neighbours."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    away = z - np.mean([z[column] for column in found.T], axis=0)
    return away.T @ away / len(z)
