"""After stages 2 and 3: probabilities that mean what they say, and a distance that tells unknown cells."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import class_scores, embed_for_heads, looks_at_proteins
from scfusionttt.nn.networks import ClassifierNetwork

#: Temperatures that are tried; few cells could ask for any.
TEMPERATURES = torch.logspace(-1, 1, 81, base=2, dtype=torch.float64)
#: Share of the mean variance within classes that is added to every direction, so that few cells have an inverse.
SHRINKAGE = 1e-3


def calibrate(network: ClassifierNetwork, train: CellDataset, held_back: CellDataset, device: torch.device) -> None:
    """Set temperature and novelty of a trained classifier; which class a cell gets does not change.

    Parameters
    ----------
    train
        The cells that it learned from.
    held_back
        Labelled cells that no weight was fitted to: they give the temperature and the distances that are usual.
    """
    scores = class_scores(network, held_back, device)
    both = train.subset(np.concatenate([train.rows, held_back.rows]))
    z = embed_for_heads(network, both, device)
    if not np.isfinite(z).all():
        return
    by_rna = embed_for_heads(network, both, device, rna_only=True) if looks_at_proteins(network) else z
    network.cpu()
    codes = both.labels[both.rows]
    temperature = best_temperature(scores, codes[len(train) :])
    with torch.no_grad():
        for weights in (network.head.bias, *network.slopes()):
            weights.div_(temperature)
    set_novelty(network, z, by_rna, codes, [(np.arange(len(train)), np.arange(len(train), len(both)))])


def best_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return what to divide scores [n, c] by for the least cross-entropy (Guo et al., arXiv 1706.04599)."""
    logits, labels = torch.from_numpy(scores).double(), torch.from_numpy(codes).long()
    losses = torch.stack([cross_entropy(logits / temperature, labels) for temperature in TEMPERATURES])
    return float(TEMPERATURES[losses.argmin()])


def set_novelty(
    network: ClassifierNetwork,
    z: np.ndarray,
    by_rna: np.ndarray,
    codes: np.ndarray,
    turns: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Set the classes' means and spread from all cells, and from cells held out in turn which distances are usual.

    Parameters
    ----------
    z, by_rna
        Labelled cells as measured and by RNA alone, [n, l].
    codes
        Their classes, [n].
    turns
        Rows that give means and spread, and rows whose distance to them is taken.
    """
    novelty, labels = network.novelty.cpu(), torch.from_numpy(codes).long()
    measured, alone = (torch.from_numpy(cells).double() for cells in (z, by_rna))
    distances = []
    for rows, held_out in turns:
        _set_classes(network, measured[rows], labels[rows])
        distances.append(torch.stack([novelty(cells[held_out].float()) for cells in (measured, alone)]))
    _set_classes(network, measured, labels)
    shares = torch.linspace(0, 1, novelty.N_QUANTILES)
    novelty.quantiles.copy_(torch.cat(distances, dim=1).quantile(shares, dim=1).T)


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
