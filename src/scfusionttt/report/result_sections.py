"""What came out: clusters, cell types, scores, values along the genome."""

import numpy as np
import pandas as pd

from scfusionttt.evaluation import (
    Evaluation,
    confusion,
    evaluate_clusters,
    evaluate_predictions,
    evaluate_representation,
    reliability,
)
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.plotting import figures
from scfusionttt.plotting.figures.style import natural_key
from scfusionttt.report.analysis import Analysis
from scfusionttt.report.html import Figure, Section
from scfusionttt.report.tables import Table, metric_table

_WHICH = {
    "held-out": "the labelled cells that the model never learned from",
    "zero-shot": "all labelled cells; the model learned its classes elsewhere",
    "paper": "all labelled cells, those it learned from included: too good for new cells",
}


def clusters_section(found: Analysis) -> Section:
    """Return the clusters with what sets them apart."""
    cells = pd.Series(found.clusters)
    rows = []
    for name in sorted(cells.unique(), key=natural_key):
        own = (cells == name).to_numpy()
        row: dict[str, object] = {"cells": int(own.sum()), "share": f"{own.mean():.1%}"}
        if found.truth is not None:
            row["mostly"] = _mostly(found.truth[own])
        elif found.predictions is not None:
            row["predicted"] = _mostly(found.predictions["label"].astype(str).to_numpy()[own])
        row |= {"top genes": found.top_genes[name]}
        row |= {"top proteins": found.top_proteins[name]} if len(found.features.proteins) else {}
        rows.append(pd.Series(row, name=name))
    table = pd.DataFrame(rows).rename_axis("cluster").astype({"cells": int})
    how = "as many as there are labels" if found.truth is not None else "at resolution 1"
    return Section(
        "Clusters",
        f"Leiden clusters of the fused representation, {how}, the largest first.",
        tables=[
            Table(
                table,
                notes="Top features: scanpy's t-test of a cluster against all other cells, by score. The clusters were "
                "found in the same cells, so this describes them; it is no test of whether they exist.",
            )
        ],
    )


def types_section(found: Analysis) -> Section:
    """Return the predicted types; with labels also how right they are, class by class, and how well calibrated."""
    told = found.predictions
    assert told is not None
    if found.truth is None:
        counts = told["label"].astype(str).value_counts()
        means = told.groupby(told["label"].astype(str))["probability"].mean()
        table = pd.DataFrame({"cells": counts, "mean probability": means.reindex(counts.index)}).rename_axis("type")
        return Section("Cell types", "No labels were given, so the predictions are not scored.", tables=[Table(table)])
    protocol, cells = found.scored
    scores = score_types(found)
    predicted, truth = told["label"].astype(str).to_numpy()[cells], found.truth[cells]
    assert scores.per_class is not None
    per_class = scores.per_class.astype({"support": int}).rename(columns={"support": "cells"})
    order = sorted(per_class.index, key=natural_key)
    pairs = confusion(truth, predicted)
    pairs = pairs.loc[order, sorted(pairs.columns, key=natural_key)]
    bins = reliability(truth, predicted, told["probability"].to_numpy()[cells])
    return Section(
        "Cell types",
        f"Scored on {cells.sum():,} of {found.n_cells:,} cells: {_WHICH[protocol]}.",
        tables=[
            metric_table(scores.summary(), protocol=protocol, caption="Predicted against known types"),
            Table(per_class.loc[order], "Class by class", protocol, "f1: harmonic mean of precision and recall"),
        ],
        figures=[
            Figure(
                figures.confusion(pairs),
                f"Known against predicted type ({protocol}).",
                "confusion matrix: known types in rows, predicted types in columns; the table by class says the same",
            ),
            Figure(
                figures.calibration(bins),
                f"Is a probability of 80 % right in 80 of 100 cells? ({protocol}; larger dots, more cells)",
                "reliability diagram: share of cells named right against predicted probability",
            ),
        ],
    )


def score_types(found: Analysis) -> Evaluation:
    """Score the predicted types on the cells that may be scored."""
    assert found.predictions is not None and found.truth is not None
    _, cells = found.scored
    told = found.predictions[cells]
    return evaluate_predictions(told["label"].astype(str), found.truth[cells], told["probability"].to_numpy())


def scores_section(model: FusionTTT, found: Analysis) -> Section | None:
    """Return the ten metrics and what was measured when the model was trained; None where nothing was."""
    text = "Each table names on which cells it was measured; figures of different protocols do not compare."
    tables = []
    if found.truth is not None:
        protocol, cells = ("unsupervised", found.truth != "") if found.predictions is None else found.scored
        if len(set(found.truth[cells])) > 1:
            tables.append(_ten_metrics(found, protocol, cells))
        else:
            text += " Clusters are not scored: the cells to score them on are of a single class."
    for stage, scores in model.metrics.items():
        rows = {"scFusionTTT": scores["metrics"]}
        if "logistic_regression" in scores:
            rows["logistic regression"] = scores["logistic_regression"]["metrics"]
        caption = f"Measured when the model was trained ({stage}, {scores['n_cells']:,} cells, both on the same split)"
        tables.append(metric_table(rows, protocol=scores["protocol"], caption=caption))
    return Section("Scores", text, tables=tables) if tables else None


def _ten_metrics(found: Analysis, protocol: str, cells: np.ndarray) -> Table:
    """Score clusters against labels; those of a model that saw labels are found anew among the cells scored."""
    assert found.truth is not None
    truth = found.truth[cells]
    if protocol == "held-out":
        scores, what = evaluate_representation(found.z[cells], truth), "Leiden clusters of the cells held out, 3 seeds"
    elif protocol == "paper":
        scores = evaluate_clusters(found.clusters[cells], truth, found.coords[cells], space="umap")
        what = "The clusters above, geometry on the map"
    else:
        scores, what = evaluate_clusters(found.clusters[cells], truth, found.z[cells]), "The clusters above"
    caption = f"Ten metrics of clusters against labels ({len(truth):,} cells). {what}"
    return metric_table(scores.summary(), protocol=protocol, caption=caption)


def genome_section(found: Analysis) -> Section:
    """Return where the features lie, and the genes' mean values by cluster along the genome."""
    genes, proteins = found.features.genes, found.features.proteins
    names = sorted(set(found.clusters), key=natural_key)
    rows = [np.asarray(found.lognorm[found.clusters == name].mean(axis=0)).ravel() for name in names]
    means = pd.DataFrame(rows, index=pd.Index(names, name="cluster"))
    unit = "log1p, against the mean of clusters"
    return Section(
        "The genome as a sequence",
        "The model reads genes in the order they have in the genome, and each protein at the gene that codes for it.",
        figures=[
            Figure(
                figures.gene_places(genes, proteins=proteins),
                f"Where the model's {len(genes):,} genes and {len(proteins)} proteins lie.",
                "genes as ticks along each chromosome, proteins as named dots",
            ),
            Figure(
                figures.chromosome_heatmap(genes, means, unit=unit),
                "Each cluster along the genome, in windows of 20 genes. A whole arm that is red or blue in one cluster "
                "hints at a gain or loss; short stretches are gene families that lie together.",
                "heat map of clusters by windows of genes in genome order",
            ),
        ],
    )


def _mostly(labels: np.ndarray) -> str:
    known = pd.Series(labels[labels != ""])
    if known.empty:
        return "–"
    shares = known.value_counts(normalize=True)
    return f"{shares.index[0]} ({shares.iloc[0]:.0%})"
