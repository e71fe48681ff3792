"""The sections of the report, in the order in which they are read, as one file."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import name_some
from scfusionttt.io.atomic import replacing
from scfusionttt.io.tables import PAGE_ENDINGS, check_file_path
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.provenance import versions
from scfusionttt.plotting import figures
from scfusionttt.report.analysis import Analysis, analyse
from scfusionttt.report.html import Figure, Section, html_report
from scfusionttt.report.input_sections import gene_places, input_section, map_section
from scfusionttt.report.result_sections import (
    clusters_section,
    genome_section,
    score_types,
    scores_section,
    types_section,
)
from scfusionttt.report.tables import Table, key_values

_STAGES = {
    "pretrain": "pretrained without labels",
    "finetune": "fine-tuned on labels",
    "transfer": "carried over to RNA-only cells",
}

_LOSS = (
    "Loss per epoch: how far off the model is on the cells that it learns from, and on cells held back to validate it. "
    "Lower is better; stages do not compare."
)


def write_report(
    model: FusionTTT,
    cite: CiteSeq,
    out: Path,
    *,
    labels: str | None = None,
    genes: Sequence[str] = (),
    title: str = "scFusionTTT",
    command: str = "",
) -> Analysis:
    """Write the report of a model and cells as one HTML file that needs nothing beside it.

    Parameters
    ----------
    labels
        obs column with known classes, to score and colour by.
    genes
        To colour the map by, besides those that set clusters apart or code for a protein.
    command
        The command line that asked for it, shown after those that made the model.

    Returns
    -------
    What the page shows.

    Raises
    ------
    UserError
        When the cells, the labels or a gene cannot be used, or `out` is no .html file that can be written.
    """
    check_file_path(out, PAGE_ENDINGS)
    gene_places(model.features, genes)
    found = analyse(model, cite, labels=labels)
    sections = [
        map_section(found, genes),
        input_section(found),
        _training_section(model),
        clusters_section(found),
        types_section(found) if found.predictions is not None else None,
        scores_section(model, found),
        genome_section(found),
        _settings_section(model, command),
    ]
    page = html_report(
        title,
        [section for section in sections if section is not None],
        summary=[_what(model, found), _trust(model, found)],
        facts={
            "cells": found.n_cells,
            "genes read": int((found.match.genes >= 0).sum()),
            "proteins read": int((found.match.proteins >= 0).sum()),
            "clusters": len(set(found.clusters)),
        },
        footer=f"scfusionttt {versions()['scfusionttt']}. This file needs no network and holds the names of the cells.",
    )
    with replacing(out) as path:
        path.write_text(page, encoding="utf-8")
    return found


def _what(model: FusionTTT, found: Analysis) -> str:
    with_proteins = "RNA and surface proteins" if (found.match.proteins >= 0).any() else "RNA alone"
    stage = _STAGES[str(model.stage)]
    classes = f", {len(model.classes)} cell types" if model.classes else ""
    return f"{with_proteins} of {found.n_cells:,} {found.features.species} cells, read by a model {stage}{classes}."


def _trust(model: FusionTTT, found: Analysis) -> str:
    """Say in one line how far to trust the page."""
    if found.truth is None:
        return "No labels were given, so these cells are not scored: clusters and names are proposals."
    if found.predictions is None:
        return "The model never saw a label: the scores below compare its clusters with the labels given."
    protocol, cells = found.scored
    which = {
        "paper": "that it may have learned from",
        "held-out": "whose labels it never learned",
        "zero-shot": "of which it learned no label",
    }[protocol]
    told = f"Of {cells.sum():,} cells {which} it names {score_types(found).mean['accuracy']:.1%} as the labels do."
    classes = set(found.truth[cells])
    if foreign := sorted(classes.difference(model.classes)):
        told += f" {len(foreign)} of their {len(classes)} classes it does not know ({name_some(foreign, 3)})."
    return f"{told} Expect less on new cells." if protocol == "paper" else told


def _training_section(model: FusionTTT) -> Section:
    history = model.history
    rows: dict[str, dict[str, float]] = {}
    for stage, own in history.groupby("stage", sort=False) if len(history) else []:
        line: dict[str, float] = {"epochs": own["epoch"].nunique(), "seconds": round(float(own["seconds"].sum()))}
        if "val_loss" in own and own["val_loss"].notna().any():
            best = own.nsmallest(1, "val_loss").iloc[0]
            line |= {"lowest validation loss": best["val_loss"], "at epoch": int(best["epoch"])}
        rows[str(stage)] = line
    told = "" if rows else "No training was recorded."
    if rows and model.classes and not {"finetune", "transfer"} & rows.keys():
        told = "The cell types were then learned by a regression on the finished representation, which has no epochs."
    return Section(
        "How training went",
        told,
        tables=[Table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("stage"))] if rows else [],
        figures=[Figure(figures.training_curves(history), _LOSS, "training curves")] if rows else [],
    )


def _settings_section(model: FusionTTT, command: str) -> Section:
    made_with = model.provenance.versions or versions()
    told = pd.DataFrame({"model": pd.Series(made_with), "this page": pd.Series(versions())}).fillna("–")
    commands = [*model.provenance.commands, *([command] if command else [])]
    made = "" if model.provenance.commands else "The model does not say by which commands it was made."
    return Section(
        "Settings, versions and commands",
        made,
        tables=[
            Table(told, "Versions"),
            key_values(model.config.to_dict(), caption="Settings of the model", folded=True),
        ],
        code="\n".join(commands),
    )
