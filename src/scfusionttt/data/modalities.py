"""Where an AnnData or MuData keeps its RNA and its proteins."""

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.counts import columns_without_numbers, is_whole
from scfusionttt.data.findings import Finding, named
from scfusionttt.errors import InputDataError
from scfusionttt.keys import (
    ANTIBODY_CAPTURE,
    FEATURE_TYPES,
    GENE_EXPRESSION,
    PROTEIN_MODALITIES,
    RNA_MODALITIES,
)

#: obsm entries of an AnnData that may hold the protein counts as a DataFrame (case-insensitive).
PROTEIN_OBSM = ("protein_expression", "protein_counts", "protein", "proteins", "prot", "adt")


def find_modality(mdata: MuData, names: tuple[str, ...], wanted: str | None) -> str | None:
    """Return the requested modality, else the first with one of the known names, else None."""
    available = list(mdata.mod)
    if wanted is not None:
        if wanted not in available:
            raise InputDataError(f"there is no modality '{wanted}'; the input has {', '.join(available)}")
        return wanted
    by_lower = {name.lower(): name for name in reversed(available)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def feature_types(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return which features are genes and which are antibodies; without the column, all are genes."""
    if FEATURE_TYPES not in adata.var:
        return np.ones(adata.n_vars, dtype=bool), np.zeros(adata.n_vars, dtype=bool)
    kind = adata.var[FEATURE_TYPES].astype(str).str.lower()
    is_gene = kind.isin([GENE_EXPRESSION.lower(), *RNA_MODALITIES])
    return is_gene.to_numpy(), kind.isin([ANTIBODY_CAPTURE.lower(), *PROTEIN_MODALITIES]).to_numpy()


def protein_frame(adata: AnnData, wanted: str | None) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return the protein counts in an AnnData's obsm: the requested table, else the first of `protein_tables`."""
    if wanted is not None and wanted not in adata.obsm:
        available = ", ".join(adata.obsm) or "none"
        raise InputDataError(f"there is no obsm['{wanted}'] with proteins; available keys: {available}")
    keys = protein_tables(adata) if wanted is None else [wanted]
    if not keys:
        return None, []
    key, *others = keys
    frame = adata.obsm[key]
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
