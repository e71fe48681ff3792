"""Where an AnnData or MuData keeps its RNA and its proteins."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.counts import columns_without_numbers, is_whole, to_dense
from scfusionttt.data.findings import Finding, named
from scfusionttt.errors import InputDataError, name_some
from scfusionttt.genome.antibodies import antigen_share, read_as_antibodies
from scfusionttt.genome.antibody_names import is_marked
from scfusionttt.genome.species import gene_share
from scfusionttt.keys import (
    ANTIBODY_CAPTURE,
    FEATURE_TYPES,
    GENE_EXPRESSION,
    PROTEIN_MODALITIES,
    RNA_MODALITIES,
)

#: Modalities and feature types, in lower case, that are known not to be proteins.
_NO_PROTEINS = frozenset(
    {
        "atac",
        "peaks",
        "hto",
        "multiplexing capture",
        "crispr",
        "guide",
        "grna",
        "sgrna",
        "crispr guide capture",
        "vdj",
        "vdj-t",
        "vdj-b",
        "airr",
        "tcr",
        "bcr",
        "antigen capture",
    }
)
#: A column with more distinct values than this does not hold feature types.
_MOST_TYPES = 20
#: Fraction of names that only antibodies have from which a matrix of known antigens has no RNA; panels reach 0.3.
_MANY = 0.15
#: Fewer gene names that are also aliases of antigens are not worth a warning.
_FEWEST = 3
#: Fewer cells whose names could be genes are not taken for genes.
_FEWEST_GENES = 20

#: obsm entries of an AnnData that may hold the protein counts as a DataFrame (case-insensitive).
PROTEIN_OBSM = ("protein_expression", "protein_counts", "protein", "proteins", "prot", "adt")


def find_modality(modalities: Iterable[str], names: tuple[str, ...], wanted: str | None = None) -> str | None:
    """Return the requested modality, else the first with one of the known names (in any case), else None."""
    available = list(modalities)
    if wanted is not None:
        if wanted not in available:
            raise InputDataError(f"there is no modality '{wanted}'; the input has {', '.join(available)}")
        return wanted
    by_lower = {name.lower(): name for name in reversed(available)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def feature_types(adata: AnnData) -> pd.Series | None:
    """Return the kind of each feature in lower case [f], from ``var["feature_types"]`` or a column like it; else None.

    A column of another name, such as ``Type``, counts if it has 'Antibody Capture' features.
    """
    known = None
    for column in sorted(adata.var.columns, key=lambda name: name != FEATURE_TYPES):
        if _may_be_types(adata.var[column]):
            kinds = type_names(adata.var[column]).str.strip().str.lower()
            if (kinds == ANTIBODY_CAPTURE.lower()).any():
                return kinds
            known = kinds if column == FEATURE_TYPES else known
    return known


def type_names(values: pd.Series) -> pd.Series:
    """Return feature types as text; a missing one is ``nan``, which pandas 3 does not make text."""
    return values.astype(object).where(values.notna(), "nan").astype(str)


def split_features(adata: AnnData, protein_type: str | None = None) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Return which features are genes and which are antibodies, bool [f], and a finding for features of other types.

    Without feature types all are genes. `protein_type` is the type that counts as antibodies instead of the known ones.
    """
    kinds = feature_types(adata)
    if kinds is None:
        return np.ones(adata.n_vars, dtype=bool), np.zeros(adata.n_vars, dtype=bool), []
    is_gene = kinds.isin([GENE_EXPRESSION.lower(), *RNA_MODALITIES]).to_numpy()
    known = [ANTIBODY_CAPTURE.lower(), *PROTEIN_MODALITIES] if protein_type is None else [protein_type.lower()]
    is_antibody = kinds.isin(known).to_numpy()
    is_other = ~is_gene & ~is_antibody & ~kinds.isin(_NO_PROTEINS).to_numpy()
    if not is_other.any() or not (is_gene | is_antibody).any() or protein_type is not None:
        return is_gene, is_antibody, []
    others = type_names(adata.var[kinds.name])[is_other]
    by_type = {kind: others.index[others == kind] for kind in others.unique()}
    types = " and ".join(f"{len(names)} of type '{kind}' ({name_some(list(names))})" for kind, names in by_type.items())
    remedy = f"choose them with protein_modality='{next(iter(by_type))}'"
    if is_antibody.any():
        remedy = f"mark them as '{ANTIBODY_CAPTURE}' in var['{kinds.name}']"
    message = f"features left out: {types}"
    finding = Finding("warning", "proteins_left_out", message, f"if they are proteins, {remedy}")
    return is_gene, is_antibody, [finding]


def has_feature_type(adata: AnnData, name: str | None) -> bool:
    """Return whether any feature is of this type (in any case)."""
    kinds = None if name is None else feature_types(adata)
    return kinds is not None and name is not None and bool((kinds == name.lower()).any())


def unused_modalities(mdata: MuData, rna: str, protein: str | None) -> list[Finding]:
    """Return a finding for modalities that may hold proteins.

    Beside recognised proteins, these are modalities of features of an unknown type, as muon makes one of 10x's Custom.
    """
    others = [name for name in mdata.mod if name not in (rna, protein) and name.lower() not in _NO_PROTEINS]
    if protein is not None:
        known = {GENE_EXPRESSION.lower(), ANTIBODY_CAPTURE.lower(), *_NO_PROTEINS}
        kinds = {name: feature_types(mdata.mod[name]) for name in others}
        others = [name for name, types in kinds.items() if types is not None and not types.isin(known).any()]
    if not others:
        return []
    named_ones = ", ".join(f"'{name}' ({mdata.mod[name].n_vars} features)" for name in others)
    remedy = f"if it holds the proteins, choose it with protein_modality='{others[0]}'"
    if protein is not None:
        remedy = f"if it holds proteins, add them to modality '{protein}'"
    return [Finding("warning", "proteins_left_out", f"modality left out: {named_ones}", remedy)]


def antibody_findings(var: pd.DataFrame) -> list[Finding]:
    """Report genes that read as antibodies: a warning for some, an error where there are only antibodies."""
    names = tuple(read_as_antibodies(var.index))
    tagged = var["gene_ids"].astype(str).str.fullmatch("[ACGT]{10,}").mean() if "gene_ids" in var else 0.0
    if max(len(names) / max(len(var), 1), tagged) > _MANY and (tagged > 0.5 or antigen_share(var.index) > 0.7):
        message = f"no RNA found: the input has only antibodies, {named(tuple(map(str, var.index)), 'feature')}"
        return [Finding("error", "antibodies_only", message, "add the RNA of the same cells")]
    if len(names) < _FEWEST and not any(map(is_marked, names)):
        return []
    message = f"{named(names, 'gene name')} {'reads' if len(names) == 1 else 'read'} as antibodies"
    remedy = f"if so, mark them as '{ANTIBODY_CAPTURE}' in var['{FEATURE_TYPES}']"
    return [Finding("warning", "antibodies_among_genes", message, remedy, names)]


def transposed_findings(cells: pd.Index, features: pd.Index) -> list[Finding]:
    """Report cells that are named like genes, where the features are not."""
    if len(cells) < _FEWEST_GENES or gene_share(cells) < 0.5 or gene_share(features) > 0.1:
        return []
    some = [name_some(names.tolist()) for names in (cells, features)]
    message = f"the cells are named like genes ({some[0]}), and the features are not ({some[1]})"
    return [Finding("error", "transposed", message, "exchange cells and features, as adata.T does")]


def _may_be_types(values: pd.Series | pd.DataFrame) -> bool:
    """Return whether a var column can hold feature types: text with few distinct values."""
    if isinstance(values, pd.DataFrame) or pd.api.types.is_numeric_dtype(values):
        return False
    try:
        return values.nunique() <= _MOST_TYPES
    except TypeError:  # lists, such as all ids of a gene
        return False


def protein_frame(adata: AnnData, wanted: str | None) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return the protein counts in an AnnData's obsm: the requested table, else the first of `protein_tables`."""
    if wanted is not None and wanted not in adata.obsm:
        available = ", ".join(adata.obsm) or "none"
        raise InputDataError(f"there is no obsm['{wanted}'] with proteins; available keys: {available}")
    keys = protein_tables(adata) if wanted is None else [wanted]
    if not keys:
        return None, _unused_tables(adata)
    key, *others = keys
    frame = _with_names(adata, key)
    if isinstance(frame, pd.DataFrame):
        _require_numbers(frame, key)
        return frame, [_chosen(key, others)] if others else []
    remedy = "make it a DataFrame with the protein names as columns"
    if wanted is not None:
        raise InputDataError(f"obsm['{key}'] has no protein names; {remedy}")
    return None, [
        Finding("warning", "proteins_left_out", f"obsm['{key}'] has no protein names and is not used", remedy)
    ]


def protein_tables(adata: AnnData) -> list[str]:
    """Return the obsm keys that may hold proteins: first those with named columns, then with whole numbers."""
    known = [key for name in PROTEIN_OBSM for key in adata.obsm if key.lower() == name]
    if len(known) < 2:
        return known

    def rank(key: str) -> tuple[bool, bool]:
        table = adata.obsm[key]
        named_columns = isinstance(table, pd.DataFrame)
        return not named_columns, not (named_columns and not columns_without_numbers(table) and is_whole(table))

    return sorted(known, key=rank)


def named_after_proteins(key: str) -> bool:
    """Return whether an obsm entry has a name like those of `PROTEIN_OBSM`."""
    return any(word in key.lower() for word in ("adt", "prot", "antibod", "cite"))


def _with_names(adata: AnnData, key: str) -> Any:
    """Return an obsm entry, as a DataFrame if ``uns`` has a name for each column, as scvi-tools stores them."""
    table = adata.obsm[key]
    lists = (adata.uns[name] for name in (f"{key}_names", "protein_names") if name in adata.uns)
    names = next((names for names in lists if np.shape(names) == np.shape(table)[1:]), None)
    if isinstance(table, pd.DataFrame) or names is None:
        return table
    return pd.DataFrame(to_dense(table), index=adata.obs_names, columns=np.asarray(names).astype(str))


def _unused_tables(adata: AnnData) -> list[Finding]:
    """Return a finding for obsm entries that may be proteins: tables of whole numbers, or named after proteins."""
    keys = [
        key
        for key, table in adata.obsm.items()
        if (isinstance(table, pd.DataFrame) and table.shape[1]) or named_after_proteins(key)
        if not (isinstance(table, pd.DataFrame) and columns_without_numbers(table)) and is_whole(table)
    ]
    if not keys:
        return []
    entries = " and ".join(f"obsm['{key}'] ({adata.obsm[key].shape[1]} columns)" for key in keys)
    remedy = f"if it holds the proteins, choose it with protein_modality='{keys[0]}'"
    return [Finding("warning", "proteins_left_out", f"left out: {entries}", remedy)]


def _chosen(key: str, others: list[str]) -> Finding:
    unused = " or ".join(f"obsm['{name}']" for name in others)
    message = f"the proteins were taken from obsm['{key}'], not from {unused}"
    return Finding("warning", "several_protein_tables", message, "choose one with protein_modality")


def _require_numbers(frame: pd.DataFrame, key: str) -> None:
    text = columns_without_numbers(frame)
    if text:
        raise InputDataError(
            f"obsm['{key}'] has values that are not numbers in {named(text, 'column')}; "
            "keep only proteins in it and move the rest to obs"
        )
