"""After stages 2 and 3: probabilities that mean what they say, and a distance that tells unknown cells."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from scfusionttt.data.loader import CellDataset
from scfusionttt.nn.networks import ClassifierNetwork, TransferNetwork
from scfusionttt.training.inference import class_scores, embed_for_heads

#: Temperatures that are tried; few cells could ask for any.
TEMPERATURES = torch.logspace(-1, 1, 81, base=2, dtype=torch.float64)
#: Share of the mean variance within classes that is added to every direction, so that few cells have an inverse.
SHRINKAGE = 1e-3


def calibrate(network: ClassifierNetwork, train: CellDataset, held_back: CellDataset, device: torch.device) -> None:
    """Set temperature and novelty of a trained classifier; which class a cell gets does not change.

    Parameters
    ----------
    train
        The cells that it learned from: they give the classes' means and the covariance within classes.
    held_back
        Labelled cells that no weight was fitted to: they give the temperature and the distances that are usual.
    """
    scores = class_scores(network, held_back, device)
    of_train, of_held_back = (embed_for_heads(network, cells, device) for cells in (train, held_back))
    if not (np.isfinite(of_train).all() and np.isfinite(of_held_back).all()):
        return
    by_rna = (
        of_held_back
        if isinstance(network, TransferNetwork)
        else embed_for_heads(network, held_back, device, rna_only=True)
    )
    network.cpu()
    codes, codes_held_back = (torch.from_numpy(cells.labels[cells.rows]).long() for cells in (train, held_back))
    with torch.no_grad():
        _set_temperature(network, torch.from_numpy(scores).double(), codes_held_back)
        _set_classes(network, torch.from_numpy(of_train).double(), codes)
        shares = torch.linspace(0, 1, network.novelty.N_QUANTILES)
        for row, z in enumerate((of_held_back, by_rna)):
            network.novelty.quantiles[row] = network.novelty(torch.from_numpy(z)).quantile(shares)


def _set_temperature(network: ClassifierNetwork, scores: Tensor, codes: Tensor) -> None:
    """Divide the scores by the temperature of least cross-entropy (Guo et al., arXiv 1706.04599)."""
    losses = torch.stack([cross_entropy(scores / temperature, codes) for temperature in TEMPERATURES])
    temperature = float(TEMPERATURES[losses.argmin()])
    for weights in (network.head.bias, *network.slopes()):
        weights.div_(temperature)


def _set_classes(network: ClassifierNetwork, z: Tensor, codes: Tensor) -> None:
    """Set the means of the classes, and the root of the inverse covariance about them."""
    here = codes.unique()
    means = torch.stack([z[codes == code].mean(dim=0) for code in here])
    network.novelty.means[here] = means.float()
    inner = z - means[torch.searchsorted(here, codes)]
    covariance = inner.T @ inner / len(z)
    variances, axes = torch.linalg.eigh(covariance)
    variances = variances.clamp(min=0) + SHRINKAGE * variances.mean().clamp(min=1e-12)
    network.novelty.whitening.copy_((axes / variances.sqrt()).float())
