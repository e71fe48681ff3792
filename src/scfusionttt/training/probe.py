"""Start a classifier from the best head on the representation as it is: probing before fine-tuning.

A head that starts at random pulls the pretrained body out of shape while it finds its place (Kumar et al.,
arXiv 2202.10054); one that starts where the loss is least does not.
"""

import numpy as np
import torch
from torch import nn

from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import stratified_split
from scfusionttt.nn.heads import KernelHead, gaussian_similarity
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.training.classify import class_weights
from scfusionttt.training.inference import embed

#: Inverse strength of the L2 penalty, in the units of scikit-learn: of the line through z in units of its standard
#: deviations, and of the kernel machine, whose kernel is 1 at a distance of 0.
C_LINEAR = 1.0
C_KERNEL = 100.0
#: The kernel falls to exp(-SHARPNESS) at the median distance between landmarks.
SHARPNESS = 2.0
#: Cells that the regression is fitted on; more change it little.
MOST_CELLS = 20_000
#: Directions of the landmarks' kernel below this eigenvalue are noise of rounding.
FLOOR = 1e-6


def fit_head(
    network: ClassifierNetwork,
    cells: CellDataset,
    device: torch.device,
    *,
    hide_protein: float,
    class_balance: bool,
    seed: int,
) -> None:
    """Set the head to the logistic regression of the classes on z, or on its similarity to landmarks drawn from z.

    The body stays as it is.

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
    seed
        Draws the landmarks.
    """
    from sklearn.linear_model import LogisticRegression

    if len(cells) > MOST_CELLS:
        kept, _ = stratified_split(cells.labels[cells.rows], fraction=MOST_CELLS / len(cells), seed=seed)
        cells = cells.subset(cells.rows[kept])
    codes = cells.labels[cells.rows]
    if len(np.unique(codes)) < 2:
        return
    weights = class_weights(np.bincount(codes), balance=class_balance)[codes]
    z, weights, codes = _views(network, cells, device, weights, codes, hide_protein)
    if not np.isfinite(z).all():  # the first step of training says what to do about it
        return
    if isinstance(network.head, KernelHead):
        features, back = _kernel_features(z, network.head, seed)
        strength = C_KERNEL
    else:
        deviation = z.std(axis=0).clip(min=1e-6)
        features, back, strength = z / deviation, np.diag(1 / deviation), C_LINEAR
    mean = features.mean(axis=0)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(features - mean, codes, sample_weight=weights)
    _set(network.head, fitted.classes_, fitted.coef_ @ back, fitted.intercept_ - fitted.coef_ @ mean)


def _views(network, cells, device, weights, codes, hide_protein):
    """Return z, weight and code of every cell as measured and, where asked for, as seen by RNA alone."""
    z = embed(network, cells, device)
    if not hide_protein:
        return z.astype(float), weights, codes
    rna = embed(network, cells, device, rna_only=True)
    both = np.concatenate([z, rna]).astype(float)
    return both, np.concatenate([(1 - hide_protein) * weights, hide_protein * weights]), np.tile(codes, 2)


def _kernel_features(z: np.ndarray, head: KernelHead, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Place the landmarks; return features whose inner products are the kernel (Nystroem), and the map to them.

    Returns
    -------
    features [n, m] and ``back`` [m, m] with ``features = similarity @ back.T``.
    """
    n_landmarks = head.in_features
    drawn = np.random.default_rng(seed).choice(len(z), n_landmarks, replace=len(z) < n_landmarks)
    with torch.no_grad():
        head.landmarks.copy_(torch.from_numpy(z[drawn]))
        landmarks = head.landmarks.double().cpu()
        squares = torch.cdist(landmarks, landmarks).square()
        apart = squares[squares > 0]
        head.gamma.fill_(SHARPNESS / float(apart.median()) if len(apart) else 1.0)
        gamma = head.gamma.double().cpu()
        scale, axes = torch.linalg.eigh((-gamma * squares).exp())
        back = (axes / scale.clamp(min=FLOOR).sqrt()).T
        return (gaussian_similarity(torch.from_numpy(z), landmarks, gamma) @ back.T).numpy(), back.numpy()


def _set(head: nn.Linear, classes: np.ndarray, slope: np.ndarray, intercept: np.ndarray) -> None:
    """Write the regression's rows [c, m] to those of its classes; a class without a cell is never named."""
    if len(slope) == 1:  # of two classes scikit-learn gives the difference
        slope, intercept = (np.concatenate([-half, half]) for half in (slope / 2, intercept / 2))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(float(intercept.min()))
        here = torch.as_tensor(classes, device=head.bias.device).long()
        head.weight[here] = torch.as_tensor(slope).to(head.weight)
        head.bias[here] = torch.as_tensor(intercept).to(head.bias)
