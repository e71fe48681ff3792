"""Sections on the results: clusters, markers, cell types, scores, batches, and values along the genome."""

import warnings

import numpy as np
import pandas as pd

from scfusionttt.data.cells import has_rna
from scfusionttt.data.preprocess import present_genes
from scfusionttt.evaluation import (
    Evaluation,
    cluster_graph,
    confusion,
    evaluate_clusters,
    evaluate_predictions,
    neighbours,
    own_batch,
    reliability,
    top_features,
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
    scored = analysis.quality["doublet_score"].notna().to_numpy()
    doublets = analysis.quality["predicted_doublet"].to_numpy()
    rows = []
    for name in sorted(cells.unique(), key=natural_key):
        own = (cells == name).to_numpy()
        row: dict[str, object] = {"cells": int(own.sum()), "fraction": f"{own.mean():.1%}"}
        if analysis.truth is not None:
            row["most frequent label"] = _most_frequent(analysis.truth[own])
        elif analysis.predictions is not None:
            row["most frequent prediction"] = _most_frequent(analysis.predictions["label"].astype(str).to_numpy()[own])
        row |= {"doublets": f"{doublets[own & scored].mean():.1%}"} if (own & scored).any() else {}
        row |= {"top genes": analysis.top_genes[name]}
        row |= {"top proteins": analysis.top_proteins[name]} if len(analysis.features.proteins) else {}
        rows.append(pd.Series(row, name=name))
    table = pd.DataFrame(rows).rename_axis("cluster").astype({"cells": int})
    partly = analysis.truth is not None and "" in analysis.truth
    shares = " Percentages of labels are of the labelled cells of a cluster." if partly else ""
    others = ", ".join(f"{len(set(cells))} at {one:g}" for one, cells in analysis.clusterings.items())
    return Section(
        "Clusters",
        f"Leiden clusters of the embedding at resolution {analysis.resolution:g}, ordered by size. Number of "
        f"clusters by resolution: {others}. No resolution is the right one: choose the "
        "one whose clusters differ in known markers.",
        tables=[
            Table(
                table,
                notes="Top features are ranked by scanpy's t-test of each cluster against all other cells. Clusters "
                "come from the same data, so this does not test whether they are distinct." + shares,
            )
        ],
    )


def markers_section(analysis: Analysis) -> Section | None:
    """Return the top genes and proteins of each cell type; None for a single type."""
    kind, types = analysis.types
    known = types != ""
    order = sorted(set(types[known]), key=natural_key)
    if len(order) < 2:
        return None
    most = 3 if len(order) <= 10 else 2
    panel, measured = present_genes(analysis.cite, analysis.match)
    lognorm, log_ratios, types = analysis.lognorm[known], analysis.log_ratios[known], types[known]
    genes, proteins = analysis.features.genes["name"].to_numpy(), analysis.features.proteins["name"].to_numpy()
    numbers = np.arange(len(genes)).astype(str).tolist()
    best = top_features(lognorm, numbers, types, panels=(panel[known], measured), most=most)
    chosen = np.array(list(dict.fromkeys(int(gene) for name in order for gene in best.get(name, ()))), dtype=int)
    drawn = []
    if len(chosen):
        values = np.where(measured[:, chosen][panel[known]], lognorm[:, chosen].toarray(), np.nan)
        has_gene = np.where(np.isnan(values), np.nan, values > 0)
        means, fractions = (_means(one, types, order, genes[chosen]) for one in (values, has_gene))
        caption = f"Genes that are highest in each {kind}. Colour: mean log-normalised value."
        drawn.append(Figure(figures.dot_plot(means, fractions), caption, f"dot plot of genes, with a row per {kind}"))
    some = ~np.isnan(log_ratios).all(axis=0)
    if some.any():
        means = _means(log_ratios[:, some], types, order, proteins[some])
        caption = f"Proteins in each {kind}. Colour: mean centred log-ratio."
        drawn.append(Figure(figures.dot_plot(means), caption, f"heat map of proteins, with a row per {kind}"))
    text = "Colours are scaled from the lowest to the highest mean of each gene or protein."
    return Section("Markers", text, figures=drawn)


def _means(values: np.ndarray, types: np.ndarray, order: list[str], names: np.ndarray) -> pd.DataFrame:
    """Return the mean of each feature in each type, [types, features]; NaN where it was not measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        rows = [np.nanmean(values[types == name].astype(float), axis=0) for name in order]
    return pd.DataFrame(rows, index=pd.Index(order), columns=names)


def types_section(analysis: Analysis) -> Section:
    """Return the predicted types and, with labels, their accuracy by class and their calibration."""
    if analysis.truth is None:
        return _counts_section(analysis)
    return _accuracy_section(analysis) if analysis.labels_match_classes else _cross_table_section(analysis)


def _counts_section(analysis: Analysis) -> Section:
    """Return how many cells have each predicted type."""
    assert analysis.predictions is not None
    labels, probabilities = analysis.predictions["label"].astype(str), analysis.predictions["probability"]
    counts, means = labels.value_counts(), probabilities.groupby(labels).mean()
    table = pd.DataFrame({"cells": counts, "mean probability": means.reindex(counts.index)})
    tables = [Table(table.rename_axis("cell type"))]
    return Section("Cell types", "No labels were given, so the predictions are not scored.", tables=tables)


def _accuracy_section(analysis: Analysis) -> Section:
    """Return the accuracy of the predicted types by class, and their calibration."""
    predictions, scores = analysis.predictions, score_types(analysis)
    assert predictions is not None and analysis.truth is not None and scores.per_class is not None
    protocol, cells = analysis.scored
    predicted, truth = predictions["label"].astype(str).to_numpy()[cells], analysis.truth[cells]
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


def _cross_table_section(analysis: Analysis) -> Section:
    """Return how labels and predictions with different names correspond, and a label map to start from."""
    assert analysis.predictions is not None and analysis.truth is not None
    protocol, cells = analysis.scored
    truth, predicted = analysis.truth[cells], analysis.predictions["label"].astype(str).to_numpy()[cells]
    pairs = confusion(truth, predicted)
    order = sorted(pairs.index, key=natural_key)
    pairs = pairs.loc[order, [name for name in sorted(pairs.columns, key=natural_key) if pairs[name].any()]]
    scores = evaluate_clusters(predicted, truth, protocol=protocol).mean if len(order) > 1 else {}
    names = {str(name): value for name, value in scores.items() if name in ("ARI", "NMI")}
    lines = [f"{_quoted(name)},{_quoted(pairs.loc[name].idxmax())}" for name in order]
    return Section(
        "Cell types",
        "The labels have other names than the classes of the model, so there is no accuracy and no calibration. ARI "
        "and NMI compare the groups, whatever their names.\n\n"
        "To score the predictions, translate the labels: save lines such as those below as label_map.csv and make the "
        "report again with --label-map label_map.csv. These lines name the most frequent prediction for each label. "
        "Correct them by what you know of the cells: a map that follows the predictions finds them correct.",
        tables=[metric_table({"predictions and labels": names}, protocol=protocol)] if names else [],
        figures=[
            Figure(
                figures.confusion(pairs, recall=False),
                f"Labels ({analysis.labels_key}) and predicted types of {cells.sum():,} cells.",
                "cross-table: labels in rows, predicted types in columns",
            )
        ],
        code="\n".join(["label,class", *lines]),
    )


def _quoted(name: str) -> str:
    """Return a name as a field of a .csv file."""
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\r\n') else name


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
        if protocol == "paper":  # scored on the map, where cells without coordinates are not
            cells = cells & np.isfinite(analysis.coords).all(axis=1)
        if cells.sum() < 3:
            text += " Clusters are not scored because there are fewer than three cells to score them on."
        elif len(set(analysis.truth[cells])) < 2:
            text += " Clusters are not scored because the cells to score them on have a single class."
        else:
            tables.append(_ten_metrics(analysis, protocol, cells, seed=model.config.seed))
    for stage, scores in model.metrics.items():
        rows = {"scFusionTTT": scores["metrics"]}
        if "logistic_regression" in scores:
            rows["logistic regression"] = scores["logistic_regression"]["metrics"]
        caption = f"Recorded in training ({stage}, {scores['n_cells']:,} cells)"
        tables.append(metric_table(rows, protocol=scores["protocol"], caption=caption))
    return Section("Scores", text, tables=tables) if tables else None


def _ten_metrics(analysis: Analysis, protocol: Protocol, cells: np.ndarray, *, seed: int) -> Table:
    """Score the clusters of each resolution, and as many clusters as there are classes, against the labels.

    For held-out cells, the clusters are computed on these cells alone.
    """
    assert analysis.truth is not None
    truth = analysis.truth[cells]
    graph = (neighbours(analysis.embedding[cells]) if protocol == "held-out" else analysis.graph).obsp["connectivities"]
    inside = slice(None) if protocol == "held-out" else cells
    n_classes = len(set(truth))
    clusterings = {
        f"resolution {one:g}": cluster_graph(graph, resolution=one, seed=seed).labels[inside]
        for one in sorted(analysis.clusterings)
    } | {"number of classes known": cluster_graph(graph, n_classes, seed=seed).labels[inside]}
    on_map = protocol == "paper"
    where = analysis.coords[cells] if on_map else analysis.embedding[cells]
    rows = {
        f"{name}: {len(set(clusters))} clusters": evaluate_clusters(clusters, truth, where).mean
        for name, clusters in clusterings.items()
    }
    space = "the map" if on_map else "the embedding"
    alone = "; clusters of these cells alone" if protocol == "held-out" else ""
    cells_scored = f"{len(truth):,} cells, {n_classes} classes"
    caption = f"Clusters compared with labels ({cells_scored}{alone}; geometric metrics on {space})"
    return metric_table(rows, protocol=protocol, caption=caption)


def batches_section(analysis: Analysis) -> Section | None:
    """Return how batches mix, and how those that the model was not trained on fit; None without batches."""
    text, tables = [], []
    if analysis.mapped is not None:
        text.append(_MAPPED)
        rows = analysis.mapped.batches.rename(
            columns={"effect": "size of the effect", "without_counterpart": "without counterpart"}
        )
        tables.append(Table(rows, "Cells mapped into the embedding of the model"))
    several = {key: batch for key, batch in analysis.batches.items() if len(set(batch) - {""}) > 1}
    if mixing := [_mixing(analysis, key, batch) for key, batch in several.items()]:
        text.append(_MIXING)
        tables += mixing
    return Section("Batches", "\n\n".join(text), tables=tables) if tables else None


_MAPPED = (
    "The model was not trained on these batches. Their effect on the cells was estimated from these cells and removed. "
    "Its size is relative to the distances between kinds of cells. Cells without counterpart are unlike "
    "all that the model was trained on (p-value of at most 0.01; about 0.01 of the cells are expected to be): "
    "if there are many, check species and tissue, and colour the map by p-value to see which they are. There are also "
    "many where only some of the model's proteins were measured: map such cells by RNA alone (--rna-only). To keep the "
    "extended model: scfusionttt map FILE --model MODEL --out mapped.h5mu --out-model EXTENDED."
)
_MIXING = (
    "“own batch / chance” is how often the nearest neighbours of a cell in the embedding are from its own batch, "
    "relative to chance: 1 where batches are mixed, higher where they are apart. Within a type, only neighbours of it "
    "count; over all cells, batches with different types are apart as well. The composition of the batches is "
    "shown below the map."
)


def _mixing(analysis: Analysis, key: str, batch: np.ndarray) -> Table:
    """Return the cells of each type by batch, and how the batches mix, overall and within the type."""
    kind, types = analysis.types
    known, near = types != "", analysis.graph.obsp["distances"]
    no_type, no_batch = "not labelled", "no batch"  # types and batches may have these names, too
    sizes = pd.crosstab(types, batch)
    rows = sorted(sizes.index, key=lambda name: natural_key(name or no_type))
    sizes = sizes.loc[rows, sorted(sizes.columns, key=lambda name: natural_key(name or no_batch))]
    within = own_batch(near[known][:, known], batch[known], types[known]).reindex(rows)
    table = pd.concat([sizes.sum().to_frame("all cells").T, sizes]).rename_axis(kind)
    table = table.rename(index={"": no_type}, columns={"": no_batch})
    apart = np.concatenate([own_batch(near, batch), within])
    table.insert(len(table.columns), "own batch / chance", apart, allow_duplicates=True)
    return Table(table, f"Cells by batch ({key})")


def genome_section(model: FusionTTT, analysis: Analysis) -> Section:
    """Return the positions of the features, and mean values by cluster along the genome."""
    genes, proteins = analysis.features.genes, analysis.features.proteins
    kind, types = analysis.types
    names = sorted(set(types[has_rna(analysis.cite.rna)]) - {""}, key=natural_key)
    panel, measured = present_genes(analysis.cite, analysis.match)
    cells = [np.bincount(panel[types == name], minlength=len(measured)) @ measured for name in names]
    shown = np.flatnonzero(np.all(cells, axis=0))  # genes that were measured in cells of each type
    means = pd.DataFrame(
        [np.ravel(analysis.lognorm[types == name].sum(axis=0))[shown] / n[shown] for name, n in zip(names, cells)],
        index=pd.Index(names, name=kind),
    )
    text, order = "The model reads genes in genome order, and each protein at its coding gene.", model.config.data.order
    if order != "genome":
        text = f"The model reads features in another order (data.order={order}); here, they are in that of the genome."
    return Section(
        "Genome",
        text,
        figures=[
            Figure(
                figures.gene_places(genes, proteins=proteins),
                f"Positions of the {len(genes):,} genes and {len(proteins)} proteins of the model.",
                "genes as ticks along each chromosome, proteins as named dots",
            ),
            Figure(
                figures.chromosome_heatmap(genes.iloc[shown], means, unit="log1p, relative"),
                f"Mean expression of each {kind} along the genome, in windows of 20 genes, relative to the mean over "
                "rows and to the median of the row. An arm that is all red or all blue suggests a gain or loss; short "
                "segments are often families of adjacent genes.",
                f"heat map of each {kind} by windows of genes in genome order",
            ),
        ],
    )


def _most_frequent(labels: np.ndarray) -> str:
    known = pd.Series(labels[labels != ""])
    if known.empty:
        return "–"
    shares = known.value_counts(normalize=True)
    return f"{shares.index[0]} ({shares.iloc[0]:.0%})"
