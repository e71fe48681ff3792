"""Cells unlike those that a model was trained on: p-values, and warnings of data sets that have many."""

import logging

import numpy as np
import torch
from torch import Tensor

from scfusionttt import inference
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.cohort import FEWEST
from scfusionttt.data.features import Match, match_features
from scfusionttt.data.loader import CellDataset, cell_dataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.networks import ClassifierNetwork, Network
from scfusionttt.nn.tokens import CellInputs

log = logging.getLogger("scfusionttt")

#: A cell with a p-value of at most this is unlike those that the model was trained on.
UNLIKE = 0.01
#: Fraction of such cells above which the user is warned.
MANY_UNLIKE = 0.2
#: A cell is far from the reference if its p-value is at most this.
FAR_P_VALUE = 0.05
#: Share of such cells above which a data set is taken for another study's.
MOST_FAR = 0.5
#: Most cells that a whole data set is judged by.
COMPARED = 500


def p_values(network: Network, dataset: CellDataset, device: torch.device) -> np.ndarray:
    """Return the fraction of the reference's cells that are at least as far from its landmarks, float32 [n].

    Of the effect of a batch, only what it adds to all kinds is removed: the shift of one kind may be that of cells
    without a counterpart.
    """
    backbone = network.to(device).backbone
    correction = backbone.correction
    assert correction is not None
    shifts = backbone.latent(correction.common_shift())

    def read(inputs: CellInputs) -> Tensor:
        cells = inference.visible_inputs(network, inputs)
        z = backbone(cells.without_batches()).z
        z = z - torch.where(inputs.batch[:, :, None] >= 0, shifts[inputs.batch], 0).sum(dim=1)
        return correction.p_value(correction.distance(z), ~cells.protein_present.any(dim=1))

    return inference.read_cells(network, dataset, device, read)


def far_share(network: Network, dataset: CellDataset, device: torch.device) -> float:
    """Return the share of cells with RNA far from all that a model without batches was trained on, 0 if unknown."""
    correction, cells = network.backbone.correction, dataset.with_rna()
    if dataset.batches.shape[1] or correction is None or not correction.is_fitted or len(cells) < FEWEST:
        return 0.0
    return float((p_values(network, _some(cells), device) <= FAR_P_VALUE).mean())


def warn_of_another_study(network: Network, dataset: CellDataset, device: torch.device) -> None:
    """Log a warning if most cells lie far from all that a model without batches was trained on."""
    share = far_share(network, dataset, device)
    if share > MOST_FAR:
        log.warning(
            "warning: %.0f %% of the cells lie far from all that the model was trained on (expected: %.0f %%); if they "
            "are of another study, embed them with map", 100 * share, 100 * FAR_P_VALUE,
        )  # fmt: skip


def warn_of_other_proteins(match: Match, p_value: np.ndarray) -> None:
    """Warn if many cells, read with their proteins, are unlike those that the classes were learned from."""
    unlike = (p_value <= UNLIKE).mean()
    if (match.proteins >= 0).any() and unlike > MANY_UNLIKE:
        log.warning(
            "warning: %.0f %% of the cells are unlike those that the classes were learned from (expected: %.0f %%). "
            "If their proteins are of another study, predict with rna_only=True (--rna-only), or map the cells",
            100 * unlike, 100 * UNLIKE,
        )  # fmt: skip


def warn_of_other_mixture(student: TrainedState, before: Preprocessing, cite: CiteSeq, device: torch.device) -> None:
    """Warn if a zero-shot student names many cells differently than with the model's own constants, `before`."""
    assert isinstance(student.network, ClassifierNetwork)
    match, batches = match_features(cite, student.features), student.cohort.no_codes(cite.rna.n_obs)
    classes = []
    for constants in (before, student.preprocessing):
        cells = cell_dataset(cite, match, constants, batches=batches)
        classes.append(inference.probabilities(student.network, _some(cells), device)[0].argmax(axis=1))
    changed = (classes[0] != classes[1]).mean()
    if changed > MANY_UNLIKE:
        log.warning(
            "warning: %.0f %% of the cells get another type because transfer scales genes by these cells. It is "
            "wrong if the cells lack many of the model's types, as sorted cells do: use annotate instead",
            100 * changed,
        )  # fmt: skip


def _some(cells: CellDataset) -> CellDataset:
    """Return at most `COMPARED` cells, at regular distances."""
    return cells.subset(cells.rows[:: -(-len(cells) // COMPARED)])
