"""The features of several inputs as one table: genes, then proteins, each in genome order."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scfusionttt.data.antibody_matching import match_proteins, renamed_proteins
from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import FeatureError, name_some
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.orders import order_features
from scfusionttt.genome.resolve import resolve_genes
from scfusionttt.keys import ANTIBODY_CAPTURE, FEATURE_TYPES, GENE_EXPRESSION, MODALITY

log = logging.getLogger("scfusionttt")


class Joined(NamedTuple):
    """All features of some inputs."""

    var: pd.DataFrame  # [f], indexed by the name in the first input with the feature
    genes: list[np.ndarray]  # for each input, the rows of its genes in var
    proteins: list[np.ndarray]  # and of its proteins
    measured: np.ndarray  # [f, inputs] bool


def join_features(inputs: Sequence[CiteSeq], *, species: str | None = None) -> Joined:
    """Join features: genes by the gene they resolve to, else by name; proteins as in `match_proteins`.

    Features of the same input are never merged: equal ones are matched with other inputs' in order.

    Raises
    ------
    FeatureError
        The inputs are from different species.
    """
    genes = [
        resolve_genes(cite.rna.var_names, gene_ids=cite.rna.var.get("gene_ids"), species=species) for cite in inputs
    ]
    kinds = sorted({resolution.species for resolution in genes})
    if len(kinds) > 1:
        raise FeatureError(f"the inputs are from different species ({', '.join(kinds)}); write one store for each")
    tables = [one.table.assign(key=one.table["gene_id"].fillna(one.table["name"])) for one in genes]
    panels = _with_shared_keys([_panel(cite, kinds[0]) for cite in inputs], kinds[0])
    rna, protein = _union(tables, "rna"), _union(panels, "protein")
    var = pd.concat([rna, protein])
    at = [_places(rna, table) for table in tables], [len(rna) + _places(protein, panel) for panel in panels]
    measured = np.zeros((len(var), len(inputs)), dtype=bool)
    for number, own in enumerate(zip(*at)):
        measured[np.concatenate(own), number] = True
    return Joined(var.set_index("name").drop(columns=["key", "nth"]), *at, measured)


def _panel(cite: CiteSeq, species: str) -> pd.DataFrame:
    names = [] if cite.protein is None else list(cite.protein.var_names)
    return resolve_antibodies(names, species=species).table


def _with_shared_keys(panels: Sequence[pd.DataFrame], species: str) -> list[pd.DataFrame]:
    """Number the proteins of all inputs; one that matches a protein of an earlier input gets the same number."""
    known: list[str] = []
    keyed = []
    for panel in panels:
        names = panel["name"].tolist()
        columns = match_proteins(known, names, species=species)
        renamed = renamed_proteins(known, names, columns)
        if renamed:
            log.info("proteins joined: %s", name_some(renamed))
        keys = np.full(len(panel), -1)
        keys[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        new = keys < 0
        keys[new] = len(known) + np.arange(new.sum())
        known += panel["name"][new].tolist()
        keyed.append(panel.assign(key=keys))
    return keyed


def _union(tables: Sequence[pd.DataFrame], modality: str) -> pd.DataFrame:
    rows = pd.concat([_numbered(table) for table in tables]).drop_duplicates(["key", "nth"])
    rows = rows.iloc[order_features(rows, "genome")]
    types = GENE_EXPRESSION if modality == "rna" else ANTIBODY_CAPTURE
    as_text = {"gene_ids": "gene_id", "symbol": "symbol", "chromosome": "chromosome"}
    text = {name: rows[source].astype(object).fillna("").astype(str) for name, source in as_text.items()}
    start = pd.to_numeric(rows["start"]).astype("float64")  # base pairs; NaN where not placed
    return rows[["name", "key", "nth"]].assign(**{MODALITY: modality, FEATURE_TYPES: types}, **text, start=start)


def _places(union: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    numbered = _numbered(table)
    return pd.MultiIndex.from_frame(union[["key", "nth"]]).get_indexer(
        pd.MultiIndex.from_frame(numbered[["key", "nth"]])
    )


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Number the features with the same key, so that none is lost."""
    return table.assign(nth=table.groupby("key").cumcount())
