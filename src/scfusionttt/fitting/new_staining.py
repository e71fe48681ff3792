"""How strongly antibodies stain the batches of a query, estimated from the proteins that its RNA predicts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.kinds import evenly_drawn, kinds
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import SAMPLE_CELLS, matched_protein_counts
from scfusionttt.data.staining import CELLS_PER_KIND, MOST_KINDS, shrunk
from scfusionttt.inference import read_cells
from scfusionttt.nn.networks import Network
from scfusionttt.nn.tokens import CellInputs

#: Number of cells with which half of a batch's difference is kept.
PENALTY = 30.0
#: Typical error of a difference, where the effects of the batch on the RNA are not known.
ERROR = 0.7
#: Largest difference, a factor of about 150, and steps of bisection.
LARGEST, STEPS = 5.0, 30


def fit_new_staining(
    network: Network, cells: CellDataset, new: Sequence[int], device: torch.device, *, seed: int
) -> np.ndarray:
    """Return by how much more, in natural logarithms, each batch stains than the mean cell, [b, p]; 0 where unknown.

    In each kind of cells (a cluster of their RNA), this is the factor of the counts that brings the mean log-ratio to
    the one that the regressions on RNA predict. The result is the median over the kinds, so that neither another
    composition nor a type that the model does not know is taken for staining.

    Parameters
    ----------
    network
        Trained; without regressions of the proteins, nothing is known.
    cells
        The cells of the query, read as if all batches stained like the mean cell.
    new
        Levels of the first batch key, b of them.
    seed
        Draws a sample of the cells, if there are many.
    """
    found = np.zeros((len(new), len(cells.match.proteins)))
    backbone, cells = network.to(device).backbone, cells.with_rna()
    cells = cells.subset(cells.rows[np.isin(cells.batches[cells.rows, 0], new)])
    is_unknown = backbone.protein_head is None or not backbone.protein_head.is_fitted
    if is_unknown or (cells.match.proteins < 0).all() or not len(cells):
        return found
    cells = cells.subset(cells.rows[evenly_drawn(cells.batches[cells.rows], SAMPLE_CELLS, seed)]).loaded()

    def read(inputs: CellInputs) -> Tensor:
        return torch.cat([backbone.proteins_from_rna(inputs)[0], backbone.components(inputs.rna)], dim=1)

    values, scaler = read_cells(network, cells, device, read), cells.preprocessing.protein
    expected, components = np.split(values, [found.shape[1]], axis=1)
    expected = expected * scaler.std + scaler.mean
    counts = matched_protein_counts(cells.cite, cells.match)[cells.rows].astype(np.float64)
    ratios = counts / np.exp(cells.preprocessing.log_geometric_mean)
    assert backbone.protein_head is not None
    ratios[:, ~backbone.protein_head.margins.isfinite().all(dim=0).cpu().numpy()] = np.nan
    for row, level in enumerate(new):
        own = cells.batches[cells.rows, 0] == level
        if own.any():
            n_kinds = int(np.clip(own.sum() // CELLS_PER_KIND, 1, MOST_KINDS))
            degrees = kinds(components[own], np.empty((own.sum(), 0)), n_kinds, seed=seed)
            found[row] = _difference(ratios[own], expected[own], degrees)
    return shrunk(found, ERROR)


def _difference(ratios: np.ndarray, expected: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return the median over kinds of the x for which the mean of ``log1p(ratios / exp(x))`` is as expected, [p].

    `ratios`, NaN where not measured, and `expected` are [n, p]; `degrees` [n, k] is 1 for the kind of a cell, else 0.
    """
    kind, measured = degrees.argmax(axis=1), np.isfinite(ratios)
    n = degrees.T @ measured
    wanted, ratios = degrees.T @ np.where(measured, expected, 0.0), np.nan_to_num(ratios)
    low, high = np.full(n.shape, -LARGEST), np.full(n.shape, LARGEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        is_more = degrees.T @ np.log1p(ratios / np.exp(middle)[kind]) > wanted
        low, high = np.where(is_more, middle, low), np.where(is_more, high, middle)
    # Without counts, or where none are expected, no factor is right: such a kind only lies below or above the others.
    is_defined = (wanted > 0) & (degrees.T @ ratios > 0)
    order = middle.argsort(axis=0)
    up_to = np.take_along_axis(n, order, axis=0).cumsum(axis=0)
    place = (up_to < up_to[-1] / 2).sum(axis=0)
    chosen = np.take_along_axis(order, place[None], axis=0)
    median, is_known = (np.take_along_axis(values, chosen, axis=0)[0] for values in (middle, is_defined))
    return np.where(is_known, median * up_to[-1] / (up_to[-1] + PENALTY), 0.0)
