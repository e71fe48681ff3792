"""After pretraining: give less weight to directions of the latent vector in which similar cells differ, too."""

import numpy as np
import torch

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import latent
from scfusionttt.nn.networks import PretrainNetwork

#: Nearest neighbours that stand for cells of the same kind; scanpy's default.
N_NEIGHBORS = 15
#: Most cells to estimate the noise from; more change little.
MOST_CELLS = 10_000
#: Noise added to every direction, relative to the mean variance.
FLOOR = 1e-3


def whiten(network: PretrainNetwork, cells: CellDataset, device: torch.device, *, seed: int) -> None:
    """Set the whitening of the latent vector z: divide each direction by its noise to the power `whitening`.

    The noise is the standard deviation of cells about the mean of their nearest neighbours. A power of 1 equalises it
    in all directions: relevant component analysis (Bar-Hillel et al. 2005, JMLR 6), with neighbours in place of cells
    that are known to be alike; 0 leaves z as it is. The total variance of z stays the same. Needs no labels.

    Parameters
    ----------
    network
        Pretrained, after latent scaling and the fit of the PCA skip.
    cells
        The cells of pretraining; `seed` draws a sample of many.
    """
    if len(cells) > MOST_CELLS:
        cells = cells.subset(np.sort(np.random.default_rng(seed).choice(cells.rows, MOST_CELLS, replace=False)))
    z = latent(network, cells, device).astype(np.float64)
    if len(z) > 2 and np.isfinite(z).all() and z.var(axis=0).sum() > 0:
        with torch.no_grad():
            network.backbone.metric.copy_(torch.from_numpy(_metric(z, network.backbone.whitening)))


def _metric(z: np.ndarray, power: float) -> np.ndarray:
    """Return the symmetric matrix [l, l] that whitens z [n, l]."""
    total = z.var(axis=0).sum()
    noise = _noise(z) + FLOOR * total / z.shape[1] * np.eye(z.shape[1])
    variance, axes = np.linalg.eigh(noise)
    metric = (axes * variance ** (-power / 2)) @ axes.T
    return metric * np.sqrt(total / (z @ metric).var(axis=0).sum())


def _noise(z: np.ndarray) -> np.ndarray:
    """Return the covariance [l, l] of z [n, l] about the mean of each cell's nearest neighbours."""
    from sklearn.neighbors import NearestNeighbors

    neighbors = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    residual = z - np.mean([z[column] for column in neighbors.T], axis=0)
    return residual.T @ residual / len(z)
