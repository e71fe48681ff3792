"""The pipeline from data to results, one function per step, in the order in which FusionTTT calls them.

checked cells -> features -> dataset -> network -> training and fits (`model.stages`) -> scores and predictions
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, Unpack

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from scfusionttt import inference, keys
from scfusionttt.config import Config, Sizes
from scfusionttt.data.assemble import CountOptions, assemble
from scfusionttt.data.cells import CiteSeq, has_rna
from scfusionttt.data.cohort import FEWEST, Cohort
from scfusionttt.data.features import Features, Match, choose_features, match_features
from scfusionttt.data.findings import named, raise_or_warn, require_usable
from scfusionttt.data.loader import CellDataset, StreamedCells, cell_dataset
from scfusionttt.data.preprocess import SAMPLE_CELLS, Preprocessing, matched_protein_counts
from scfusionttt.data.split import train_and_held_out
from scfusionttt.data.store.stored import StoredCiteSeq
from scfusionttt.data.validate import check
from scfusionttt.data.validate import drop_empty as without_empty
from scfusionttt.errors import InputDataError, SettingError, name_some
from scfusionttt.evaluation import baselines, evaluate_predictions
from scfusionttt.fitting.batch_correction import n_kinds
from scfusionttt.fitting.placement import FEWEST_CELLS
from scfusionttt.labels import usable_labels
from scfusionttt.model.scvi_names import ARGUMENTS
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.heads import KernelHead
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork, build_network, carry_over

log = logging.getLogger("scfusionttt")

Data: TypeAlias = "AnnData | MuData | CiteSeq"

#: Landmark cells of the protein head.
PROTEIN_LANDMARKS = 1000
#: Columns of a table of predictions that are not classes, and the name of its index.
_COLUMNS = ("cell", "label", "probability", "p_value")
#: Fewest proteins to place a cell without RNA by.
FEWEST_PROTEINS = 5
#: A cell with a p-value of at most this is unlike those that the model was trained on.
UNLIKE = 0.01
#: Fraction of such cells above which the user is warned.
MANY_UNLIKE = 0.2
#: Most cells that a whole data set is judged by.
COMPARED = 500


class InputOptions(CountOptions, total=False):
    """How to read AnnData or MuData; every method of FusionTTT that takes data takes these keyword arguments."""

    #: Leave out cells without RNA counts instead of refusing the input.
    drop_empty: bool


def check_cells(
    data: Data, *, training: bool = False, drop_empty: bool = False, **options: Unpack[CountOptions]
) -> CiteSeq:
    """Return the raw counts of RNA and proteins, checked.

    Parameters
    ----------
    training
        Also log warnings that matter when a model is trained on the cells.
    drop_empty, **options
        See :class:`InputOptions`.

    Raises
    ------
    InputDataError
        The cells cannot be used.
    SettingError
        An option was given for a store or a CiteSeq, for which it has no effect.
    """
    for name in options.keys() - CountOptions.__annotations__.keys():
        known = ", ".join([*CountOptions.__annotations__, "drop_empty"])
        raise SettingError(f"there is no argument {name!r}; use {ARGUMENTS.get(name, f'one of {known}')}")
    if isinstance(data, StoredCiteSeq):  # checked when it was written
        require_no_options({**options, "drop_empty": drop_empty}, "a store")
        return data
    if isinstance(data, CiteSeq):
        require_no_options(options, "a CiteSeq")
    cite, notes = assemble(data, **options)
    raise_or_warn(notes)
    if cite.findings is None:
        if drop_empty:
            cite, dropped = without_empty(cite)
            if dropped:
                log.info("left out %d cells without RNA counts: %s", len(dropped), name_some(dropped, most=10))
        cite = replace(cite, findings=tuple(check(cite)))
    findings = cite.findings or ()
    require_usable(findings)
    for finding in findings:
        if training and finding.severity == "warning":
            log.warning("warning: %s", finding)
    return cite


def require_no_options(options: Mapping[str, object], what: str) -> None:
    """Refuse options that differ from their defaults for an input on which they have no effect."""
    given = [f"{name}={value!r}" for name, value in options.items() if value not in (None, False, "same")]
    if given:
        remedy = "set it when the store is written" if what == "a store" else "give AnnData or MuData"
        raise SettingError(f"{' and '.join(given)} cannot be used with {what}; {remedy}")


def cells_to_learn_from(cite: CiteSeq, *, place: bool = False) -> CiteSeq:
    """Return the cells with RNA, which alone are trained on, and log how many others there are.

    Raises
    ------
    InputDataError
        There are none or, with `place`, too few with proteins as well to learn from where the others lie.
    """
    cells = cite.with_rna()
    n_others = cite.rna.n_obs - cells.rna.n_obs
    if not n_others:
        return cite
    if not cells.rna.n_obs:
        raise InputDataError("no cell has RNA, and proteins alone cannot be trained on; add cells with both")
    assert cells.protein is not None
    n_both = int((~np.isnan(cells.protein.X)).any(axis=1).sum())
    if place and n_both < FEWEST_CELLS:
        raise InputDataError(
            f"{n_both} cells have both RNA and proteins, too few to place the {n_others} cells without RNA "
            f"(at least {FEWEST_CELLS}); leave these out with cells='rna'"
        )
    log.info("%d cells without RNA are not trained on", n_others)
    return cells


def learn_features(
    cite: CiteSeq, config: Config, species: str | None, cohort: Cohort | None = None
) -> tuple[Features, Preprocessing]:
    """Return the features that a new model reads, in order, and the constants that scale their values."""
    features, notes = choose_features(cite, config.data, species=species)
    log_notes(notes)
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


@dataclass(frozen=True)
class Labels:
    """Classes of n cells, and which cells are trained on.

    Attributes
    ----------
    codes
        Class of each cell, [n]; -1: unlabelled.
    classes
        Names of the codes.
    train, held_out
        Positions of the cells to train on and of those to score.
    """

    codes: np.ndarray
    classes: list[str]
    train: np.ndarray
    held_out: np.ndarray


def split_labels(cite: CiteSeq, key: str, train_fraction: float | None, split: str | None, seed: int) -> Labels:
    """Read the labels of an obs column, and split the labelled cells into those to train on and those to score."""
    codes, classes = usable_labels(cite.obs, key)
    if n_unlabelled := int((codes < 0).sum()):
        log.info("obs['%s']: %d of %d cells are unlabelled and left out", key, n_unlabelled, len(codes))
    train, held_out = train_and_held_out(
        cite.obs, codes, train_fraction=train_fraction, split=split, seed=seed, classes=classes
    )
    return Labels(codes, classes, train, held_out)


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
    log_notes(match.notes[:1] if by_rna else match.notes)
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
    log_notes(match_features(cite, state.features).notes[:1])


def pretrain_network(
    features: Features, config: Config, cohort: Cohort | None = None, *, n_cells: int = 0
) -> PretrainNetwork:
    """Return the network of stage 1 with random weights; `n_cells` are those that batch effects are estimated from."""
    has_skip = len(features.proteins) > 0 and config.network.components > 0
    sizes = Sizes(protein_landmarks=PROTEIN_LANDMARKS, placement=has_skip)
    if cohort is not None and cohort.n_levels:
        sizes = replace(
            sizes, batch_levels=cohort.n_levels, batch_kinds=n_kinds(n_cells),
            protein_batches=len(cohort.first),
        )  # fmt: skip
    elif config.network.latent:
        sizes = replace(sizes, batch_kinds=n_kinds(min(n_cells, SAMPLE_CELLS)))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return PretrainNetwork(len(features.genes), len(features.proteins), config.network, sizes)


def finetune_network(state: TrainedState, classes: list[str]) -> ClassifierNetwork:
    """Return the network of stage 2: the trained backbone and a new head."""
    backbone = deepcopy(state.network.backbone)
    with torch.random.fork_rng():
        torch.manual_seed(state.config.seed)
        return ClassifierNetwork(backbone, len(classes), kernel=state.config.finetune.classifier == "kernel")


def transfer_network(state: TrainedState, classes: list[str], *, keep_head: bool = False) -> ClassifierNetwork:
    """Return the network of stage 3: the trained backbone, and a head with the weights of the classes it shares.

    The head is of the kind that the settings name or, with `keep_head`, of the kind that `state` has.
    """
    kernel = state.config.finetune.classifier == "kernel"
    if keep_head and isinstance(state.network, ClassifierNetwork):
        kernel = isinstance(state.network.head, KernelHead)
    n_genes, n_proteins = len(state.features.genes), len(state.features.proteins)
    with torch.random.fork_rng():
        torch.manual_seed(state.config.seed)
        network = build_network(
            "transfer", n_genes, n_proteins, len(classes), state.config.network, state.network.backbone.sizes,
            kernel=kernel,
        )  # fmt: skip
    assert isinstance(network, ClassifierNetwork)
    carry_over(state.network, state.classes, network, classes)
    return network


def identity(state: TrainedState, dataset: CellDataset) -> dict[str, Any]:
    """Return what an interrupted run must share with the run that resumes it, as plain values.

    `state` is the one that training starts from.
    """
    backbone = state.network.backbone.state_dict() if isinstance(state.network, ClassifierNetwork) else {}
    constants = state.preprocessing  # not its means and deviations, whose last digits depend on the processor
    return {
        "stage": state.stage,
        "settings": state.config.to_dict(),
        "cells": dataset.fingerprint(),
        "constants": _digest(constants.gene_share.tobytes(), constants.log_geometric_mean.round(6).tobytes()),
        "features": _digest(state.features.table[["modality", "name"]].to_csv(index=False).encode()),
        "classes": state.classes,
        "labels": _digest(dataset.labels[dataset.rows].tobytes()),
        "batches": _digest(dataset.batches[dataset.rows].tobytes()),
        "begins with": _digest(*(tensor.cpu().numpy().tobytes() for tensor in backbone.values())),
    }


def score_held_out(
    network: ClassifierNetwork, dataset: CellDataset, labels: Labels, device: torch.device, *, baseline: bool
) -> dict[str, Any]:
    """Score the predictions for the held-out cells and, if asked for, those of logistic regression.

    Returns
    -------
    As :meth:`scfusionttt.evaluation.Evaluation.to_dict`; with `baseline` also the same under ``logistic_regression``.
    """
    held_out = dataset.subset(labels.held_out)
    log.info("scoring %d held-out cells", len(held_out))
    table = predict_classes(network, held_out, labels.classes, device)
    truth = np.asarray(labels.classes)[held_out.labels[held_out.rows]]
    scores = evaluate_predictions(
        table["label"], truth, table["probability"].to_numpy(), protocol="held-out"
    ).to_dict()  # fmt: skip
    if baseline and isinstance(dataset, StreamedCells):
        log.info("skipping the logistic-regression baseline: it needs all cells in memory")
    elif baseline:
        names = np.asarray(labels.classes)[labels.codes]
        fitted = baselines.score_logistic_regression(
            dataset.rna, dataset.protein, names, labels.train, labels.held_out
        )  # fmt: skip
        scores["logistic_regression"] = fitted.to_dict()
    return scores


def predict_classes(
    network: ClassifierNetwork, dataset: CellDataset, classes: list[str], device: torch.device
) -> pd.DataFrame:
    """Return the table of :meth:`scfusionttt.FusionTTT.predict`."""
    return class_table(*inference.probabilities(network, dataset, device), dataset, classes)


def warn_of_other_proteins(cite: CiteSeq, p_value: np.ndarray) -> None:
    """Warn if many cells, read with their proteins, are unlike those that the classes were learned from."""
    unlike = (p_value <= UNLIKE).mean()
    if cite.protein is not None and unlike > MANY_UNLIKE:
        log.warning(
            "warning: %.0f %% of the cells are unlike those that the classes were learned from (expected: %.0f %%). "
            "If their proteins are of another study, predict with rna_only=True (--rna-only), or map the cells",
            100 * unlike, 100 * UNLIKE,
        )  # fmt: skip


def warn_of_other_mixture(student: TrainedState, before: Preprocessing, cite: CiteSeq, device: torch.device) -> None:
    """Warn if a zero-shot student names many cells differently than with the model's own constants, `before`."""
    assert isinstance(student.network, ClassifierNetwork)
    match, batches = match_features(cite, student.features), student.cohort.no_codes(cite.rna.n_obs)
    named = []
    for constants in (before, student.preprocessing):
        cells = cell_dataset(cite, match, constants, batches=batches)
        few = cells.subset(cells.rows[:: -(-len(cells) // COMPARED)])
        named.append(inference.probabilities(student.network, few, device)[0].argmax(axis=1))
    changed = (named[0] != named[1]).mean()
    if changed > MANY_UNLIKE:
        log.warning(
            "warning: %.0f %% of the cells get another type because transfer scales genes by these cells. It is "
            "wrong if the cells lack many of the model's types, as sorted cells do: use annotate instead",
            100 * changed,
        )  # fmt: skip


def class_table(
    probability: np.ndarray,
    p_value: np.ndarray,
    dataset: CellDataset,
    classes: list[str],
    unknown: float | None = None,
) -> pd.DataFrame:
    """Return the table of :meth:`scfusionttt.FusionTTT.predict` from probabilities [n, c] and p-values [n]."""
    best = probability.argmax(axis=1)
    index = pd.Index(dataset.cell_names[dataset.rows], name="cell")
    label = pd.Series(pd.Categorical.from_codes(best, categories=pd.Index(classes)), index=index)
    columns = {"label": label, "probability": probability[np.arange(len(best)), best]}
    if unknown is not None:
        label = label if keys.UNKNOWN in classes else label.cat.add_categories(keys.UNKNOWN)
        columns |= {"label": label.mask(p_value <= unknown, keys.UNKNOWN), "p_value": p_value}
    by_class = pd.DataFrame(probability, index=index, columns=class_columns(classes))
    return pd.concat([pd.DataFrame(columns, index=index), by_class], axis=1)


def class_columns(classes: list[str]) -> list[str]:
    """Return the column of each class: its name, prefixed with ``class `` if another column has that name."""
    taken = {*_COLUMNS, *classes}

    def free(name: str) -> str:
        return free(f"class {name}") if name in taken else name

    return [free(f"class {name}") if name in _COLUMNS else name for name in classes]


@contextmanager
def each_line_once() -> Iterator[None]:
    """Log each message once, although several steps log it for the same cells."""
    logged: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = len(logged)
        logged.add(record.getMessage())
        return len(logged) > known

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def log_notes(notes: Iterable[str]) -> None:
    """Log what the user should know."""
    for note in notes:
        log.info(note)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
