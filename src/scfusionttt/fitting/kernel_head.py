"""Fit the head of a classifier to the latent vectors: instead of fine-tuning, or before it.

Fine-tuning from a random head distorts the pretrained body (Kumar et al., arXiv 2202.10054); from a fitted head it does
not.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import NonFiniteLossError, name_some
from scfusionttt.fitting.calibration import best_temperature, set_novelty
from scfusionttt.fitting.nystroem import draw_landmarks, kernel_features
from scfusionttt.inference import read_cells, uses_proteins
from scfusionttt.nn.heads import KernelHead
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.classify import class_weights

#: Inverse L2 penalty, as in scikit-learn: of the linear head on standardised z, and of the kernel head, whose kernel is
#: 1 at distance 0.
C_LINEAR = 1.0
C_KERNEL = 30.0
#: The kernel falls to exp(-SHARPNESS) at the median distance between landmarks.
SHARPNESS = 2.0
#: Weight of the PCA skip's values, which have unit variance, relative to the kernel.
SKIP = 0.3
#: Most cells to fit the regression to; more change little.
MOST_CELLS = 20_000
#: Fraction of the cells held out for calibration, and repeats; with many cells one is enough.
HELD_OUT = 0.2
REPEATS, MANY_CELLS = 5, 5000


def fit_head(
    network: ClassifierNetwork,
    cells: CellDataset,
    device: torch.device,
    *,
    hide_protein: float,
    class_balance: bool,
    seed: int,
) -> None:
    """Fit head and skip: logistic regression of the classes on z, or on its similarity to landmarks, and the PCA skip.

    They are fitted to all cells; temperature and novelty come from fits with some of the cells held out. The body stays
    as it is.

    Parameters
    ----------
    network
        A classifier; its head has one output per class.
    cells
        Labelled cells.
    hide_protein
        Weight of each cell by its RNA alone; the cell with its proteins has the weight 1 - hide_protein.
    class_balance
        Weight classes by 1 / sqrt(cells).
    seed
        Draws the landmarks and the held-out cells.

    Raises
    ------
    NonFiniteLossError
        The latent vector of some cells is not finite; the message names them.
    """
    if len(cells) > MOST_CELLS:
        kept, _ = stratified_split(cells.labels[cells.rows], fraction=MOST_CELLS / len(cells), seed=seed)
        cells = cells.subset(cells.rows[kept])
    codes = cells.labels[cells.rows]
    if len(np.unique(codes)) < 2:
        return
    views = _read(network, cells, device)
    n_latent = network.backbone.n_latent
    folds = _folds(codes, seed)
    if folds:
        set_novelty(network, views[0][:, :n_latent], views[-1][:, :n_latent], codes, folds)

    shares = [1 - hide_protein, hide_protein][: len(views)] if hide_protein else [1.0]
    seen = np.concatenate(views[: len(shares)])
    features, back, strength = _features(network, seen[:, :n_latent], seed)
    problem = _Problem(
        np.hstack([features, SKIP * seen[:, n_latent:]]),
        codes, class_weights(np.bincount(codes), balance=class_balance)[codes], shares, strength,
    )  # fmt: skip
    temperature = 1.0
    if folds:
        results = [(problem.scores(problem.fit(rows), held_out), problem.classes[held_out]) for rows, held_out in folds]
        temperature = best_temperature(*(np.concatenate(parts) for parts in zip(*results, strict=True)))
    slopes, intercept = (part / temperature for part in problem.fit(np.arange(len(codes))))
    n_features = features.shape[1]
    _set(network, np.unique(codes), [slopes[:, :n_features] @ back, SKIP * slopes[:, n_features:]], intercept)


def _folds(codes: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of rows to fit and rows to hold out, never the only cell of a class; empty if nothing is left."""
    splits = [
        stratified_split(codes, fraction=1 - HELD_OUT, seed=seed + fold)
        for fold in range(REPEATS if len(codes) <= MANY_CELLS else 1)
    ]
    return [(rows, held_out) for rows, held_out in splits if len(held_out)]


@dataclass(frozen=True)
class _Problem:
    """Features of n cells in v views (as measured, by RNA alone), [v * n, m]; codes and weights [n]; v view weights."""

    features: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    shares: list[float]
    strength: float

    @property
    def classes(self) -> np.ndarray:
        """Codes [n] renumbered without gaps."""
        return np.unique(self.codes, return_inverse=True)[1]

    def fit(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return slopes [c, m] and intercepts [c] of the regression on these cells, one per class."""
        from sklearn.linear_model import LogisticRegression

        seen = self.features[np.concatenate([rows + view * len(self.codes) for view in range(len(self.shares))])]
        mean = seen.mean(axis=0)
        fitted = LogisticRegression(C=self.strength, max_iter=1000).fit(
            seen - mean,
            np.tile(self.codes[rows], len(self.shares)),
            sample_weight=np.outer(self.shares, self.weights[rows]).ravel(),
        )
        slopes, intercept = fitted.coef_, fitted.intercept_ - fitted.coef_ @ mean
        if len(intercept) == 1:  # for two classes scikit-learn gives the difference
            slopes, intercept = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-intercept, intercept]) / 2
        return slopes, intercept

    def scores(self, fitted: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the class scores [n, c] of these cells as measured."""
        slopes, intercept = fitted
        return self.features[rows] @ slopes.T + intercept


def _read(network: ClassifierNetwork, cells: CellDataset, device: torch.device) -> list[np.ndarray]:
    """Return z and the skip's inputs, float64 [n, l + k], as measured and, if that differs, by RNA alone."""

    def read(inputs: CellInputs) -> Tensor:
        _, fused = network(inputs)
        return torch.cat([fused.z, network.skipping(fused)], dim=1)

    views = [read_cells(network, cells, device, read)]
    if uses_proteins(network):
        views.append(read_cells(network, cells, device, lambda inputs: read(inputs.without_proteins())))
    broken = ~np.all([np.isfinite(view).all(axis=1) for view in views], axis=0)
    if broken.any():
        raise NonFiniteLossError(
            f"the latent vector is not finite in {broken.sum()} of {len(broken)} cells "
            f"({name_some(cells.cell_names[cells.rows[broken]].tolist())}); check them with "
            "`scfusionttt validate`, or pretrain again with a lower pretrain.lr"
        )
    return [view.astype(float) for view in views]


def _features(network: ClassifierNetwork, z: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the regression's features [n, m], the map [m, m'] from its slopes to the head's, and its C."""
    if isinstance(network.head, KernelHead):
        return *_kernel_features(z, network.head, seed), C_KERNEL
    deviation = z.std(axis=0).clip(min=1e-6)
    return z / deviation, np.diag(1 / deviation), C_LINEAR


def _kernel_features(z: np.ndarray, head: KernelHead, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Place the landmarks; return features whose inner products are the kernel, and the map to them."""
    with torch.no_grad():
        head.landmarks.copy_(torch.from_numpy(z[draw_landmarks(len(z), head.in_features, seed)]))
        features, back, gamma = kernel_features(z, head.landmarks, sharpness=SHARPNESS)
        head.gamma.fill_(gamma)
    return features, back


def _set(network: ClassifierNetwork, classes: np.ndarray, slopes: list[np.ndarray], intercept: np.ndarray) -> None:
    """Copy the regression's rows [c, m] to those of its classes; a class without cells is never predicted."""
    with torch.no_grad():
        present = torch.as_tensor(classes, device=network.head.bias.device).long()
        network.head.bias.fill_(float(intercept.min()))
        network.head.bias[present] = torch.as_tensor(intercept).to(network.head.bias)
        for weight, slope in zip(network.slopes(), slopes, strict=False):  # without a skip the last is empty
            weight.zero_()
            weight[present] = torch.as_tensor(slope).to(weight)
