"""Sections on the results: clusters, cell types, scores, and values along the genome."""

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
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.plotting import figures
from scfusionttt.plotting.figures.style import natural_key
from scfusionttt.report.analysis import Analysis
from scfusionttt.report.html import Figure, Section
from scfusionttt.report.tables import Table, metric_table

#: The cells that are scored under each protocol.
SCORED_CELLS: dict[Protocol, str] = {
    "held-out": "labelled cells that the model was not trained on",
    "zero-shot": "labelled cells; the model was trained on labels of other data",
    "paper": "labelled cells, including those it was trained on: expect lower accuracy on new cells",
}


def clusters_section(analysis: Analysis) -> Section:
    """Return the clusters with their top genes and proteins."""
    cells = pd.Series(analysis.clusters)
    rows = []
    for name in sorted(cells.unique(), key=natural_key):
        own = (cells == name).to_numpy()
        row: dict[str, object] = {"cells": int(own.sum()), "fraction": f"{own.mean():.1%}"}
        if analysis.truth is not None:
            row["most frequent label"] = _most_frequent(analysis.truth[own])
        elif analysis.predictions is not None:
            row["most frequent prediction"] = _most_frequent(analysis.predictions["label"].astype(str).to_numpy()[own])
        row |= {"top genes": analysis.top_genes[name]}
        row |= {"top proteins": analysis.top_proteins[name]} if len(analysis.features.proteins) else {}
        rows.append(pd.Series(row, name=name))
    table = pd.DataFrame(rows).rename_axis("cluster").astype({"cells": int})
    number = "as many as there are classes" if analysis.truth is not None else "at resolution 1"
    return Section(
        "Clusters",
        f"Leiden clusters of the embedding, {number}, ordered by size.",
        tables=[
            Table(
                table,
                notes="Top features are ranked by scanpy's t-test of each cluster against all other cells. Clusters "
                "come from the same data, so this does not test whether they are distinct.",
            )
        ],
    )


def types_section(analysis: Analysis) -> Section:
    """Return the predicted types and, with labels, their accuracy by class and their calibration."""
    predictions = analysis.predictions
    assert predictions is not None
    labels = predictions["label"].astype(str)
    if analysis.truth is None:
        counts = labels.value_counts()
        means = predictions.groupby(labels)["probability"].mean()
        table = pd.DataFrame({"cells": counts, "mean probability": means.reindex(counts.index)}).rename_axis(
            "cell type"
        )
        return Section("Cell types", "No labels were given, so the predictions are not scored.", tables=[Table(table)])
    protocol, cells = analysis.scored
    scores = score_types(analysis)
    predicted, truth = labels.to_numpy()[cells], analysis.truth[cells]
    assert scores.per_class is not None
    per_class = scores.per_class.astype({"support": int}).rename(columns={"support": "cells"})
    order = sorted(per_class.index, key=natural_key)
    pairs = confusion(truth, predicted)
    pairs = pairs.loc[order, sorted(pairs.columns, key=natural_key)]
    bins = reliability(truth, predicted, predictions["probability"].to_numpy()[cells])
    return Section(
        "Cell types",
        f"Scored on {cells.sum():,} of {analysis.n_cells:,} cells: {SCORED_CELLS[protocol]}.",
        tables=[
            metric_table(scores.summary(), protocol=protocol, caption="Predicted and known cell types"),
            Table(per_class.loc[order], "Scores by class", protocol, "f1: harmonic mean of precision and recall"),
        ],
        figures=[
            Figure(
                figures.confusion(pairs),
                f"Known and predicted cell types ({protocol}).",
                "confusion matrix: known types in rows, predicted types in columns; see also the scores by class",
            ),
            Figure(
                figures.calibration(bins),
                f"Calibration ({protocol}): a prediction with probability 80% should be correct in 80 of 100 cells.",
                "reliability diagram: fraction of correct predictions against predicted probability",
            ),
        ],
    )


def score_types(analysis: Analysis) -> Evaluation:
    """Score the predicted types on the cells given by :attr:`Analysis.scored`."""
    assert analysis.predictions is not None and analysis.truth is not None
    protocol, cells = analysis.scored
    rows = analysis.predictions[cells]
    labels, probabilities = rows["label"].astype(str), rows["probability"].to_numpy()
    return evaluate_predictions(labels, analysis.truth[cells], probabilities, protocol=protocol)


def scores_section(model: FusionTTT, analysis: Analysis) -> Section | None:
    """Return the ten metrics and the scores recorded in training; None if there are no scores."""
    text = "Each table states its protocol; scores of different protocols cannot be compared."
    tables = []
    if analysis.truth is not None:
        protocol, cells = analysis.scored
        if len(set(analysis.truth[cells])) > 1:
            tables.append(_ten_metrics(analysis, protocol, cells))
        else:
            text += " Clusters are not scored because the cells to score them on have a single class."
    for stage, scores in model.metrics.items():
        rows = {"scFusionTTT": scores["metrics"]}
        if "logistic_regression" in scores:
            rows["logistic regression"] = scores["logistic_regression"]["metrics"]
        caption = f"Recorded in training ({stage}, {scores['n_cells']:,} cells)"
        tables.append(metric_table(rows, protocol=scores["protocol"], caption=caption))
    return Section("Scores", text, tables=tables) if tables else None


def _ten_metrics(analysis: Analysis, protocol: Protocol, cells: np.ndarray) -> Table:
    """Score clusters against labels; for held-out cells, the clusters are computed on these cells alone."""
    assert analysis.truth is not None
    truth = analysis.truth[cells]
    if protocol == "held-out":
        scores, what = (
            evaluate_representation(analysis.embedding[cells], truth),
            "Leiden clusters of these cells, 3 seeds",
        )
    elif protocol == "paper":
        scores = evaluate_clusters(analysis.clusters[cells], truth, analysis.coords[cells], space="umap")
        what = "clusters as above, geometric metrics on the UMAP"
    else:
        scores, what = (
            evaluate_clusters(analysis.clusters[cells], truth, analysis.embedding[cells]),
            "clusters as above",
        )
    caption = f"Clusters compared with labels ({len(truth):,} cells; {what})"
    return metric_table(scores.summary(), protocol=protocol, caption=caption)


def genome_section(analysis: Analysis) -> Section:
    """Return the positions of the features, and mean values by cluster along the genome."""
    genes, proteins = analysis.features.genes, analysis.features.proteins
    names = sorted(set(analysis.clusters), key=natural_key)
    rows = [np.asarray(analysis.lognorm[analysis.clusters == name].mean(axis=0)).ravel() for name in names]
    means = pd.DataFrame(rows, index=pd.Index(names, name="cluster"))
    unit = "log1p, minus mean over clusters"
    return Section(
        "Genome",
        "The model reads genes in genome order, and each protein at its coding gene.",
        figures=[
            Figure(
                figures.gene_places(genes, proteins=proteins),
                f"Positions of the {len(genes):,} genes and {len(proteins)} proteins of the model.",
                "genes as ticks along each chromosome, proteins as named dots",
            ),
            Figure(
                figures.chromosome_heatmap(genes, means, unit=unit),
                "Mean expression of each cluster along the genome, in windows of 20 genes. An arm that is all red or "
                "all blue suggests a gain or loss; short segments are often families of adjacent genes.",
                "heat map of clusters by windows of genes in genome order",
            ),
        ],
    )


def _most_frequent(labels: np.ndarray) -> str:
    known = pd.Series(labels[labels != ""])
    if known.empty:
        return "–"
    shares = known.value_counts(normalize=True)
    return f"{shares.index[0]} ({shares.iloc[0]:.0%})"
