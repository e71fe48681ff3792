"""After pretraining: give less weight to directions of the latent vector that are noise, or differ in similar cells."""

import numpy as np
import torch
from torch import Tensor

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
#: Cells whose distances to all others are computed together.
CELLS_AT_ONCE = 1024


def whiten(network: PretrainNetwork, cells: CellDataset, sample: Sample, device: torch.device, *, seed: int) -> None:
    """Set the metric of the latent vector z: noise of counting is filtered out, and what differs in similar cells less.

    First, a Wiener filter multiplies each direction by its share of signal, which two halves of the counts agree on;
    see :func:`_filter`. Then each direction is divided by its noise to the power `whitening`. The noise is the standard
    deviation of cells about the mean of their nearest neighbours, and what is left of the batches counts as noise, too;
    see :func:`_left_of_batches`. A power of 1 equalises it in all directions: relevant component analysis (Bar-Hillel
    et al. 2005, JMLR 6), with neighbours in place of cells that are known to be alike. The total variance of z stays
    the same. Needs no labels.

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
        correction = backbone.correction
        kinds = None if correction is None else correction.degrees(z, backbone.latent(correction.centroids))
    if len(z) < 3 or float(z.var(dim=0).sum()) == 0:
        return
    halves = cells.drawn(MOST_SPLIT, seed).halves(seed)
    signal = _filter(*(latent(network, half, device).astype(np.float64) for half in halves))
    filtered = z.double().numpy() @ signal
    noise = _noise(filtered)
    if kinds is not None and len(np.unique(sample.batches, axis=0)) > 1:
        noise += _left_of_batches(torch.from_numpy(filtered), kinds.double(), batches)
    with torch.no_grad():
        backbone.metric.copy_(torch.from_numpy(signal @ _metric(filtered, noise, backbone.whitening)))
        if correction is not None:
            correction.set_matching_distance(backbone.whitened)  # which is a distance in the embedding


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


def _metric(z: np.ndarray, noise: np.ndarray, power: float) -> np.ndarray:
    """Return the symmetric matrix [l, l] that whitens z [n, l], given the covariance of its noise [l, l]."""
    total = z.var(axis=0).sum()
    noise = noise + FLOOR * total / z.shape[1] * np.eye(z.shape[1])
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


def _left_of_batches(z: Tensor, kinds: Tensor, batches: Tensor) -> np.ndarray:
    """Return the covariance [l, l] of what still differs between batches in cells of one kind.

    That is the difference between the means of a cell's nearest neighbours in its own batch and in others. A cell has
    less weight if its kind is rarer in the other batches than in its own: where they lack it, the nearest cells are of
    another kind. Shrunk as in :func:`_noise`.

    Parameters
    ----------
    z
        Corrected latent vectors, [n, l].
    kinds
        Degrees to which the cells belong to each kind, [n, k].
    batches
        Levels of the batch keys, [n, keys].
    """
    from sklearn.covariance import ledoit_wolf

    _, batch, n_cells = batches.unique(dim=0, return_inverse=True, return_counts=True)
    counts = torch.zeros(len(n_cells), kinds.shape[1], dtype=kinds.dtype).index_add(0, batch, kinds)
    share = counts / n_cells[:, None]
    elsewhere = (counts.sum(dim=0) - counts) / (len(z) - n_cells)[:, None]
    weight = (kinds * (elsewhere / share.clamp(min=1e-12)).clamp(max=1)[batch]).sum(dim=1)
    weight[n_cells[batch] == 1] = 0  # no others of its own batch
    difference = torch.cat([_step_to_others(z, rows, batch) for rows in torch.arange(len(z)).split(CELLS_AT_ONCE)])
    return ledoit_wolf((weight.sqrt()[:, None] * difference).numpy(), assume_centered=True)[0]


def _step_to_others(z: Tensor, rows: Tensor, batch: Tensor) -> Tensor:
    """Return, for cells `rows`, the mean of the nearest cells in other batches minus that in their own, [r, l]."""
    distance = torch.cdist(z[rows], z)
    distance[torch.arange(len(rows)), rows] = torch.inf
    own = batch[rows][:, None] == batch

    def mean(left_out: Tensor) -> Tensor:
        nearest = distance.masked_fill(left_out, torch.inf).topk(min(N_NEIGHBORS, len(z) - 1), dim=1, largest=False)
        found = nearest.values.isfinite()[:, :, None]
        return (z[nearest.indices] * found).sum(dim=1) / found.sum(dim=1).clamp(min=1)

    return mean(own) - mean(~own)
