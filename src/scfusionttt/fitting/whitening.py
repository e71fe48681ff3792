"""After pretraining: give less weight to directions of the latent vector that are noise, or differ in similar cells."""

import numpy as np
import torch

from scfusionttt.data.loader import CellDataset
from scfusionttt.fitting.sample import Sample
from scfusionttt.inference import latent
from scfusionttt.nn.networks import PretrainNetwork

#: Nearest neighbours that stand for cells of the same kind; scanpy's default.
N_NEIGHBORS = 15
#: Noise added to every direction, relative to the mean variance.
FLOOR = 1e-3
#: Least share of signal of a direction; less would lose rare proteins that many counts would show.
LEAST_SIGNAL = 0.1
#: Most cells whose counts are split.
MOST_SPLIT = 2000


def whiten(network: PretrainNetwork, cells: CellDataset, sample: Sample, device: torch.device, *, seed: int) -> None:
    """Set the metric of the latent vector z: noise of counting is filtered out, and what differs in similar cells less.

    First, a Wiener filter multiplies each direction by its share of signal, which two halves of the counts agree on;
    see :func:`_filter`. Models that remove batch effects have none: without noise, what is left of them would show more
    (docs/recipe.md). Then each direction is divided by its noise to the power `whitening`. The noise is the standard
    deviation of cells about the mean of their nearest neighbours. A power of 1 equalises it in all directions: relevant
    component analysis (Bar-Hillel et al. 2005, JMLR 6), with neighbours in place of cells that are known to be alike.
    The total variance of z stays the same. Needs no labels.

    Call it after latent scaling, the fit of the PCA skip and the correction of batch effects.

    Parameters
    ----------
    cells
        The cells of pretraining with RNA; `seed` draws some of many, and splits their counts.
    sample
        The same as the network read them.
    """
    backbone = network.backbone.cpu()
    inputs = (sample.bottleneck, sample.genes, sample.proteins, sample.batches)
    bottleneck, genes, proteins, batches = map(torch.from_numpy, inputs)
    with torch.no_grad():
        z, _ = backbone.without_batch_effects(
            bottleneck, backbone.components(genes), proteins.nan_to_num(), ~proteins.isnan(), batches
        )  # fmt: skip
    if len(z) < 3 or float(z.var(dim=0).sum()) == 0:
        return
    signal = np.eye(z.shape[1])
    if not sample.batches.shape[1]:
        halves = cells.drawn(MOST_SPLIT, seed).halves(seed)
        signal = _filter(*(latent(network, half, device).astype(np.float64) for half in halves))
    filtered = z.double().numpy() @ signal
    with torch.no_grad():
        backbone.metric.copy_(torch.from_numpy(signal @ _metric(filtered, backbone.whitening)))


def _filter(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the matrix [l, l] that multiplies each direction of z by its share of signal.

    The signal is the covariance of z from one half of each cell's counts, `first` [n, l], with z from the other,
    `second` [n, l]; what differs between them is the noise of counting.
    """
    from sklearn.covariance import ledoit_wolf

    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    agreeing = (first.T @ second + second.T @ first) / (2 * len(first))
    noise = ledoit_wolf((first - second) / 2, assume_centered=True)[0]
    noise += FLOOR * (first + second).var(axis=0).sum() / 4 / len(noise) * np.eye(len(noise))
    variance, axes = np.linalg.eigh(noise)
    white, back = (axes * variance**-0.5) @ axes.T, (axes * variance**0.5) @ axes.T
    signal, directions = np.linalg.eigh(white @ agreeing @ white)
    share = np.maximum(signal, 0) / (np.maximum(signal, 0) + 1)
    return white @ (directions * np.maximum(share, LEAST_SIGNAL)) @ directions.T @ back


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
