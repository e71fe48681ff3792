"""Section on the input: cells, genes, proteins and quality."""

import numpy as np
import pandas as pd

from scfusionttt.analysis.quality import summary
from scfusionttt.data.cells import by_modality
from scfusionttt.data.validate import check
from scfusionttt.errors import name_some
from scfusionttt.genome import resolve_antibodies, resolve_genes
from scfusionttt.report.analysis import Analysis
from scfusionttt.report.html import Section
from scfusionttt.report.tables import Table, key_values

#: Columns of the quality table, and what the report calls them.
_COUNTS = {
    "total_counts": "RNA counts",
    "n_genes_by_counts": "genes detected",
    "pct_counts_mt": "mitochondrial RNA, %",
    "protein_counts": "protein counts",
}


def input_section(analysis: Analysis) -> Section:
    """Return the size and quality of the input, the part of it that the model used, and conspicuous values."""
    counts = key_values(_counts(analysis), caption="Cells, genes and proteins")
    tables = [counts, _percentiles(analysis), _flags(analysis)]
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
    modalities = by_modality(analysis.cite)
    of_each = {f"cells with {name}": n for name, n in modalities.items()} if len(modalities) > 1 else {}
    return {
        "cells": analysis.n_cells,
        **of_each,
        "species": features.species,
        "genes in the input": rna.n_vars,
        "genes with a known position": int(resolved.table["chromosome"].notna().sum()),
        "ambiguous gene names": resolved.counts["ambiguous"],
        "unknown gene names": f"{len(lost):,}" + (f" ({name_some(lost)})" if lost else ""),
        "genes of the model in the input": f"{genes:,} of {n_genes:,}{masked}",
        "proteins of the model in the input": f"{proteins} of {n_proteins}",
    }


def _percentiles(analysis: Analysis) -> Table:
    """Tabulate the 5th, 50th and 95th percentile of the counts per cell."""
    known = {title: analysis.quality[name].dropna() for name, title in _COUNTS.items()}
    rows = {title: np.percentile(values, [5, 50, 95]) for title, values in known.items() if len(values)}
    columns = ["5th percentile", "median", "95th percentile"]
    return Table(pd.DataFrame.from_dict(rows, orient="index", columns=columns), "Counts per cell")


def _flags(analysis: Analysis) -> Table:
    """Tabulate how many cells may be doublets or of low quality."""
    rows = summary(analysis.quality).rename_axis("cells that may be")
    within = f", compared with the other cells of their {batch}" if (batch := next(iter(analysis.batches), "")) else ""
    return Table(
        rows,
        "Quality flags",
        notes=f"Computed from the counts{within}. Percentages are of the cells that could have the flag: doublets are "
        "looked for in batches of at least 100 cells. Flags are advice, and flagged cells are part of this report: "
        "large cells are flagged as well. Colour the map by quality flag to see where they lie.",
    )


def _proteins(analysis: Analysis) -> Table:
    assert analysis.cite.protein is not None
    own = resolve_antibodies(analysis.cite.protein.var_names, species=analysis.features.species).table
    used = np.isin(np.arange(len(own)), analysis.proteins_read)
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
