"""The one shape in which cells travel through the package, and the way into it from AnnData and MuData."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.counts import (
    Finding,
    columns_without_numbers,
    is_whole,
    named,
    raw_counts,
    to_csr,
    to_dense,
    value_findings,
)
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import (
    ANTIBODY_CAPTURE,
    COUNTS,
    FEATURE_TYPES,
    GENE_EXPRESSION,
    INPUT,
    MEASURED,
    PROTEIN_MODALITIES,
    RNA_MODALITIES,
)

#: obsm entries of an AnnData that may hold the protein counts as a DataFrame (case-insensitive).
PROTEIN_OBSM = ("protein_expression", "protein_counts", "protein", "proteins", "prot", "adt")

Cells = Literal["same", "overlap", "rna"]


@dataclass(frozen=True, eq=False)
class CiteSeq:
    """Raw counts of RNA and proteins of the same cells.

    Attributes
    ----------
    rna
        X: raw counts, CSR float32, [n, g]; var as in the input. Where inputs with different genes were joined, the
        genes that a cell's input lacks are told by `gene_panels`.
    protein
        X: raw counts, dense float32, [n, p], NaN = not measured; the cells of `rna` in the same order.
        None where the input has RNA only.
    obs
        Labels and metadata, [n, ...]; the index holds the cell names.
    """

    rna: AnnData
    protein: AnnData | None
    obs: pd.DataFrame

    def __getitem__(self, cells: Any) -> "CiteSeq":
        """Return some cells, by a boolean mask or positions, as a copy."""
        with quiet():
            protein = None if self.protein is None else self.protein[cells].copy()
            return CiteSeq(self.rna[cells].copy(), protein, self.obs.iloc[cells].copy())

    def blocks(self) -> Iterator["CiteSeq"]:
        """Yield all cells a part at a time: here at once, from a store as they lie on disk."""
        yield self


def as_citeseq(
    data: AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: Cells = "same",
    layer: str | None = None,
) -> CiteSeq:
    """Bring AnnData or MuData to raw counts of the same cells; the caller's object is not changed.

    Parameters
    ----------
    data
        MuData with modalities named as in `keys`, or AnnData: with ``var["feature_types"]``, with a DataFrame of
        proteins in ``obsm``, or RNA only.
    rna_modality, protein_modality
        Names of the modalities of a MuData; `protein_modality` also names the ``obsm`` entry of an AnnData.
    cells
        Where the modalities have different cells: ``same`` refuses, ``overlap`` keeps those that both have,
        ``rna`` keeps all with RNA (proteins NaN, that is not measured, for the rest).
    layer
        The layer with raw counts, where a modality has it; by default ``layers["counts"]``, else X.

    Raises
    ------
    InputDataError
        No RNA, unknown modality or layer, duplicated cell names, cells that differ, or values that are not raw counts.
    """
    cite, findings = assemble(
        data, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, layer=layer
    )
    for finding in [*findings, *count_findings(cite)]:
        if finding.severity == "error":
            raise InputDataError(str(finding))
        if finding.severity == "warning":
            warnings.warn(str(finding), stacklevel=2)
    return cite


def assemble(
    data: AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: Cells = "same",
    layer: str | None = None,
) -> tuple[CiteSeq, list[Finding]]:
    """Do what `as_citeseq` does without judging the values; return also what the user should know."""
    if cells not in ("same", "overlap", "rna"):
        raise SettingError(f"cells='{cells}' is not known; choose same, overlap or rna")
    if isinstance(data, CiteSeq):
        return data, []
    if isinstance(data, MuData):
        rna, protein, found = _from_mudata(data, rna_modality, protein_modality, layer)
        obs = joined_obs(data, find_modality(data, RNA_MODALITIES, rna_modality) or "")
        seen = data.obs_names[data.obs_names.isin(rna.obs_names)]  # obs and obsm of the whole are in this order
        if len(seen) == rna.n_obs and not seen.equals(rna.obs_names):
            rna, obs = rna[seen].copy(), obs.loc[seen]
    elif isinstance(data, AnnData):
        if rna_modality is not None:
            raise InputDataError(
                f"the input is one AnnData without modalities; leave out rna_modality='{rna_modality}'"
            )
        rna, protein, found = _from_anndata(data, protein_modality, layer)
        obs = data.obs.copy()
    else:
        raise InputDataError(f"expected AnnData or MuData, got {type(data).__name__}")
    obs.index = rna.obs_names.copy()
    return _same_cells(rna, protein, obs, cells), found


def count_findings(cite: CiteSeq) -> list[Finding]:
    """Find the values of both modalities that are not raw counts."""
    found = value_findings(cite.rna.X, cite.rna.obs_names, modality="RNA")
    if cite.protein is not None:
        found += value_findings(cite.protein.X, cite.protein.obs_names, modality="protein")
    return found


def find_modality(mdata: MuData, names: tuple[str, ...], wanted: str | None) -> str | None:
    """Return the modality that was asked for, else the first that bears a known name, else None."""
    there = list(mdata.mod)
    if wanted is not None:
        if wanted not in there:
            raise InputDataError(f"there is no modality '{wanted}'; the input has {', '.join(there)}")
        return wanted
    by_lower = {name.lower(): name for name in reversed(there)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def joined_obs(mdata: MuData, rna: str) -> pd.DataFrame:
    """Join the RNA modality's obs with the global obs, which wins; ``modality:x`` gives way to a plain ``x``."""
    own = mdata.mod[rna].obs
    whole = mdata.obs[~mdata.obs_names.duplicated()]
    if not whole.index.equals(own.index):
        whole = whole.reindex(own.index)
    plain = {column: str(column).removeprefix(f"{rna}:") for column in whole.columns}
    repeated = [old for old, new in plain.items() if new != old and (new in whole.columns or new in own.columns)]
    repeated += [old for old in whole.columns if _other_prefix(old, mdata, rna) in whole.columns]
    whole = whole.drop(columns=repeated).rename(columns=plain)
    return pd.concat([own.drop(columns=whole.columns.intersection(own.columns)), whole], axis=1)


def gene_panels(rna: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the panel of each cell [n], and which genes were measured with each panel, bool [k, g]."""
    if MEASURED not in rna.varm:
        return np.zeros(rna.n_obs, dtype=np.int64), np.ones((1, rna.n_vars), dtype=bool)
    measured = rna.varm[MEASURED]  # by the inputs' names: AnnData drops the categories that some cells do not have
    return measured.columns.get_indexer(rna.obs[INPUT]), measured.to_numpy().T


def cells_with_gene(rna: AnnData) -> np.ndarray:
    """Return in how many cells each gene was measured, [g]."""
    panel, measured = gene_panels(rna)
    return np.bincount(panel, minlength=len(measured)) @ measured


def _other_prefix(column: Any, mdata: MuData, rna: str) -> str | None:
    """Return the column's name without the prefix of a modality other than RNA, None where it has none."""
    modality, _, plain = str(column).partition(":")
    return plain if plain and modality in mdata.mod and modality != rna else None


def _from_mudata(
    mdata: MuData, rna_modality: str | None, protein_modality: str | None, layer: str | None
) -> tuple[AnnData, AnnData | None, list[Finding]]:
    rna_name = find_modality(mdata, RNA_MODALITIES, rna_modality)
    protein_name = find_modality(mdata, PROTEIN_MODALITIES, protein_modality)
    if rna_name is None:
        raise InputDataError(
            f"no RNA found: the modalities are {', '.join(mdata.mod) or 'none'}; name the one with RNA (--rna-modality)"
        )
    parts = {"RNA": mdata.mod[rna_name]}
    if protein_name is not None:
        parts["protein"] = mdata.mod[protein_name]
    layers, found = _layer_of_each(parts, layer)
    matrices = {}
    for name, adata in parts.items():
        matrices[name], more = raw_counts(adata, modality=name, layer=layers[name])
        found += more
    rna = _table(to_csr(matrices["RNA"]), parts["RNA"])
    return rna, _table(to_dense(matrices["protein"]), parts["protein"]) if "protein" in parts else None, found


def _layer_of_each(parts: dict[str, AnnData], layer: str | None) -> tuple[dict[str, str | None], list[Finding]]:
    """Return the layer to read of each modality, and a finding where only one has the layer asked for."""
    lacking = [name for name, adata in parts.items() if layer is not None and layer not in adata.layers]
    if len(lacking) in (0, len(parts)):  # where none has it, looking for it names those that are there
        return dict.fromkeys(parts, layer), []
    (absent,) = lacking
    place = f"layers['{COUNTS}']" if COUNTS in parts[absent].layers else "X"
    told = f"{absent} has no layer '{layer}', so its counts were taken from {place}"
    found = Finding("warning", "layer_of_one_modality", told, "give it that layer if others were meant")
    return {name: None if name == absent else layer for name in parts}, [found]


def _from_anndata(
    adata: AnnData, protein_modality: str | None, layer: str | None
) -> tuple[AnnData, AnnData | None, list[Finding]]:
    matrix, found = raw_counts(adata, modality="RNA", layer=layer)
    is_gene, is_antibody = _feature_types(adata)
    if not is_gene.any():
        types = sorted({str(kind) for kind in adata.var.get(FEATURE_TYPES, [])})
        told = f"var['{FEATURE_TYPES}'] has only {', '.join(types)}" if types else "there are no genes"
        raise InputDataError(f"no RNA found: {told}; '{GENE_EXPRESSION}' features are needed")
    counts = to_csr(matrix)
    rna = _table(counts if is_gene.all() else to_csr(counts[:, is_gene]), adata, is_gene)
    if is_antibody.any() and protein_modality is None:
        return rna, _table(counts[:, is_antibody].toarray(), adata, is_antibody), found
    frame, more = _protein_frame(adata, protein_modality)
    if frame is None:
        return rna, None, found + more
    var = pd.DataFrame(index=frame.columns.astype(str))
    return rna, _table(to_dense(frame), AnnData(obs=rna.obs, var=var)), found + more


def _feature_types(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return which features are genes and which antibodies; without the column all are genes."""
    if FEATURE_TYPES not in adata.var:
        return np.ones(adata.n_vars, dtype=bool), np.zeros(adata.n_vars, dtype=bool)
    kind = adata.var[FEATURE_TYPES].astype(str).str.lower()
    is_gene = kind.isin([GENE_EXPRESSION.lower(), *RNA_MODALITIES])
    return is_gene.to_numpy(), kind.isin([ANTIBODY_CAPTURE.lower(), *PROTEIN_MODALITIES]).to_numpy()


def _protein_frame(adata: AnnData, wanted: str | None) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return the protein counts of an AnnData's obsm: the table asked for, else the one of `protein_tables`."""
    if wanted is not None and wanted not in adata.obsm:
        there = ", ".join(adata.obsm) or "none"
        raise InputDataError(f"there is no obsm['{wanted}'] with proteins; the input has {there}")
    keys = protein_tables(adata) if wanted is None else [wanted]
    if not keys:
        return None, []
    key, *others = keys
    frame = adata.obsm[key]
    if isinstance(frame, pd.DataFrame):
        _require_numbers(frame, key)
        return frame, [_taken(key, others)] if others else []
    remedy = "make it a DataFrame whose columns are the protein names"
    if wanted is not None:
        raise InputDataError(f"obsm['{key}'] has no protein names; {remedy}")
    return None, [Finding("warning", "proteins_left_out", f"obsm['{key}'] has no names and was left out", remedy)]


def protein_tables(adata: AnnData) -> list[str]:
    """Return the obsm entries that may hold the proteins, best first: named columns, whole numbers, a usual name."""
    known = [key for name in PROTEIN_OBSM for key in adata.obsm if key.lower() == name]
    if len(known) < 2:
        return known

    def rank(key: str) -> tuple[bool, bool]:
        table = adata.obsm[key]
        named_columns = isinstance(table, pd.DataFrame)
        return not named_columns, not (named_columns and not columns_without_numbers(table) and is_whole(table))

    return sorted(known, key=rank)


def _taken(key: str, others: list[str]) -> Finding:
    left = " or ".join(f"obsm['{name}']" for name in others)
    told = f"the proteins were taken from obsm['{key}'], not from {left}"
    return Finding("warning", "several_protein_tables", told, "choose with --protein-modality NAME")


def _require_numbers(frame: pd.DataFrame, key: str) -> None:
    text = columns_without_numbers(frame)
    if text:
        raise InputDataError(
            f"obsm['{key}'] holds values that are not numbers in {named(text, 'column')}; "
            "keep only proteins there, and the rest in obs"
        )


def _table(matrix: Any, source: AnnData, features: np.ndarray | None = None) -> AnnData:
    """Return an AnnData of our own with the source's cell names and var."""
    var = source.var if features is None else source.var.loc[features]
    cells = pd.Index(source.obs_names.astype(str), name=None)
    repeated = cells[cells.duplicated()].unique()
    if len(repeated):
        verb = "occurs" if len(repeated) == 1 else "occur"
        raise InputDataError(
            f"{named(repeated, 'cell name')} {verb} more than once; make them unique, for example with a sample prefix"
        )
    with quiet():
        var = var.set_axis(var.index.astype(str), axis=0)
        return AnnData(matrix, obs=pd.DataFrame(index=cells), var=var)


def _same_cells(rna: AnnData, protein: AnnData | None, obs: pd.DataFrame, cells: Cells) -> CiteSeq:
    """Give the proteins the RNA's cells in the RNA's order, as the option says where they differ."""
    if protein is None or rna.obs_names.equals(protein.obs_names):
        return CiteSeq(rna, protein, obs)
    place = protein.obs_names.get_indexer(rna.obs_names)
    both = place >= 0
    n_both = int(both.sum())
    if cells == "same" and not n_both == rna.n_obs == protein.n_obs:
        raise InputDataError(_differ(rna, protein, n_both))
    if cells == "overlap" and not n_both:
        raise InputDataError(_differ(rna, protein, n_both))
    matrix = np.full((rna.n_obs, protein.n_vars), np.nan, dtype=np.float32)
    matrix[both] = protein.X[place[both]]
    with quiet():
        cite = CiteSeq(rna, AnnData(matrix, obs=rna.obs.copy(), var=protein.var), obs)
    return cite[both] if cells == "overlap" and n_both < rna.n_obs else cite


def _differ(rna: AnnData, protein: AnnData, n_both: int) -> str:
    told = f"RNA has {rna.n_obs} cells and proteins {protein.n_obs}, {n_both} in both"
    if not n_both:
        return f"{told} (RNA '{rna.obs_names[0]}', proteins '{protein.obs_names[0]}'); give the cells the same names"
    return (
        f"{told}; use `--cells overlap` (keep the {n_both} cells that both have) or `--cells rna` "
        f"(keep all {rna.n_obs} cells with RNA; the proteins of the others count as not measured)"
    )
