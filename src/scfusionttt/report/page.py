"""Writes the report: all sections, in order, as one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import ArrayLike

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import name_some
from scfusionttt.io.atomic import replacing
from scfusionttt.io.tables import PAGE_ENDINGS, check_file_path
from scfusionttt.labels import obs_column
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.inputs import InputOptions, check_cells
from scfusionttt.model.provenance import versions
from scfusionttt.plotting import figures
from scfusionttt.report.analysis import RESOLUTIONS, Analysis, analyze
from scfusionttt.report.html import Figure, Section, html_report
from scfusionttt.report.input_sections import input_section
from scfusionttt.report.map_section import find_genes, map_section
from scfusionttt.report.result_sections import (
    SCORED_CELLS,
    batches_section,
    clusters_section,
    genome_section,
    markers_section,
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
    data: AnnData | MuData | CiteSeq,
    out: str | Path,
    *,
    labels_key: str | None = None,
    label_map: Mapping[str, str] | None = None,
    batch_key: str | Sequence[str] | None = None,
    genes: str | Sequence[str] = (),
    color: str | Sequence[str] = (),
    coords: ArrayLike | None = None,
    resolutions: Sequence[float] = RESOLUTIONS,
    title: str = "scFusionTTT",
    command: str = "",
    more: Sequence[Section] = (),
    **input_options: Unpack[InputOptions],
) -> Analysis:
    """Write the report of a model and cells as one self-contained HTML file.

    Parameters
    ----------
    model
        A trained model.
    data, **input_options
        Cells to embed, in memory; see Notes of :class:`~scfusionttt.FusionTTT`. Batches that the model was not trained
        on are mapped.
    out
        The file, .html; an existing one is replaced.
    labels_key
        obs column with known classes, to score and colour by.
    label_map
        The class of the model that each label means, if the labels have other names; labels left out keep their names.
    batch_key
        obs columns of donors, lanes or runs, whose mixing is shown; None: those that the model was trained with.
    genes
        Genes to colour the map by, of the model or of the input, in addition to the top genes of clusters and the
        coding genes of proteins.
    color
        obs columns to colour the map by, in addition to those of text with 2 to 200 classes.
    coords
        Coordinates of the map, [n, 2]; None: UMAP of the embedding.
    resolutions
        Resolutions of Leiden clusters; the clusters of the first are described.
    title
        Title of the page.
    command
        Command line of the report, shown after those that produced the model.
    more
        Further sections, before the settings.

    Returns
    -------
    Analysis
        The results shown on the page.

    Raises
    ------
    UserError
        The cells, the labels, a column or a gene cannot be used, or `out` is not a writable .html file.
    """
    out, cite = Path(out), as_citeseq(check_cells(data, **input_options))
    genes, color = ([names] if isinstance(names, str) else names for names in (genes, color))
    check_file_path(out, PAGE_ENDINGS)
    find_genes(cite, model.features, genes)
    for key in color:
        obs_column(cite.obs, key, role="colours")
    analysis = analyze(
        model, cite, labels_key=labels_key, label_map=label_map, batch_key=batch_key, coords=coords,
        resolutions=resolutions,
    )  # fmt: skip
    sections = [
        map_section(analysis, genes, color),
        types_section(analysis) if analysis.predictions is not None else None,
        clusters_section(analysis),
        markers_section(analysis),
        batches_section(analysis),
        scores_section(model, analysis),
        genome_section(model, analysis),
        input_section(analysis),
        _training_section(model),
        *more,
        _settings_section(model, command),
    ]
    page = html_report(
        title,
        [section for section in sections if section is not None],
        summary=[_describe(model, analysis), *_mapped(model, analysis), _accuracy(model, analysis)],
        facts={
            "cells": analysis.n_cells,
            "genes read": int((analysis.match.genes >= 0).sum()),
            "proteins read": len(analysis.proteins_read),
            "clusters": len(set(analysis.clusters)),
        },
        footer=f"scfusionttt {versions()['scfusionttt']}. This file works offline and contains the names of the "
        "cells and the obs columns that the map can be coloured by.",
    )
    with replacing(out) as path:
        path.write_text(page, encoding="utf-8")
    return analysis


def _describe(model: FusionTTT, analysis: Analysis) -> str:
    modalities = "RNA and surface proteins" if len(analysis.proteins_read) else "RNA alone"
    stage = _STAGES[str(model.stage)]
    classes = f" ({len(model.classes)} cell types)" if model.classes else ""
    return f"{modalities} of {analysis.n_cells:,} {analysis.features.species} cells; model {stage}{classes}."


def _mapped(model: FusionTTT, analysis: Analysis) -> list[str]:
    """Return a line on cells of batches or a study that the model was not trained on."""
    if analysis.mapped is None:
        return []
    if not model.batch_keys:
        return ["Most cells lie far from all that the model was trained on: they were mapped, see Batches."]
    names = name_some(list(map(str, analysis.mapped.batches.index)), 3)
    return [f"The model was not trained on batches of these cells ({names}): they were mapped, see Batches."]


def _accuracy(model: FusionTTT, analysis: Analysis) -> str:
    """Return a line on the accuracy of the predictions."""
    if analysis.truth is None:
        scored = "clusters" if analysis.predictions is None else "clusters and predictions"
        return f"No labels were given (--labels-key), so {scored} are not scored."
    if analysis.predictions is None:
        return "The model was trained without labels; the scores compare its clusters with the given labels."
    if not analysis.labels_match_classes:
        return "The labels have other names than the classes of the model: see Cell types for how they correspond."
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
    for name, own in figures.by_run(history).items() if len(history) else []:
        line: dict[str, float] = {"epochs": len(own), "seconds": round(float(own["seconds"].sum()))}
        if "val_loss" in own and own["val_loss"].notna().any():
            best = own.nsmallest(1, "val_loss").iloc[0]
            line |= {"lowest validation loss": best["val_loss"], "at epoch": int(best["epoch"])}
        rows[name] = line
    text = "" if rows else "No training was recorded."
    if rows and model.classes and not {"finetune", "transfer"} & rows.keys():
        text = "After pretraining, a classifier was fitted to what the network computes, in one step without epochs."
    # An epoch stays a whole number beside a stage without validation.
    table = pd.DataFrame.from_dict(rows, orient="index").convert_dtypes().rename_axis("stage")
    return Section(
        "Training",
        text,
        tables=[Table(table)] if rows else [],
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
