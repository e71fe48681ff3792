"""What went in: cells, genes, proteins, quality; and the map to look around in."""

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

#: Genes on the map besides those asked for: a page of 10,000 cells stays under 8 MB.
MOST_MAP_GENES = 150
_OF_A_CLUSTER = 3


def map_section(found: Analysis, genes: Sequence[str] = ()) -> Section:
    """Return the interactive map: by label, cluster, prediction, quality, any protein, and chosen genes."""
    categories = {} if found.truth is None else {f"label ({found.labels})": found.truth}
    categories["cluster"] = found.clusters
    if found.predictions is not None:
        categories["predicted"] = found.predictions["label"].astype(str).to_numpy()
    chosen = np.array(_map_genes(found, genes), dtype=int)
    names = found.features.genes["name"].to_numpy()
    expression = pd.DataFrame(found.lognorm[:, chosen].toarray(), columns=names[chosen])
    proteins = pd.DataFrame(found.log_ratios, columns=found.features.proteins["name"].to_numpy())
    caption = f"UMAP of the fused representation of {found.n_cells:,} cells: near means alike, far means little."
    return Section(
        "The cells",
        map=CellMap(
            found.coords,
            found.cite.rna.obs_names.tolist(),
            categories,
            [
                *_cell_values(found),
                Values("protein", "log1p of counts over their geometric mean", proteins.dropna(axis=1, how="all")),
                Values("gene", f"log1p of counts per {found.preprocessing.target_sum:,.0f}", expression),
            ],
            caption,
        ),
    )


def _cell_values(found: Analysis) -> list[Values]:
    """Return one number per cell: probability, surprise where it was computed, library size."""
    columns = {"RNA counts": ("log10", np.log10(np.maximum(library_sizes(found.cite.rna.X), 1)))}
    if found.predictions is not None:
        columns = {"probability": ("0 to 1", found.predictions["probability"].to_numpy())} | columns
    surprise = found.cite.obs.get(CELL_SURPRISE)
    if surprise is not None and pd.api.types.is_numeric_dtype(surprise):
        columns["surprise"] = ("inner loss", surprise.to_numpy(dtype=float, na_value=np.nan))
    return [Values("cell", unit, pd.DataFrame({name: column})) for name, (unit, column) in columns.items()]


def _map_genes(found: Analysis, asked: Sequence[str]) -> list[int]:
    """Return places of the genes asked for, of those that code for proteins, and of the best of each cluster."""
    places = gene_places(found.features, asked)
    best = [name for names in found.top_genes.values() for name in names[:_OF_A_CLUSTER]]
    coding = [name for name in found.features.proteins["symbol"].dropna() if name in places]
    own = dict.fromkeys(places[name] for name in [*coding, *best])
    return list(dict.fromkeys([*(places[name] for name in asked), *list(own)[:MOST_MAP_GENES]]))


def gene_places(features: Features, asked: Sequence[str]) -> dict[str, int]:
    """Return the place of each gene by symbol and by name; a FeatureError tells which of those asked for has none."""
    genes = features.genes
    places = {name: place for column in ("symbol", "name") for place, name in enumerate(genes[column])}
    missing = [name for name in asked if name not in places]
    if missing:
        raise FeatureError(f"{name_some(missing)} is not among the model's {len(genes)} genes; see scfusionttt genes")
    return places


def input_section(found: Analysis) -> Section:
    """Return what was measured, what the model could use of it, and what is odd."""
    tables = [key_values(_counts(found), caption="What the model read"), _quality(found)]
    if found.cite.protein is not None:
        tables.append(_proteins(found))
    odd = [str(finding) for finding in check(found.cite) if finding.severity != "error"]
    told = "\n\n".join(["Worth knowing:", *odd]) if odd else "Nothing odd was found in the values."
    return Section("What went in", told, tables=tables)


def _counts(found: Analysis) -> dict[str, object]:
    rna, features = found.cite.rna, found.features
    resolved = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=features.species)
    lost = resolved.names("lost")
    n_genes, there = len(features.genes), int((found.match.genes >= 0).sum())
    masked = "" if there == n_genes else "; the others are masked"
    return {
        "cells": found.n_cells,
        "species": features.species,
        "genes in the file": rna.n_vars,
        "of them with a known place": int(resolved.table["chromosome"].notna().sum()),
        "names known to several genes": resolved.counts["ambiguous"],
        "names known to no gene": f"{len(lost):,}" + (f" ({name_some(lost)})" if lost else ""),
        "genes of the model found": f"{there:,} of {n_genes:,}{masked}",
        "proteins of the model found": f"{int((found.match.proteins >= 0).sum())} of {len(features.proteins)}",
    }


def _quality(found: Analysis) -> Table:
    """Tabulate counts per cell: median, and the range that holds 90 % of the cells."""
    counts = found.cite.rna.X
    mitochondrial = found.cite.rna.var_names.str.upper().str.startswith("MT-")
    total = library_sizes(counts)
    rows = {"RNA counts": total, "genes detected": counts.getnnz(axis=1)}
    if mitochondrial.any():
        rows["mitochondrial RNA, %"] = 100 * library_sizes(counts[:, mitochondrial]) / np.maximum(total, 1)
    if found.cite.protein is not None:
        measured = ~np.isnan(found.cite.protein.X).all(axis=1)
        rows["protein counts"] = np.nansum(found.cite.protein.X[measured], axis=1, dtype=float)
    told = {name: np.percentile(values, [5, 50, 95]) for name, values in rows.items() if len(values)}
    columns = ["5 % of cells below", "median", "95 % below"]
    return Table(pd.DataFrame.from_dict(told, orient="index", columns=columns), "Quality, per cell")


def _proteins(found: Analysis) -> Table:
    assert found.cite.protein is not None
    own = resolve_antibodies(found.cite.protein.var_names, species=found.features.species).table
    used = np.isin(np.arange(len(own)), found.match.proteins)
    place = own["chromosome"].fillna("") + ":" + own["start"].astype("Int64").astype(str)
    rows = pd.DataFrame(
        {
            "coding gene": own["symbol"].fillna("–").to_numpy(),
            "place": place.where(own["chromosome"].notna(), "–").to_numpy(),
            "kind": own["kind"].to_numpy(),
            "used by the model": used,
        },
        index=pd.Index(own["name"], name="protein"),
    )
    caption = f"{len(rows)} proteins of the file, {int(used.sum())} used"
    return Table(
        rows, caption, notes="Isotype controls and hashtags have no gene and are left out.", folded=len(rows) > 40
    )
