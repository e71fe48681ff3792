"""The best head on the representation as it is: instead of fine-tuning, or to start it from.

A head that starts at random pulls the pretrained body out of shape while it finds its place (Kumar et al.,
arXiv 2202.10054); one that starts where the loss is least does not.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import NonFiniteLossError, name_some
from scfusionttt.fitting.calibration import best_temperature, set_novelty
from scfusionttt.inference import looks_at_proteins, read_cells
from scfusionttt.nn.heads import KernelHead, gaussian_similarity
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.classify import class_weights

#: Inverse strength of the L2 penalty, in the units of scikit-learn: of the line through z in units of its standard
#: deviations, and of the kernel machine, whose kernel is 1 at a distance of 0.
C_LINEAR = 1.0
C_KERNEL = 30.0
#: The kernel falls to exp(-SHARPNESS) at the median distance between landmarks.
SHARPNESS = 2.0
#: Weight of the values that the skip reads, which spread by 1, beside that kernel.
SKIP = 0.3
#: Cells that the regression is fitted on; more change it little.
MOST_CELLS = 20_000
#: Share of the cells that is held out to calibrate on, and how often: of many cells once is enough.
HELD_OUT = 0.2
TIMES, MANY_CELLS = 5, 5000
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

    It is fitted to all cells; temperature and novelty come from fits of the same kind with some of the cells held out.
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
        Draws the landmarks and the cells held out.

    Raises
    ------
    NonFiniteLossError
        A cell's representation is not finite; the message names the cells.
    """
    if len(cells) > MOST_CELLS:
        kept, _ = stratified_split(cells.labels[cells.rows], fraction=MOST_CELLS / len(cells), seed=seed)
        cells = cells.subset(cells.rows[kept])
    codes = cells.labels[cells.rows]
    if len(np.unique(codes)) < 2:
        return
    views = _read(network, cells, device)
    n_latent = network.backbone.n_latent
    turns = _turns(codes, seed)
    if turns:
        set_novelty(network, views[0][:, :n_latent], views[-1][:, :n_latent], codes, turns)

    shares = [1 - hide_protein, hide_protein][: len(views)] if hide_protein else [1.0]
    seen = np.concatenate(views[: len(shares)])
    features, back, strength = _features(network, seen[:, :n_latent], seed)
    problem = _Problem(
        np.hstack([features, SKIP * seen[:, n_latent:]]),
        codes, class_weights(np.bincount(codes), balance=class_balance)[codes], shares, strength,
    )  # fmt: skip
    temperature = 1.0
    if turns:
        told = [(problem.scores(problem.fit(rows), held_out), problem.classes[held_out]) for rows, held_out in turns]
        temperature = best_temperature(*(np.concatenate(parts) for parts in zip(*told, strict=True)))
    slopes, intercept = (part / temperature for part in problem.fit(np.arange(len(codes))))
    n_features = features.shape[1]
    _set(network, np.unique(codes), [slopes[:, :n_features] @ back, SKIP * slopes[:, n_features:]], intercept)


def _turns(codes: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows to fit and rows to hold out, a class's only cell never; none where each class has but one."""
    splits = [
        stratified_split(codes, fraction=1 - HELD_OUT, seed=seed + turn)
        for turn in range(TIMES if len(codes) <= MANY_CELLS else 1)
    ]
    return [(rows, held_out) for rows, held_out in splits if len(held_out)]


@dataclass(frozen=True)
class _Problem:
    """Features of n cells, as seen in each of v ways, [v * n, m], their codes and weights, [n], and a weight a way."""

    features: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    shares: list[float]
    strength: float

    @property
    def classes(self) -> np.ndarray:
        """Codes [n] among the classes that there are."""
        return np.unique(self.codes, return_inverse=True)[1]

    def fit(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return slopes [c, m] and intercepts [c] of the regression on these cells, of each class one."""
        from sklearn.linear_model import LogisticRegression

        seen = self.features[np.concatenate([rows + view * len(self.codes) for view in range(len(self.shares))])]
        mean = seen.mean(axis=0)
        fitted = LogisticRegression(C=self.strength, max_iter=1000).fit(
            seen - mean,
            np.tile(self.codes[rows], len(self.shares)),
            sample_weight=np.outer(self.shares, self.weights[rows]).ravel(),
        )
        slopes, intercept = fitted.coef_, fitted.intercept_ - fitted.coef_ @ mean
        if len(intercept) == 1:  # of two classes scikit-learn gives the difference
            slopes, intercept = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-intercept, intercept]) / 2
        return slopes, intercept

    def scores(self, fitted: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the class scores [n, c] of these cells as measured."""
        slopes, intercept = fitted
        return self.features[rows] @ slopes.T + intercept


def _read(network: ClassifierNetwork, cells: CellDataset, device: torch.device) -> list[np.ndarray]:
    """Return z beside what the skip reads, float64 [n, l + k], as measured and, where it differs, by RNA alone."""

    def read(inputs: CellInputs) -> Tensor:
        _, fused = network(inputs)
        return torch.cat([fused.z, network.skipping(fused)], dim=1)

    views = [read_cells(network, cells, device, read)]
    if looks_at_proteins(network):
        views.append(read_cells(network, cells, device, lambda inputs: read(inputs.without_proteins())))
    broken = ~np.all([np.isfinite(view).all(axis=1) for view in views], axis=0)
    if broken.any():
        raise NonFiniteLossError(
            f"the representation is not finite of {broken.sum()} of {len(broken)} cells "
            f"({name_some(cells.cell_names[cells.rows[broken]].tolist())}); look at these cells with "
            "`scfusionttt validate`, or pretrain again with a lower pretrain.lr"
        )
    return [view.astype(float) for view in views]


def _features(network: ClassifierNetwork, z: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what a line is drawn through [n, m], the map [m, m'] from its slopes to the head's, and its C."""
    if isinstance(network.head, KernelHead):
        return *_kernel_features(z, network.head, seed), C_KERNEL
    deviation = z.std(axis=0).clip(min=1e-6)
    return z / deviation, np.diag(1 / deviation), C_LINEAR


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
    with torch.no_grad():
        here = torch.as_tensor(classes, device=network.head.bias.device).long()
        network.head.bias.fill_(float(intercept.min()))
        network.head.bias[here] = torch.as_tensor(intercept).to(network.head.bias)
        for weight, slope in zip(network.slopes(), slopes, strict=False):  # without a skip the last is empty
            weight.zero_()
            weight[here] = torch.as_tensor(slope).to(weight)
