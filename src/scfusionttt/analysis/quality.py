"""Quality of each cell: counts, doublets, and whether it may be debris or dying."""

from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.analysis.doublets import doublets
from scfusionttt.data.assemble import assemble
from scfusionttt.data.cells import CellSelection, CiteSeq
from scfusionttt.data.findings import raise_or_warn, require_usable
from scfusionttt.data.inplace import inplace_target
from scfusionttt.data.transforms import library_sizes, mads_from_median
from scfusionttt.data.validate import check
from scfusionttt.errors import FeatureError, InputDataError
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.resolve import resolve_genes
from scfusionttt.labels import class_names, obs_column

#: Scaled median absolute deviations below the median from which counts are few, and above it, antibodies many.
FEW_MADS = 5.0
#: The same for mitochondrial counts, and the percentage that they need as well.
MITOCHONDRIAL_MADS, MITOCHONDRIAL = 3.0, 8.0
#: The reasons for low quality, with the column that each is found in.
_REASONS = {
    "few counts": "total_counts",
    "few genes": "n_genes_by_counts",
    "mitochondrial": "pct_counts_mt",
    "few proteins": "protein_counts",
    "many proteins": "protein_counts",
}
#: The kinds of antibodies that bind cells by type; not hashtags and rows such as ``unmapped``.
_BOUND = ("antibody", "isotype")
#: Fewest cells of a batch in which doublets are looked for.
FEWEST_CELLS = 100


def quality(
    data: AnnData | MuData | CiteSeq,
    *,
    batch_key: str | None = None,
    species: str | None = None,
    seed: int = 0,
    inplace: bool = False,
    layer: str | None = None,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: CellSelection = "same",
    round: bool = False,
) -> pd.DataFrame:
    """Score the quality of each cell, and flag doublets and cells of low quality.

    Parameters
    ----------
    batch_key
        obs column with donors, lanes or runs: cells are compared with those of their batch alone.
    species
        ``human`` or ``mouse``, for mitochondrial genes; inferred from the genes by default.
    seed
        Draws simulated doublets.
    inplace
        Also write the columns to ``data.obs``.
    layer, rna_modality, protein_modality, cells, round
        See :func:`~scfusionttt.data.assemble.as_citeseq`.

    Returns
    -------
    DataFrame [n, ...] with columns named as in scanpy:

    - ``total_counts`` and ``n_genes_by_counts`` of the RNA, ``pct_counts_mt`` (0 to 100; NaN without mitochondrial
      genes), ``protein_counts`` of antibodies and isotype controls (NaN where none was measured);
    - ``doublet_score`` and ``predicted_doublet``, see :func:`~scfusionttt.analysis.doublets.doublets`; NaN and False in
      batches of fewer than 100 cells;
    - ``low_quality``, and ``reason``: ``few counts``, ``few genes`` (5 scaled median absolute deviations below the
      median of the logarithms), ``mitochondrial`` (3 above the median, and above 8 %), ``few proteins`` or ``many
      proteins`` (5 below or above; aggregates of antibodies), or empty.

    Cells without RNA have missing values and no flags.

    Raises
    ------
    InputDataError, LabelError
        The counts cannot be used, the column `batch_key` does not exist in obs, or `inplace` is set with an object that
        results cannot be written into.
    """
    cite, findings = assemble(
        data, layer=layer, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, round=round
    )
    raise_or_warn(findings)
    require_usable(finding for finding in check(cite) if finding.code != "empty_cells")
    names, cite = cite.rna.obs_names, cite.with_rna()
    target = inplace_target(data, names) if inplace else None
    if not cite.rna.n_obs:
        raise InputDataError("no cell has RNA, from which the quality of cells is computed")
    batch = np.zeros(cite.rna.n_obs, dtype=int)
    if batch_key is not None:
        batch = pd.factorize(class_names(obs_column(cite.obs, batch_key, role="batches")))[0]
    cite, controls = _with_bound_proteins(cite)
    table = _counted(cite, species)
    batches = (batch == level for level in np.unique(batch))
    table = pd.concat([_of_batch(cite[own], table[own], controls, seed) for own in batches]).reindex(names)
    for flag in ("predicted_doublet", "low_quality"):
        table[flag] = table[flag].eq(True)
    table["reason"] = table["reason"].fillna("")
    if target is not None:
        for name, column in table.items():
            target.obs[name] = column.array.copy()
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many cells of the table of :func:`quality` have each flag, and the percentage of those that could.

    Doublets are looked for in batches of enough cells, and few or many proteins where proteins were measured. Flags
    that no cell could have are left out.
    """
    flags = {"doublets": (table["predicted_doublet"], "doublet_score")}
    flags |= {f"low quality: {name}": (table["reason"] == name, column) for name, column in _REASONS.items()}
    rows = {name: (int(flag.sum()), int(table[column].notna().sum())) for name, (flag, column) in flags.items()}
    counts = pd.DataFrame.from_dict(rows, orient="index", columns=["cells", "of"]).query("of > 0")
    return pd.DataFrame({"cells": counts["cells"], "percent": 100 * counts["cells"] / counts["of"]})


def low_quality(table: pd.DataFrame) -> pd.Series:
    """Return why each cell of a batch is of low quality, [n]; empty if it is not."""
    reason = pd.Series("", index=table.index)
    counts, genes, proteins = (
        mads_from_median(np.log1p(table[name])) for name in ("total_counts", "n_genes_by_counts", "protein_counts")
    )
    percent = table["pct_counts_mt"]
    # If most cells have no such counts, as in nuclei, nothing deviates from their median: the percentage decides alone.
    dying = (percent > MITOCHONDRIAL) & ~(mads_from_median(percent) <= MITOCHONDRIAL_MADS)
    tests = (counts < -FEW_MADS, genes < -FEW_MADS, dying, proteins < -FEW_MADS, proteins > FEW_MADS)
    for name, hit in reversed(list(zip(_REASONS, tests))):  # the first that applies is given
        reason[hit] = name
    return reason


def _with_bound_proteins(cite: CiteSeq) -> tuple[CiteSeq, np.ndarray]:
    """Return the cells with the proteins that bind them by type, and which of these are isotype controls, bool [p]."""
    if cite.protein is None:
        return cite, np.empty(0, dtype=bool)
    kind = resolve_antibodies(cite.protein.var_names).table["kind"].to_numpy()
    bound = np.isin(kind, _BOUND)
    return replace(cite, protein=cite.protein[:, bound].copy()), kind[bound] == "isotype"


def _counted(cite: CiteSeq, species: str | None) -> pd.DataFrame:
    """Return the counts of each cell."""
    counts = cite.rna.X
    table = pd.DataFrame({"total_counts": library_sizes(counts)}, index=cite.rna.obs_names)
    table["n_genes_by_counts"] = np.diff(counts.indptr)
    mitochondrial = _mitochondrial(cite.rna, species)
    share = np.asarray(counts[:, mitochondrial].sum(axis=1)).ravel() / np.maximum(table["total_counts"], 1)
    table["pct_counts_mt"] = 100 * share if mitochondrial.any() else np.nan
    table["protein_counts"] = np.nan
    if cite.protein is not None:
        proteins = cite.protein.X
        table["protein_counts"] = np.where(np.isfinite(proteins).any(axis=1), np.nansum(proteins, axis=1), np.nan)
    return table


def _mitochondrial(rna: AnnData, species: str | None) -> np.ndarray:
    try:
        genes = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=species).table
    except FeatureError:  # of another species
        return np.zeros(rna.n_vars, dtype=bool)
    return (genes["chromosome"] == "MT").fillna(False).to_numpy(bool)


def _of_batch(cite: CiteSeq, table: pd.DataFrame, controls: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the table of one batch with its flags."""
    score, called = np.full(len(table), np.nan), np.zeros(len(table), dtype=bool)
    if len(table) >= FEWEST_CELLS:
        protein = None
        if cite.protein is not None:
            measured = np.isfinite(cite.protein.X).any(axis=0)
            protein, controls = cite.protein.X[:, measured], controls[measured]
        score, called = doublets(cite.rna.X, protein, controls, seed=seed)
    reason = low_quality(table)
    return table.assign(
        doublet_score=score, predicted_doublet=called, low_quality=(reason != "").to_numpy(), reason=reason
    )
