"""Cells as values of a model's features: how these are learned, and the dataset of a model."""

import logging
from collections.abc import Iterable

import numpy as np

from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq, has_rna
from scfusionttt.data.cohort import FEWEST, Cohort
from scfusionttt.data.features import Features, Match, choose_features, match_features
from scfusionttt.data.findings import named
from scfusionttt.data.loader import CellDataset, cell_dataset
from scfusionttt.data.preprocess import Preprocessing, matched_protein_counts
from scfusionttt.errors import InputDataError, name_some
from scfusionttt.fitting.placement import FEWEST_CELLS
from scfusionttt.model.state import TrainedState

log = logging.getLogger("scfusionttt")

#: Fewest proteins to place a cell without RNA by.
FEWEST_PROTEINS = 5


def learn_features(
    cite: CiteSeq, config: Config, species: str | None, cohort: Cohort | None = None
) -> tuple[Features, Preprocessing]:
    """Return the features that a new model reads, in order, and the constants that scale their values."""
    features, notes = choose_features(cite, config.data, species=species)
    _log_notes(notes)
    match = match_features(cite, features)
    preprocessing = Preprocessing.fit(cite, match, config.data, cohort, seed=config.seed)
    log_staining(preprocessing.staining)
    return features, preprocessing


def log_staining(staining: np.ndarray) -> None:
    """Log by how much the staining of batches differs, given in natural logarithms [b, p], if it does."""
    if staining.any():
        between = np.ptp(staining[:, staining.any(axis=0)], axis=0)  # without proteins that were not compared
        log.info(
            "batches: antibodies stain them differently, by a factor of %.1f in the median and of at most %.0f; their "
            "counts are brought to one scale", np.exp(np.median(between)), np.exp(between.max()),
        )  # fmt: skip


def adapt_preprocessing(cite: CiteSeq, state: TrainedState) -> Preprocessing:
    """Return the model's constants with the mean and deviation of each gene taken from new cells."""
    return state.preprocessing.adapted(cite, match_features(cite, state.features), state.config.data)


def make_dataset(
    cite: CiteSeq, features: Features, preprocessing: Preprocessing, cohort: Cohort | None = None
) -> CellDataset:
    """Return the cells as values of the model's features, from which batches are drawn."""
    batches = None if cohort is None else cohort.codes(cite.obs)
    return cell_dataset(cite, match_features(cite, features), preprocessing, batches=batches)


def dataset_for(
    state: TrainedState,
    cite: CiteSeq,
    codes: np.ndarray | None = None,
    *,
    batches: np.ndarray | None = None,
    by_rna: bool = False,
) -> CellDataset:
    """Return the dataset of a trained model, and log how many of its features the cells have.

    `batches` are the levels of the cells in the batch keys [n, keys]; None: those that their obs columns name.
    `by_rna` says that no measured protein will be read: nothing is logged of them. `codes` are given to train on.
    """
    if batches is None:
        batches = state.cohort.codes(cite.obs)
    match = match_features(cite, state.features)
    by_rna = by_rna or state.stage == "transfer"
    _log_notes(match.notes[:1] if by_rna else match.notes)
    _require_placeable(state, cite, match)
    n_proteins = len(match.proteins)
    if not by_rna and n_proteins and (match.proteins < 0).all():
        log.info("proteins: 0 of %d measured; the model reads RNA alone", n_proteins)
    if not by_rna and codes is None:
        _warn_of_zeros(cite, match)
    return cell_dataset(cite, match, state.preprocessing, labels=codes, batches=batches)


def _warn_of_zeros(cite: CiteSeq, match: Match) -> None:
    """Warn of proteins of the model that no cell has counts of, as if a tool had filled in what was not measured."""
    if cite.protein is None or cite.protein.X is None:  # the counts of a store are on disk
        return
    columns = match.proteins[match.proteins >= 0]
    counts = cite.protein.X[:, columns]
    zero = (np.isfinite(counts).sum(axis=0) >= FEWEST) & ~(counts > 0).any(axis=0)
    if zero.any():
        log.warning(
            "warning: all counts are zero for %s, treated as measured; use NaN for proteins not measured",
            named(list(cite.protein.var_names[columns[zero]]), "protein"),
        )


def _require_placeable(state: TrainedState, cite: CiteSeq, match: Match) -> None:
    """Raise an error if there are cells without RNA that the model cannot place by their proteins."""
    lacks_rna = ~has_rna(cite.rna)
    if not lacks_rna.any():
        return
    subject, remedy = f"{lacks_rna.sum()} cells have no RNA, and", "leave them out with cells='rna'"
    if not len(match.proteins):
        raise InputDataError(f"{subject} this model was trained without proteins; {remedy}")
    if state.stage == "transfer":
        raise InputDataError(f"{subject} a student of transfer reads RNA alone; use the model before it, or {remedy}")
    placement = state.network.backbone.placement
    if placement is None or not placement.is_fitted:
        raise InputDataError(
            f"{subject} this model cannot place cells by their proteins, like all of earlier versions and of preset "
            f"paper, and those whose network learned labels of fewer than {FEWEST_CELLS} cells with proteins "
            f"(finetune.classifier=finetune); train it again with this version, or {remedy}"
        )
    n_measured = (~np.isnan(matched_protein_counts(cite, match)[lacks_rna])).sum(axis=1)
    few = n_measured < FEWEST_PROTEINS
    if few.any():
        raise InputDataError(
            f"{few.sum()} of the cells without RNA have fewer than {FEWEST_PROTEINS} of the model's "
            f"{len(match.proteins)} proteins ({name_some(list(cite.rna.obs_names[lacks_rna][few]))}), too few to place "
            f"them by; {remedy}"
        )


def log_genes(cite: CiteSeq, state: TrainedState) -> None:
    """Log how many of the model's genes the cells have."""
    _log_notes(match_features(cite, state.features).notes[:1])


def _log_notes(notes: Iterable[str]) -> None:
    """Log what the user should know."""
    for note in notes:
        log.info(note)
