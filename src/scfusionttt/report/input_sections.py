"""Sections on the input: the interactive map; cells, genes, proteins and quality."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scfusionttt.data.features import Features
from scfusionttt.data.transforms import library_sizes
from scfusionttt.data.validate import check
from scfusionttt.errors import FeatureError, name_some
from scfusionttt.genome import resolve_antibodies, resolve_genes
from scfusionttt.keys import CELL_SURPRISE
from scfusionttt.report.analysis import Analysis
from scfusionttt.report.cell_map import CellMap, Values
from scfusionttt.report.html import Section
from scfusionttt.report.tables import Table, key_values

#: Maximum number of genes on the map besides the requested ones, so that a page of 10,000 cells stays below 8 MB.
MAX_MAP_GENES = 150
#: Top genes of each cluster on the map.
_GENES_PER_CLUSTER = 3


def map_section(analysis: Analysis, genes: Sequence[str] = ()) -> Section:
    """Return the interactive map, coloured by label, cluster, prediction, quality, proteins and selected genes."""
    categories = {} if analysis.truth is None else {f"label ({analysis.labels_key})": analysis.truth}
    categories["cluster"] = analysis.clusters
    if analysis.predictions is not None:
        categories["predicted"] = analysis.predictions["label"].astype(str).to_numpy()
    chosen = np.array(_map_genes(analysis, genes), dtype=int)
    names = analysis.features.genes["name"].to_numpy()
    expression = pd.DataFrame(analysis.lognorm[:, chosen].toarray(), columns=names[chosen])
    proteins = pd.DataFrame(analysis.log_ratios, columns=analysis.features.proteins["name"].to_numpy())
    caption = (
        f"UMAP of the embedding of {analysis.n_cells:,} cells. Nearby cells are similar; large distances mean little."
    )
    return Section(
        "Cells",
        map=CellMap(
            analysis.coords,
            analysis.cite.rna.obs_names.tolist(),
            categories,
            [
                *_cell_values(analysis),
                Values("protein", "centred log-ratio", proteins.dropna(axis=1, how="all")),
                Values("gene", f"log1p counts per {analysis.preprocessing.target_sum:,.0f}", expression),
            ],
            caption,
        ),
    )


def _cell_values(analysis: Analysis) -> list[Values]:
    """Return numbers per cell: probability, surprise if it was computed, and library size."""
    columns = {"RNA counts": ("log10", np.log10(np.maximum(library_sizes(analysis.cite.rna.X), 1)))}
    if analysis.predictions is not None:
        columns = {"probability": ("0 to 1", analysis.predictions["probability"].to_numpy())} | columns
    surprise = analysis.cite.obs.get(CELL_SURPRISE)
    if surprise is not None and pd.api.types.is_numeric_dtype(surprise):
        columns["surprise"] = ("inner loss", surprise.to_numpy(dtype=float, na_value=np.nan))
    return [Values("cell", unit, pd.DataFrame({name: column})) for name, (unit, column) in columns.items()]


def _map_genes(analysis: Analysis, requested: Sequence[str]) -> list[int]:
    """Return the indices of the requested genes, the coding genes of proteins, and the top genes of each cluster."""
    indices = gene_indices(analysis.features, requested)
    best = [name for names in analysis.top_genes.values() for name in names[:_GENES_PER_CLUSTER]]
    coding = [name for name in analysis.features.proteins["symbol"].dropna() if name in indices]
    own = dict.fromkeys(indices[name] for name in [*coding, *best])
    return list(dict.fromkeys([*(indices[name] for name in requested), *list(own)[:MAX_MAP_GENES]]))


def gene_indices(features: Features, required: Sequence[str]) -> dict[str, int]:
    """Return the index of each gene by symbol and by name.

    Raises
    ------
    FeatureError
        The model lacks one of the required genes.
    """
    genes = features.genes
    indices = {name: index for column in ("symbol", "name") for index, name in enumerate(genes[column])}
    missing = [name for name in required if name not in indices]
    if missing:
        raise FeatureError(f"{name_some(missing)} is not among the model's {len(genes)} genes; see scfusionttt genes")
    return indices


def input_section(analysis: Analysis) -> Section:
    """Return the size and quality of the input, the part of it that the model used, and conspicuous values."""
    tables = [key_values(_counts(analysis), caption="Cells, genes and proteins"), _quality(analysis)]
    if analysis.cite.protein is not None:
        tables.append(_proteins(analysis))
    findings = [str(finding) for finding in check(analysis.cite) if finding.severity != "error"]
    no_findings = "The checks of the input found no problems."
    text = "\n\n".join(["Findings of the input checks:", *findings]) if findings else no_findings
    return Section("Input", text, tables=tables)


def _counts(analysis: Analysis) -> dict[str, object]:
    rna, features = analysis.cite.rna, analysis.features
    resolved = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=features.species)
    lost = resolved.names("lost")
    n_genes, n_proteins = len(features.genes), len(features.proteins)
    genes, proteins = (int((index >= 0).sum()) for index in (analysis.match.genes, analysis.match.proteins))
    masked = "" if genes == n_genes else "; the others are masked"
    return {
        "cells": analysis.n_cells,
        "species": features.species,
        "genes in the input": rna.n_vars,
        "genes with a known position": int(resolved.table["chromosome"].notna().sum()),
        "ambiguous gene names": resolved.counts["ambiguous"],
        "unknown gene names": f"{len(lost):,}" + (f" ({name_some(lost)})" if lost else ""),
        "genes of the model in the input": f"{genes:,} of {n_genes:,}{masked}",
        "proteins of the model in the input": f"{proteins} of {n_proteins}",
    }


def _quality(analysis: Analysis) -> Table:
    """Tabulate the 5th, 50th and 95th percentile of counts per cell."""
    counts = analysis.cite.rna.X
    mitochondrial = analysis.cite.rna.var_names.str.upper().str.startswith("MT-")
    total = library_sizes(counts)
    rows = {"RNA counts": total, "genes detected": counts.getnnz(axis=1)}
    if mitochondrial.any():
        rows["mitochondrial RNA, %"] = 100 * library_sizes(counts[:, mitochondrial]) / np.maximum(total, 1)
    if analysis.cite.protein is not None:
        measured = ~np.isnan(analysis.cite.protein.X).all(axis=1)
        rows["protein counts"] = np.nansum(analysis.cite.protein.X[measured], axis=1, dtype=float)
    percentiles = {name: np.percentile(values, [5, 50, 95]) for name, values in rows.items() if len(values)}
    columns = ["5th percentile", "median", "95th percentile"]
    return Table(pd.DataFrame.from_dict(percentiles, orient="index", columns=columns), "Quality per cell")


def _proteins(analysis: Analysis) -> Table:
    assert analysis.cite.protein is not None
    own = resolve_antibodies(analysis.cite.protein.var_names, species=analysis.features.species).table
    used = np.isin(np.arange(len(own)), analysis.match.proteins)
    position = own["chromosome"].fillna("") + ":" + own["start"].astype("Int64").astype(str)
    rows = pd.DataFrame(
        {
            "coding gene": own["symbol"].fillna("–").to_numpy(),
            "position": position.where(own["chromosome"].notna(), "–").to_numpy(),
            "kind": own["kind"].to_numpy(),
            "read by the model": used,
        },
        index=pd.Index(own["name"], name="protein"),
    )
    caption = f"Proteins: {len(rows)} in the input, {int(used.sum())} read by the model"
    return Table(
        rows,
        caption,
        notes="Isotype controls and hashtags have no coding gene and are left out.",
        folded=len(rows) > 40,
    )
