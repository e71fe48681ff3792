"""Start a classifier from the best head on the representation as it is: linear probing before fine-tuning.

A head that starts at random pulls the pretrained body out of shape while it finds its place (Kumar et al.,
arXiv 2202.10054); one that starts where the loss is least does not.
"""

import numpy as np
import torch

from scfusionttt.data.loader import CellDataset
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.training.classify import class_weights
from scfusionttt.training.inference import embed

#: Inverse strength of the L2 penalty, in the units of scikit-learn, on z in units of its standard deviations.
C = 1.0


def fit_head(
    network: ClassifierNetwork, cells: CellDataset, device: torch.device, *, hide_protein: float, class_balance: bool
) -> None:
    """Set the head to the logistic regression of the classes on z; the body stays as it is.

    Parameters
    ----------
    network
        Its head has one output per class.
    cells
        Labelled cells to learn from.
    hide_protein
        Weight of each cell as seen by RNA alone, 1 - hide_protein that of the cell with its proteins.
    class_balance
        Weigh classes by 1 / sqrt(cells).
    """
    from sklearn.linear_model import LogisticRegression

    codes = cells.labels[cells.rows]
    if len(np.unique(codes)) < 2:
        return
    weights = class_weights(np.bincount(codes), balance=class_balance)[codes]
    z, weights, codes = _views(network, cells, device, weights, codes, hide_protein)
    if not np.isfinite(z).all():  # the first step of training says what to do about it
        return
    mean, deviation = z.mean(axis=0), z.std(axis=0).clip(min=1e-6)
    fitted = LogisticRegression(C=C, max_iter=1000).fit((z - mean) / deviation, codes, sample_weight=weights)
    slope, intercept = fitted.coef_, fitted.intercept_
    if len(slope) == 1:  # of two classes scikit-learn gives the difference
        slope, intercept = (np.concatenate([-half, half]) for half in (slope / 2, intercept / 2))
    slope = slope / deviation
    intercept = intercept - slope @ mean
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(float(intercept.min()))  # a class without a cell to learn from
        here = torch.as_tensor(fitted.classes_, device=network.head.bias.device).long()
        network.head.weight[here] = torch.as_tensor(slope).to(network.head.weight)
        network.head.bias[here] = torch.as_tensor(intercept).to(network.head.bias)


def _views(network, cells, device, weights, codes, hide_protein):
    """Return z, weight and code of every cell as measured and, where asked for, as seen by RNA alone."""
    z = embed(network, cells, device)
    if not hide_protein:
        return z.astype(float), weights, codes
    rna = embed(network, cells, device, rna_only=True)
    both = np.concatenate([z, rna]).astype(float)
    return both, np.concatenate([(1 - hide_protein) * weights, hide_protein * weights]), np.tile(codes, 2)
