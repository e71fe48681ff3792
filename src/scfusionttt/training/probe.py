"""Start a classifier from the best head on the representation as it is: probing before fine-tuning.

A head that starts at random pulls the pretrained body out of shape while it finds its place (Kumar et al.,
arXiv 2202.10054); one that starts where the loss is least does not.
"""

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import stratified_split
from scfusionttt.nn.heads import KernelHead, gaussian_similarity
from scfusionttt.nn.inputs import CellInputs
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.training.classify import class_weights
from scfusionttt.training.inference import read_cells

#: Inverse strength of the L2 penalty, in the units of scikit-learn: of the line through z in units of its standard
#: deviations, and of the kernel machine, whose kernel is 1 at a distance of 0.
C_LINEAR = 1.0
C_KERNEL = 100.0
#: The kernel falls to exp(-SHARPNESS) at the median distance between landmarks.
SHARPNESS = 2.0
#: Weight of the values that the skip reads, which spread by 1, beside that kernel.
SKIP = 0.3
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
    """Set head and skip to the logistic regression of the classes on z, or its similarity to landmarks, and the view.

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
    z, skipping = _read(network, cells, device, rna_only=bool(hide_protein))
    if hide_protein:
        weights, codes = np.concatenate([(1 - hide_protein) * weights, hide_protein * weights]), np.tile(codes, 2)
    if not np.isfinite(z).all():  # the first step of training says what to do about it
        return
    if isinstance(network.head, KernelHead):
        features, back = _kernel_features(z, network.head, seed)
        strength = C_KERNEL
    else:
        deviation = z.std(axis=0).clip(min=1e-6)
        features, back, strength = z / deviation, np.diag(1 / deviation), C_LINEAR
    n_features, features = features.shape[1], np.hstack([features, SKIP * skipping])
    mean = features.mean(axis=0)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(features - mean, codes, sample_weight=weights)
    slopes = [fitted.coef_[:, :n_features] @ back, SKIP * fitted.coef_[:, n_features:]]
    _set(network, fitted.classes_, slopes, fitted.intercept_ - fitted.coef_ @ mean)


def _read(
    network: ClassifierNetwork, cells: CellDataset, device: torch.device, *, rna_only: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return z and what the skip reads, float64, of cells as measured and, with `rna_only`, by RNA alone as well."""

    def read(inputs: CellInputs) -> Tensor:
        fused = network.backbone(inputs)
        return torch.cat([fused.z, network.skipping(fused)], dim=1)

    views = [read_cells(network, cells, device, read)]
    if rna_only:
        views.append(read_cells(network, cells, device, lambda inputs: read(inputs.without_proteins())))
    found = np.concatenate(views).astype(float)
    return found[:, : network.backbone.n_latent], found[:, network.backbone.n_latent :]


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


def _set(network: ClassifierNetwork, classes: np.ndarray, slopes: list[np.ndarray], intercept: np.ndarray) -> None:
    """Write the regression's rows [c, m] to those of its classes; a class without a cell is never named."""
    if len(intercept) == 1:  # of two classes scikit-learn gives the difference
        intercept, *slopes = (np.concatenate([-half, half]) for half in (part / 2 for part in (intercept, *slopes)))
    with torch.no_grad():
        here = torch.as_tensor(classes, device=network.head.bias.device).long()
        network.head.bias.fill_(float(intercept.min()))
        network.head.bias[here] = torch.as_tensor(intercept).to(network.head.bias)
        for weight, slope in zip(network.slopes(), slopes, strict=False):  # without a skip the last is empty
            weight.zero_()
            weight[here] = torch.as_tensor(slope).to(weight)
