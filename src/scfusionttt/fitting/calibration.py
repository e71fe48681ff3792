"""After stages 2 and 3: calibrate the probabilities and the p-values that identify unknown cells."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from scfusionttt.data.loader import CellDataset
from scfusionttt.inference import class_scores, latent, uses_proteins
from scfusionttt.nn.networks import ClassifierNetwork

#: Candidate temperatures; unbounded, few cells could lead to extreme ones.
TEMPERATURES = torch.logspace(-1, 1, 81, base=2, dtype=torch.float64)
#: Ridge added to the covariance within classes, relative to the mean variance, so that it can be inverted.
SHRINKAGE = 1e-3


def calibrate(network: ClassifierNetwork, train: CellDataset, held_back: CellDataset, device: torch.device) -> None:
    """Set the temperature and the novelty of a trained classifier; the predicted classes stay the same.

    Parameters
    ----------
    train
        The cells that it was trained on.
    held_back
        Labelled cells not used in training: they give the temperature and the null distribution of the distances.
    """
    scores = class_scores(network, held_back, device)
    both = train.subset(np.concatenate([train.rows, held_back.rows]))
    z = latent(network, both, device)
    if not np.isfinite(z).all():
        return
    by_rna = latent(network, both, device, rna_only=True) if uses_proteins(network) else z
    network.cpu()
    codes = both.labels[both.rows]
    temperature = best_temperature(scores, codes[len(train) :])
    with torch.no_grad():
        for weights in (network.head.bias, *network.slopes()):
            weights.div_(temperature)
    set_novelty(network, z, by_rna, codes, [(np.arange(len(train)), np.arange(len(train), len(both)))])


def best_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature of scores [n, c] with the least cross-entropy (Guo et al., arXiv 1706.04599)."""
    logits, labels = torch.from_numpy(scores).double(), torch.from_numpy(codes).long()
    losses = torch.stack([cross_entropy(logits / temperature, labels) for temperature in TEMPERATURES])
    return float(TEMPERATURES[losses.argmin()])


def set_novelty(
    network: ClassifierNetwork,
    z: np.ndarray,
    by_rna: np.ndarray,
    codes: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Set the means and covariance of the classes, and the null distribution of distances from held-out cells.

    Parameters
    ----------
    z, by_rna
        Labelled cells as measured and by RNA alone, [n, l].
    codes
        Their classes, [n].
    folds
        Rows to estimate means and covariance from, and held-out rows whose distances are taken.
    """
    novelty, labels = network.novelty.cpu(), torch.from_numpy(codes).long()
    measured, rna_only = (torch.from_numpy(cells).double() for cells in (z, by_rna))
    distances = []
    for rows, held_out in folds:
        _set_classes(network, measured[rows], labels[rows])
        distances.append(torch.stack([novelty(cells[held_out].float()) for cells in (measured, rna_only)]))
    _set_classes(network, measured, labels)
    levels = torch.linspace(0, 1, novelty.N_QUANTILES)
    novelty.quantiles.copy_(torch.cat(distances, dim=1).quantile(levels, dim=1).T)


def _set_classes(network: ClassifierNetwork, z: Tensor, codes: Tensor) -> None:
    """Set the means of the classes, and the root of the inverse covariance within them."""
    classes = codes.unique()
    means = torch.stack([z[codes == code].mean(dim=0) for code in classes])
    network.novelty.means[classes] = means.float()
    inner = z - means[torch.searchsorted(classes, codes)]
    covariance = inner.T @ inner / len(z)
    variances, axes = torch.linalg.eigh(covariance)
    variances = variances.clamp(min=0) + SHRINKAGE * variances.mean().clamp(min=1e-12)
    network.novelty.whitening.copy_((axes / variances.sqrt()).float())
