"""Writes the report: all sections, in order, as one HTML file."""

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
from scfusionttt.report.input_sections import gene_indices, input_section, map_section
from scfusionttt.report.result_sections import (
    SCORED_CELLS,
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
    "transfer": "transferred to RNA-only cells",
}

_LOSS = (
    "Loss per epoch on training and validation cells. Lower is better; losses of different stages cannot be compared."
)


def write_report(
    model: FusionTTT,
    cite: CiteSeq,
    out: Path,
    *,
    labels_key: str | None = None,
    genes: Sequence[str] = (),
    title: str = "scFusionTTT",
    command: str = "",
) -> Analysis:
    """Write the report of a model and cells as one self-contained HTML file.

    Parameters
    ----------
    labels_key
        obs column with known classes, to score and colour by.
    genes
        Genes to colour the map by, in addition to the top genes of clusters and the coding genes of proteins.
    command
        Command line of the report, shown after those that produced the model.

    Returns
    -------
    Analysis
        The results shown on the page.

    Raises
    ------
    UserError
        The cells, the labels or a gene cannot be used, or `out` is not a writable .html file.
    """
    check_file_path(out, PAGE_ENDINGS)
    gene_indices(model.features, genes)
    analysis = analyse(model, cite, labels_key=labels_key)
    sections = [
        map_section(analysis, genes),
        input_section(analysis),
        _training_section(model),
        clusters_section(analysis),
        types_section(analysis) if analysis.predictions is not None else None,
        scores_section(model, analysis),
        genome_section(analysis),
        _settings_section(model, command),
    ]
    page = html_report(
        title,
        [section for section in sections if section is not None],
        summary=[_describe(model, analysis), _accuracy(model, analysis)],
        facts={
            "cells": analysis.n_cells,
            "genes read": int((analysis.match.genes >= 0).sum()),
            "proteins read": int((analysis.match.proteins >= 0).sum()),
            "clusters": len(set(analysis.clusters)),
        },
        footer=f"scfusionttt {versions()['scfusionttt']}. This file works offline and contains the names of the cells.",
    )
    with replacing(out) as path:
        path.write_text(page, encoding="utf-8")
    return analysis


def _describe(model: FusionTTT, analysis: Analysis) -> str:
    modalities = "RNA and surface proteins" if (analysis.match.proteins >= 0).any() else "RNA alone"
    stage = _STAGES[str(model.stage)]
    classes = f" ({len(model.classes)} cell types)" if model.classes else ""
    return f"{modalities} of {analysis.n_cells:,} {analysis.features.species} cells; model {stage}{classes}."


def _accuracy(model: FusionTTT, analysis: Analysis) -> str:
    """Return a line on the accuracy of the predictions."""
    if analysis.truth is None:
        return "No labels were given, so clusters and predictions are not scored."
    if analysis.predictions is None:
        return "The model was trained without labels; the scores compare its clusters with the given labels."
    protocol, cells = analysis.scored
    accuracy = score_types(analysis).mean["accuracy"]
    text = f"The prediction is correct for {accuracy:.1%} of {cells.sum():,} {SCORED_CELLS[protocol]}."
    classes = set(analysis.truth[cells])
    if foreign := sorted(classes.difference(model.classes)):
        text += f" The model does not know {len(foreign)} of their {len(classes)} classes ({name_some(foreign, 3)})."
    return text


def _training_section(model: FusionTTT) -> Section:
    history = model.history
    rows: dict[str, dict[str, float]] = {}
    for stage, own in history.groupby("stage", sort=False) if len(history) else []:
        line: dict[str, float] = {"epochs": own["epoch"].nunique(), "seconds": round(float(own["seconds"].sum()))}
        if "val_loss" in own and own["val_loss"].notna().any():
            best = own.nsmallest(1, "val_loss").iloc[0]
            line |= {"lowest validation loss": best["val_loss"], "at epoch": int(best["epoch"])}
        rows[str(stage)] = line
    text = "" if rows else "No training was recorded."
    if rows and model.classes and not {"finetune", "transfer"} & rows.keys():
        text = "After training, a classifier was fitted to the latent; it has no epochs."
    return Section(
        "Training",
        text,
        tables=[Table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("stage"))] if rows else [],
        figures=[Figure(figures.training_curves(history), _LOSS, "training curves")] if rows else [],
    )


def _settings_section(model: FusionTTT, command: str) -> Section:
    model_versions = model.provenance.versions or versions()
    table = pd.DataFrame({"model": pd.Series(model_versions), "report": pd.Series(versions())}).fillna("–")
    commands = [*model.provenance.commands, *([command] if command else [])]
    text = "" if model.provenance.commands else "The commands that produced the model were not recorded."
    return Section(
        "Settings, versions and commands",
        text,
        tables=[
            Table(table, "Versions"),
            key_values(model.config.to_dict(), caption="Settings of the model", folded=True),
        ],
        code="\n".join(commands),
    )
