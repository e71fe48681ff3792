"""AnnData or MuData to a `CiteSeq`: raw counts of both modalities for the same cells in the same order."""

from typing import Any, TypedDict, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt.data.cells import CellSelection, CiteSeq, count_findings
from scfusionttt.data.counts import (
    features_of_raw,
    has_layer,
    looks_normalised,
    raw_counts,
    rounded,
    share_of_fractions,
    to_csr,
    to_dense,
)
from scfusionttt.data.findings import Finding, named, raise_or_warn
from scfusionttt.data.modalities import (
    antibody_findings,
    feature_types,
    find_modality,
    has_feature_type,
    protein_frame,
    split_features,
    transposed_findings,
    type_names,
    unused_modalities,
)
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import COUNTS, GENE_EXPRESSION, INPUT, MEASURED, PROTEIN_MODALITIES, RNA_MODALITIES


class CountOptions(TypedDict, total=False):
    """The keyword arguments of :func:`as_citeseq`, for functions that pass them on."""

    layer: str | None
    round: bool
    rna_modality: str | None
    protein_modality: str | None
    cells: CellSelection


def as_citeseq(
    data: AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: CellSelection = "same",
    layer: str | None = None,
    round: bool = False,
) -> CiteSeq:
    """Extract raw counts of RNA and proteins for the same cells; `data` is not changed.

    Parameters
    ----------
    data
        MuData, or AnnData with ``var["feature_types"]``, with a DataFrame of proteins in ``obsm``, or with RNA only.
    rna_modality, protein_modality
        Modalities of a MuData, by default those with the names in `keys`; `protein_modality` also selects the ``obsm``
        entry or the feature type of an AnnData.
    cells
        Which cells to keep if the modalities differ: ``same`` raises an error, ``overlap`` keeps cells with both,
        ``rna`` keeps all cells with RNA (their proteins are NaN, not measured, where missing), ``all`` those with
        proteins alone, too (none of their genes is measured, see :func:`~scfusionttt.data.cells.has_rna`).
    layer
        Layer with the raw counts, of each modality that has it, or ``X``; by default ``layers["counts"]``, else X.
    round
        Round counts that are not whole, as from EM or a correction for ambient RNA, instead of refusing them.

    Raises
    ------
    InputDataError
        There is no RNA or no such modality or layer, cell names are duplicated, the cells differ, or values are not raw
        counts.
    """
    cite, findings = assemble(
        data, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, layer=layer, round=round
    )
    raise_or_warn(findings if cite.findings is not None else [*findings, *count_findings(cite)])
    return cite


def assemble(
    data: AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: CellSelection = "same",
    layer: str | None = None,
    round: bool = False,
) -> tuple[CiteSeq, list[Finding]]:
    """Do the same as `as_citeseq` without checking the values; return also what to report to the user."""
    if cells not in get_args(CellSelection):
        raise SettingError(f"cells must be same, overlap, rna or all (got '{cells}')")
    if isinstance(data, CiteSeq):
        if data.rna.X is None:
            raise InputDataError(
                "this needs counts in memory, and those of a store are on disk; give some of its cells, as in "
                "store[np.arange(1000)]"
            )
        return data, []
    if isinstance(data, MuData):
        rna, protein, findings = _from_mudata(data, rna_modality, protein_modality, layer)
        obs = joined_obs(data, find_modality(data.mod, RNA_MODALITIES, rna_modality) or "")
        order = data.obs_names[data.obs_names.isin(rna.obs_names)]  # that of the global obs and obsm
        if len(order) == rna.n_obs and not order.equals(rna.obs_names):
            rna, obs = rna[order].copy(), obs.loc[order]
    elif isinstance(data, AnnData):
        if rna_modality is not None:
            raise InputDataError(f"AnnData has no modalities; leave out rna_modality='{rna_modality}'")
        rna, protein, findings = _from_anndata(data, protein_modality, layer)
        obs = data.obs.copy()
    else:
        raise InputDataError(f"expected AnnData or MuData, got {type(data).__name__}")
    if round:
        findings = [finding for finding in findings if finding.code != "fractional_matrix"]
        findings += [note for name, part in (("RNA", rna), ("protein", protein)) for note in _round(part, name)]
    if cells == "all" and protein is not None:
        rna, obs = _with_cells_of(protein, rna, obs, data)
    obs.index = rna.obs_names.copy()
    findings += [*transposed_findings(rna.obs_names, rna.var_names), *antibody_findings(rna.var)]
    return _same_cells(rna, protein, obs, cells), findings


def _round(part: AnnData | None, modality: str) -> list[Finding]:
    """Round the counts of a new AnnData in place, and report what was rounded."""
    if part is None or not share_of_fractions(part.X):
        return []
    kind = "values that look normalised, not counts" if looks_normalised(part.X) else "counts with fractions"
    part.X = rounded(part.X)
    return [Finding("warning", "rounded", f"{modality}: {kind} were rounded")]


def joined_obs(mdata: MuData, rna: str) -> pd.DataFrame:
    """Join the RNA modality's obs with the global obs; ``modality:x`` yields to ``x``.

    The global obs takes precedence, except for columns without any value.
    """
    own = mdata.mod[rna].obs
    whole = mdata.obs[~mdata.obs_names.duplicated()]
    if not whole.index.equals(own.index):
        whole = whole.reindex(own.index)
    plain = {column: str(column).removeprefix(f"{rna}:") for column in whole.columns}
    repeated = [old for old, new in plain.items() if new != old and (new in whole.columns or new in own.columns)]
    repeated += [old for old in whole.columns if _other_prefix(old, mdata, rna) in whole.columns]
    whole = whole.drop(columns=repeated).rename(columns=plain)
    empty = whole.columns[whole.isna().all().to_numpy()]
    whole = whole.drop(columns=empty.intersection(own.columns))
    return pd.concat([own.drop(columns=whole.columns.intersection(own.columns)), whole], axis=1)


def _other_prefix(column: Any, mdata: MuData, rna: str) -> str | None:
    """Return a column's name without the prefix of a modality other than RNA; None if it has no such prefix."""
    modality, _, plain = str(column).partition(":")
    return plain if plain and modality in mdata.mod and modality != rna else None


def _from_mudata(
    mdata: MuData, rna_modality: str | None, protein_modality: str | None, layer: str | None
) -> tuple[AnnData, AnnData | None, list[Finding]]:
    rna_name = find_modality(mdata.mod, RNA_MODALITIES, rna_modality)
    protein_name = find_modality(mdata.mod, PROTEIN_MODALITIES, protein_modality)
    if rna_name is None:
        raise InputDataError(
            f"no RNA found: the modalities are {', '.join(mdata.mod) or 'none'}; "
            "choose those of RNA and proteins with rna_modality and protein_modality"
        )
    rna_part, from_raw = all_genes(mdata.mod[rna_name], layer)
    parts = {"RNA": rna_part}
    if protein_name is not None:
        parts["protein"] = mdata.mod[protein_name]
    layers, findings = _layer_of_each(parts, layer)
    findings = from_raw + findings
    matrices = {}
    for name, adata in parts.items():
        matrices[name], more = raw_counts(adata, modality=name, layer=layers[name])
        findings += more
    counts = to_csr(matrices["RNA"])
    is_gene, is_antibody, more = split_features(parts["RNA"])
    is_gene = is_gene if is_gene.any() else ~is_antibody  # the name of the modality outweighs an unknown type
    rna = _genes(counts, parts["RNA"], is_gene)
    if "protein" in parts:
        protein, others = protein_part(matrices["protein"], parts["protein"])
        unused = unused_modalities(mdata, rna_name, protein_name) if protein_modality is None else []
        return rna, protein, findings + more + others + unused
    if is_antibody.any():
        return rna, _table(counts[:, is_antibody].toarray(), parts["RNA"], is_antibody), findings + more
    return rna, None, findings + more + unused_modalities(mdata, rna_name, None)


def protein_part(matrix: Any, adata: AnnData) -> tuple[AnnData, list[Finding]]:
    """Return the proteins of a modality, without genes and other features that it marks as such."""
    _, kept, left_out = split_features(adata)
    if kept.all() or not kept.any():
        return _table(to_dense(matrix), adata), []
    return _table(to_dense(matrix)[:, kept], adata, kept), left_out


def _genes(counts: sparse.csr_matrix, adata: AnnData, is_gene: np.ndarray) -> AnnData:
    if not is_gene.any() and adata.n_vars:
        types = sorted(set(type_names(adata.var[feature_types(adata).name])))  # type: ignore[union-attr]
        raise InputDataError(f"no RNA found: the feature types are {', '.join(types)}; '{GENE_EXPRESSION}' is needed")
    return _table(counts if is_gene.all() else to_csr(counts[:, is_gene]), adata, is_gene)


def all_genes(adata: AnnData, layer: str | None = None) -> tuple[AnnData, list[Finding]]:
    """Return the RNA with all genes of ``.raw`` if the counts are there, and its feature types are known as well."""
    whole, findings = features_of_raw(adata, modality="RNA", layer=layer)
    if findings and (feature_types(whole) is None) != (feature_types(adata) is None):
        return adata, []
    return whole, findings


def _layer_of_each(parts: dict[str, AnnData], layer: str | None) -> tuple[dict[str, str | None], list[Finding]]:
    """Return the layer to read from each modality, and a finding if only one has the requested layer."""
    lacking = [name for name, adata in parts.items() if layer is not None and not has_layer(adata, layer)]
    if len(lacking) in (0, len(parts)):  # if none has it, `raw_counts` raises an error that lists the layers
        return dict.fromkeys(parts, layer), []
    (absent,) = lacking
    place = f"layers['{COUNTS}']" if COUNTS in parts[absent].layers else "X"
    message = f"{absent} has no layer '{layer}', so its counts were taken from {place}"
    finding = Finding("warning", "layer_of_one_modality", message, "add that layer if it has other counts")
    return {name: None if name == absent else layer for name in parts}, [finding]


def _from_anndata(
    adata: AnnData, protein_modality: str | None, layer: str | None
) -> tuple[AnnData, AnnData | None, list[Finding]]:
    adata, findings = all_genes(adata, layer)
    matrix, more = raw_counts(adata, modality="RNA", layer=layer)
    findings += more
    by_type = protein_modality if protein_modality not in adata.obsm else None
    by_type = by_type if has_feature_type(adata, by_type) else None
    is_gene, is_antibody, left_out = split_features(adata, by_type)
    counts = to_csr(matrix)
    rna = _genes(counts, adata, is_gene)
    if is_antibody.any() and (by_type is not None or protein_modality is None):
        return rna, _table(counts[:, is_antibody].toarray(), adata, is_antibody), findings + left_out
    frame, more = protein_frame(adata, protein_modality)
    if frame is None:
        return rna, None, findings + left_out + more
    var = pd.DataFrame(index=frame.columns.astype(str))
    return rna, _table(to_dense(frame), AnnData(obs=rna.obs, var=var)), findings + more


def _table(matrix: Any, source: AnnData, features: np.ndarray | None = None) -> AnnData:
    """Return a new AnnData with the source's cell names and var."""
    var = source.var if features is None else source.var.loc[features]
    if isinstance(var.get("gene_ids"), pd.DataFrame):
        raise InputDataError("several columns of var are called gene_ids; rename or drop all but one")
    var = var.loc[:, ~var.columns.duplicated()]  # AnnData cannot choose cells otherwise
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


def _same_cells(rna: AnnData, protein: AnnData | None, obs: pd.DataFrame, cells: CellSelection) -> CiteSeq:
    """Align the proteins with the cells of the RNA; `cells` decides what happens where they differ."""
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


def _with_cells_of(
    protein: AnnData, rna: AnnData, obs: pd.DataFrame, data: AnnData | MuData
) -> tuple[AnnData, pd.DataFrame]:
    """Add the cells that have proteins alone to the RNA and its obs, in the order of the input.

    As in a store, each cell names its panel of genes: all, or none.
    """
    both = rna.obs_names.union(protein.obs_names, sort=False)
    names = data.obs_names[data.obs_names.isin(both)]
    if len(names) < len(both):  # the MuData was not updated after its modalities changed
        names = both
    place = rna.obs_names.get_indexer(names)
    lacks_rna = place < 0
    if not lacks_rna.any():
        return rna, obs
    empty = sparse.csr_matrix(np.zeros((1, rna.n_vars), dtype=np.float32))
    counts = sparse.csr_matrix(sparse.vstack([rna.X, empty], format="csr")[np.where(lacks_rna, rna.n_obs, place)])
    panels = pd.Categorical.from_codes(lacks_rna.astype(int), categories=pd.Index(["RNA", "proteins alone"]))
    measured = pd.DataFrame({"RNA": True, "proteins alone": False}, index=rna.var_names)
    with quiet():
        rna = AnnData(
            counts, obs=pd.DataFrame({INPUT: panels}, index=names), var=rna.var, varm={MEASURED: measured}
        )  # fmt: skip
    return rna, _obs_of_all(data, obs, names)


def _obs_of_all(data: AnnData | MuData, obs: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    """Return obs of cells of either modality: the columns of RNA, with the values of the other modalities' cells."""
    parts = [obs, *([data.obs, *(part.obs for part in data.mod.values())] if isinstance(data, MuData) else [])]
    columns = {}
    for column in obs.columns:
        values = obs[column].reindex(names).astype(object)
        for part in parts[1:]:
            if column in part:
                values = values.where(values.notna(), part[column].astype(object).reindex(names))
        columns[column] = values.infer_objects()
    return pd.DataFrame(columns, index=names)


def _differ(rna: AnnData, protein: AnnData, n_both: int) -> str:
    message = f"RNA has {rna.n_obs} cells and proteins {protein.n_obs}, {n_both} in both"
    if not (rna.n_obs and protein.n_obs):
        return f"{message}; leave out the modality without cells, or choose others with rna_modality, protein_modality"
    if not n_both:
        return f"{message} (RNA '{rna.obs_names[0]}', proteins '{protein.obs_names[0]}'); they need the same cell names"
    return (
        f"{message}; use cells='overlap' to keep the {n_both} cells with both, cells='rna' to keep all {rna.n_obs} "
        "cells with RNA, or cells='all' to keep those with proteins alone, too (what is missing counts as not measured)"
    )
