"""Map a query into the embedding of a reference: its batches are added, and the reference stays as it is."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scfusionttt import inference, keys
from scfusionttt.data.cells import CiteSeq, require_rna
from scfusionttt.data.cohort import FEWEST, query_batches, warn_of_zeros
from scfusionttt.data.loader import CellDataset, cell_dataset
from scfusionttt.data.preprocess import matched_protein_counts
from scfusionttt.errors import SettingError, name_some
from scfusionttt.fitting.batch_correction import fit_new_batches
from scfusionttt.fitting.new_staining import fit_new_staining
from scfusionttt.model.dataset import dataset_for, log_staining
from scfusionttt.model.state import TrainedState
from scfusionttt.model.unlike import MANY_UNLIKE, UNLIKE
from scfusionttt.nn.networks import Network

if TYPE_CHECKING:
    from scfusionttt.model.fusionttt import FusionTTT

log = logging.getLogger("scfusionttt")


@dataclass(frozen=True, eq=False)
class Mapped:
    """A query in the embedding of a reference.

    Attributes
    ----------
    embedding
        float32 [n, d], comparable with the reference's.
    cells
        For each cell: batch, p_value (the fraction of the reference's cells that are at least as far from its
        landmarks, by RNA alone if the cell has no proteins; small: unlike the reference) and, if the model has classes,
        label and probability. Cells with some of the proteins have low p-values more often than they should.
    batches
        For each batch of the query: cells, effect (size of what was removed, relative to the spread of the kinds of
        cells), and the fraction of cells without a counterpart in the reference (p-value at most 0.01).
    model
        The model with the batches of the query, for cells whose ``obs`` names them in the model's first batch key. Its
        results for the reference are the same, bit for bit: if the reference has no batches, cells that are not named
        are embedded like the reference, otherwise like the last query without a name.
    """

    embedding: np.ndarray
    cells: pd.DataFrame
    batches: pd.DataFrame
    model: "FusionTTT"

    @property
    def columns(self) -> pd.DataFrame:
        """The values of `cells` under the names that they have in ``obs``."""
        names = {"p_value": keys.P_VALUE, "label": keys.LABEL, "probability": keys.PROBABILITY}
        return self.cells.drop(columns="batch").rename(columns=names)


def add_batches(
    state: TrainedState, cite: CiteSeq, batch_key: str | None, device: torch.device, *, rna_only: bool = False
) -> tuple[TrainedState, CellDataset, np.ndarray]:
    """Return the state with the query's batches, the query as a dataset, and the batch of each cell [n].

    With `rna_only`, the query's proteins are ignored.

    Raises
    ------
    SettingError
        The model does not know the kinds of cells that it was trained on.
    InputDataError
        Some cells have no RNA, and `rna_only` is set.
    """
    if rna_only:
        require_rna(cite, "mapping by RNA alone")
        cite = replace(cite, protein=None)
    known = state.network.backbone.correction
    if known is None or not known.is_fitted:
        raise SettingError(
            "mapping needs a model that knows its kinds of cells; this one is of an older version, of too few cells "
            "or of preset paper or scmmae without batches: pretrain it again"
        )
    names = query_batches(cite, batch_key, state.cohort)
    cohort, new = state.cohort.extended(names, batch_key or keys.INPUT)
    network = deepcopy(state.network)
    backbone = network.backbone
    assert backbone.correction is not None
    backbone.correction = backbone.correction.extended(len(new), new.start)
    backbone.sizes = replace(backbone.sizes, batch_levels=cohort.n_levels)
    extended = replace(state, network=network, cohort=cohort)
    dataset = dataset_for(extended, cite, batches=cohort.codes(cite.obs, names), by_rna=rna_only)
    if new:
        log.info("batches: %d new, of %s", len(new), name_some(sorted(set(names)), most=8))
        _warn_of_small(names[np.isin(dataset.batches[:, 0], new)])
        if inference.uses_proteins(network) and cite.protein is not None and cite.protein.X is not None:
            match = dataset.match
            counts = matched_protein_counts(cite, match)
            warn_of_zeros(counts, cite.protein.var_names[match.proteins], dataset.batches[:, 0], cohort)
        staining = fit_new_staining(network, dataset, new, device, seed=state.config.seed)
        if inference.uses_proteins(network):
            log_staining(np.vstack([np.zeros_like(staining[:1]), staining]))
        extended = replace(extended, preprocessing=state.preprocessing.with_staining(staining, new.start))
        if staining.any():
            dataset = cell_dataset(cite, dataset.match, extended.preprocessing, batches=dataset.batches)
        fit_new_batches(network, backbone.correction, dataset, new, device, seed=state.config.seed)
    return extended, dataset, names


def refuse_moved(state: TrainedState, extended: TrainedState) -> None:
    """Raise SettingError if learning from labels has moved the cells since the effects of the batches were fitted.

    The effect of a new batch cannot be told apart from that movement.
    """
    has_learned = len(state.history) > 0 and any(_moves_cells(state, stage) for stage in state.history["stage"])
    if state.cohort.is_trained and has_learned and state.cohort.levels != extended.cohort.levels:
        raise SettingError(
            "the network of this model learned labels after the effects of its batches were fitted "
            "(finetune.classifier=finetune): map new batches with the pretrained model, or use another classifier"
        )


def refuse_moving(state: TrainedState, stage: str) -> None:
    """Raise SettingError if learning from labels would move the cells away from kinds that queries were compared with.

    Without batches, kinds are fitted again after that, but the effects of mapped batches cannot be.
    """
    has_mapped_alone = state.cohort.levels and not state.cohort.is_trained
    if has_mapped_alone and state.config.finetune.classifier == "finetune" and _moves_cells(state, stage):
        raise SettingError(
            f"batches were mapped to this model ({name_some(state.cohort.mapped)}), and their effects would not hold "
            "for a network that learns labels (finetune.classifier=finetune): use the model as it was before map, or "
            "another classifier"
        )


def _moves_cells(state: TrainedState, stage: str) -> bool:
    """Return whether a network that learns in this stage moves the cells: a student learns its projection alone."""
    return stage == "finetune" or (stage == "transfer" and state.network.backbone.protein_encoder is not None)


def by_batch(network: Network, codes: np.ndarray, names: np.ndarray, p_value: np.ndarray) -> pd.DataFrame:
    """Return the table `Mapped.batches`, and log a warning of batches that hardly fit."""
    backbone = network.cpu().backbone
    correction = backbone.correction
    assert correction is not None
    centroids = backbone.latent(correction.centroids)
    spread = (centroids - centroids.mean(dim=0)).norm(dim=1).mean()
    rows = {}
    for level, name in sorted(set(zip(codes.tolist(), names))):
        own = codes == level
        effect = backbone.latent(correction.shifts[level]).norm(dim=1).mean() / spread
        alone = float((p_value[own] <= UNLIKE).mean())
        rows[name] = {"cells": int(own.sum()), "effect": float(effect), "without_counterpart": alone}
    unlike = [f"'{name}' ({row['without_counterpart']:.0%})" for name, row in rows.items() if _is_unlike(row)]
    if unlike:
        by_rna = ", and map with rna_only=True (--rna-only) if many of the model's proteins were not measured"
        log.warning(
            "warning: many cells of these batches have no counterpart in the reference: %s; expected: %.0f %%; check "
            "species and tissue%s", name_some(unlike), 100 * UNLIKE, by_rna if inference.uses_proteins(network) else "",
        )  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("batch")


def _warn_of_small(names: np.ndarray) -> None:
    sizes = pd.Series(names, dtype=object).value_counts()
    small = [f"'{name}' ({n})" for name, n in sizes[sizes < FEWEST].items()]
    if small:
        log.warning(
            "warning: batches of fewer than %d cells, whose effect can hardly be estimated: %s",
            FEWEST, name_some(small),
        )  # fmt: skip


def _is_unlike(row: Mapping[str, float]) -> bool:
    return row["cells"] >= FEWEST and row["without_counterpart"] > MANY_UNLIKE
