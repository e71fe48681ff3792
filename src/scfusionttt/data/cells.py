"""CiteSeq, the form in which cells travel through the package."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.data.counts import value_findings
from scfusionttt.data.findings import Finding
from scfusionttt.errors import InputDataError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import INPUT, MEASURED

#: Which cells to use where RNA and proteins have different ones.
CellSelection = Literal["same", "overlap", "rna", "all"]


@dataclass(frozen=True, eq=False)
class CiteSeq:
    """Raw counts of RNA and proteins of the same cells.

    Attributes
    ----------
    rna
        X: raw counts, CSR float32, [n, g]; var as in the input. Where inputs with different genes were joined, or
        some cells have proteins alone, `feature_panels` returns which genes were measured in each cell.
    protein
        X: raw counts, dense float32, [n, p], NaN = not measured; cells as in `rna`. None for RNA-only input.
    obs
        Labels and metadata, [n, ...], indexed by cell name.
    findings
        What checking the cells reported, so that they are checked once; None: not checked yet.
    """

    rna: AnnData
    protein: AnnData | None
    obs: pd.DataFrame
    findings: tuple[Finding, ...] | None = field(default=None, kw_only=True, repr=False)

    def __getitem__(self, cells: Any) -> "CiteSeq":
        """Return a copy of the cells chosen by a boolean mask or by positions."""
        with quiet():
            protein = None if self.protein is None else self.protein[cells].copy()
            return CiteSeq(self.rna[cells].copy(), protein, self.obs.iloc[cells].copy())

    def with_rna(self) -> "CiteSeq":
        """Return the cells whose RNA was measured."""
        measured = has_rna(self.rna)
        return self if measured.all() else self[measured]

    def blocks(self) -> Iterator["CiteSeq"]:
        """Yield all cells in blocks: in one block from memory, in the order on disk from a store."""
        yield self


def count_findings(cite: CiteSeq) -> list[Finding]:
    """Report values of both modalities that are not raw counts."""
    findings = value_findings(cite.rna.X, cite.rna.obs_names, modality="RNA")
    if cite.protein is not None:
        findings += value_findings(cite.protein.X, cite.protein.obs_names, modality="protein")
    return findings


def feature_panels(cells: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the panel of each cell [n], and which genes or proteins were measured in each panel, bool [k, f]."""
    if MEASURED not in cells.varm:
        return np.zeros(cells.n_obs, dtype=np.int64), np.ones((1, cells.n_vars), dtype=bool)
    measured = cells.varm[MEASURED]  # by name: AnnData drops unused categories
    return measured.columns.get_indexer(cells.obs[INPUT]), measured.to_numpy().T


def content_hash(cite: CiteSeq) -> str:
    """Return the SHA-256 of all counts of cells in memory, and of which genes were measured in each cell."""
    counts = sparse.csr_matrix(cite.rna.X, dtype=np.float32)
    if not (counts.has_canonical_format and counts.data.all()):  # the same counts may be stored in several ways
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    places = counts.indices.astype(np.int32, copy=False), counts.indptr.astype(np.int64, copy=False)
    parts = [counts.data, *places, *feature_panels(cite.rna)]
    if cite.protein is not None:
        parts.append(np.asarray(cite.protein.X, dtype=np.float32))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def has_rna(rna: AnnData) -> np.ndarray:
    """Return in which cells any gene was measured, [n] bool; the others have proteins alone.

    All, if the input has no genes: what it lacks is then not the RNA of some cells.
    """
    panel, measured = feature_panels(rna)
    return np.asarray(measured.any(axis=1) | measured.all(axis=1))[panel]


def by_modality(cite: CiteSeq) -> dict[str, int]:
    """Return how many cells have both modalities, RNA alone and proteins alone; those of none are left out."""
    rna = has_rna(cite.rna)
    protein = np.zeros_like(rna) if cite.protein is None else (~np.isnan(cite.protein.X)).any(axis=1)
    counts = {"both": rna & protein, "RNA alone": rna & ~protein, "proteins alone": ~rna}
    return {name: int(cells.sum()) for name, cells in counts.items() if cells.any()}


def require_rna(cite: CiteSeq, what: str) -> None:
    """Raise InputDataError if `what` reads RNA and some of the cells have none."""
    if not has_rna(cite.rna).all():
        raise InputDataError(f"{what} needs RNA, which some cells lack; leave these out with cells='rna'")


def cells_with_gene(rna: AnnData) -> np.ndarray:
    """Return in how many cells each gene was measured, [g]."""
    panel, measured = feature_panels(rna)
    return np.bincount(panel, minlength=len(measured)) @ measured
