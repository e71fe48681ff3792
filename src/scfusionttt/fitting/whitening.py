"""After pretraining: give less weight to directions of the latent vector in which similar cells differ, too."""

import numpy as np
import torch

from scfusionttt.fitting.sample import Sample
from scfusionttt.nn.backbone import FusionBackbone

#: Nearest neighbours that stand for cells of the same kind; scanpy's default.
N_NEIGHBORS = 15
#: Noise added to every direction, relative to the mean variance.
FLOOR = 1e-3


def whiten(backbone: FusionBackbone, sample: Sample) -> None:
    """Set the whitening of the latent vector z: divide each direction by its noise to the power `whitening`.

    The noise is the standard deviation of cells about the mean of their nearest neighbours. A power of 1 equalises it
    in all directions: relevant component analysis (Bar-Hillel et al. 2005, JMLR 6), with neighbours in place of cells
    that are known to be alike; 0 leaves z as it is. The total variance of z stays the same. Needs no labels.

    Call it after latent scaling and the fit of the PCA skip.
    """
    bottleneck, genes, proteins, batches = map(
        torch.from_numpy, (sample.bottleneck, sample.genes, sample.proteins, sample.batches)
    )
    backbone.cpu()
    with torch.no_grad():
        z, _ = backbone.without_batch_effects(
            bottleneck, backbone.components(genes), proteins.nan_to_num(), ~proteins.isnan(), batches
        )  # fmt: skip
        if len(z) > 2 and float(z.var(dim=0).sum()) > 0:
            backbone.metric.copy_(torch.from_numpy(_metric(z.double().numpy(), backbone.whitening)))


def _metric(z: np.ndarray, power: float) -> np.ndarray:
    """Return the symmetric matrix [l, l] that whitens z [n, l]."""
    total = z.var(axis=0).sum()
    noise = _noise(z) + FLOOR * total / z.shape[1] * np.eye(z.shape[1])
    variance, axes = np.linalg.eigh(noise)
    metric = (axes * variance ** (-power / 2)) @ axes.T
    return metric * np.sqrt(total / (z @ metric).var(axis=0).sum())


def _noise(z: np.ndarray) -> np.ndarray:
    """Return the covariance [l, l] of z [n, l] about the mean of each cell's nearest neighbours.

    It is shrunk towards that of equal noise in all directions, by as much as few cells leave it uncertain (Ledoit and
    Wolf 2004). Else directions that have little noise by chance would be enlarged, and cells that were not trained on,
    which have as much noise there as elsewhere, would lie apart from those that were.
    """
    from sklearn.covariance import ledoit_wolf
    from sklearn.neighbors import NearestNeighbors

    neighbors = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    residual = z - np.mean([z[column] for column in neighbors.T], axis=0)
    return ledoit_wolf(residual, assume_centered=True)[0]
