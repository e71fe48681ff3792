"""What is wrong, odd or worth knowing about an input, before anything is computed from it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.cells import Cells, CiteSeq, assemble, count_findings
from scfusionttt.data.counts import Finding, named
from scfusionttt.data.transforms import library_sizes
from scfusionttt.errors import InputDataError, UserError
from scfusionttt.io.read import read
from scfusionttt.labels import label_columns

__all__ = ["Finding", "Report", "Summary", "check", "drop_empty", "require_usable", "summarize", "validate"]

FEW_GENES = 200
FEW_CELLS = 50
#: Library sizes further than this many scaled median absolute deviations (log10) from the median are noted.
OUTLIER_MADS = 5.0
_SPECIES_PREFIXES = {
    "human": ("hg19_", "hg38_", "grch37_", "grch38_"),
    "mouse": ("mm10_", "mm9_", "grcm38_", "grcm39_"),
}


@dataclass(frozen=True)
class Summary:
    """Size of an input; library sizes are counts per cell, `density` the share of RNA entries that are not zero.

    `labels` holds the obs columns that could be labels, each with its classes and their numbers of cells.
    """

    cells: int
    genes: int
    proteins: int
    density: float
    median_rna_counts: float | None
    median_protein_counts: float | None
    labels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Report:
    """All findings about an input, errors first; `summary` is None where the input could not be read that far."""

    source: str
    summary: Summary | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid the use of the input."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            "source": self.source,
            "usable": not self.errors,
            "summary": None if self.summary is None else asdict(self.summary),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        shown = [f"{self.source}: {'not usable as it is' if self.errors else 'usable'}"]
        if self.summary is not None:
            shown += _summary_lines(self.summary)
        return shown + [f"{finding.severity:7} {finding.code}: {finding}" for finding in self.findings]


def validate(
    data: str | Path | AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: Cells = "same",
    layer: str | None = None,
) -> Report:
    """Read and check an input; a user's mistake becomes an error finding instead of an exception.

    The options are those of `citeseq.as_citeseq`.
    """
    source = str(data) if isinstance(data, str | Path) else type(data).__name__
    try:
        loaded = read(data) if isinstance(data, str | Path) else data
        cite, found = assemble(
            loaded, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, layer=layer
        )
    except UserError as error:
        return Report(source, None, (Finding("error", type(error).__name__, str(error)),))
    rank = ("error", "warning", "note").index
    findings = sorted([*found, *check(cite)], key=lambda finding: rank(finding.severity))
    return Report(source, summarize(cite), tuple(findings))


def check(cite: CiteSeq) -> list[Finding]:
    """Find everything that is wrong or odd about cells that were brought together."""
    found = [*_names(cite), *count_findings(cite), *_sizes(cite), *_empty(cite)]
    if cite.protein is not None:
        found += _proteins(cite.protein)
    return found


def require_usable(report: Report | Iterable[Finding]) -> None:
    """Raise the first error of a report, with its remedy, as InputDataError."""
    findings = report.findings if isinstance(report, Report) else report
    for finding in findings:
        if finding.severity == "error":
            raise InputDataError(str(finding))


def drop_empty(cite: CiteSeq) -> tuple[CiteSeq, list[str]]:
    """Leave out the cells without RNA counts (whatever their proteins); return also their names."""
    empty = library_sizes(cite.rna.X) == 0
    if not empty.any():
        return cite, []
    if empty.all():
        raise InputDataError("every cell is empty (no RNA counts); check that the right matrix was given")
    return cite[~empty], list(cite.rna.obs_names[empty])


def summarize(cite: CiteSeq) -> Summary:
    """Return the size of an input and the obs columns that could be labels."""
    matrix, protein = cite.rna.X, cite.protein
    return Summary(
        cells=cite.rna.n_obs,
        genes=cite.rna.n_vars,
        proteins=0 if protein is None else protein.n_vars,
        density=matrix.nnz / max(matrix.shape[0] * matrix.shape[1], 1),
        median_rna_counts=_median(library_sizes(matrix)),
        median_protein_counts=None if protein is None else _median(_protein_sizes(protein.X)),
        labels=label_columns(cite.obs),
    )


def _protein_sizes(matrix: np.ndarray) -> np.ndarray:
    """Return the protein counts of each cell in which any was measured."""
    measured = ~np.isnan(matrix).all(axis=1)
    return np.asarray(np.nansum(matrix[measured], axis=1, dtype=np.float64))


def _median(sizes: np.ndarray) -> float | None:
    """Return the median of the finite library sizes, None where there is none (JSON knows no NaN)."""
    finite = sizes[np.isfinite(sizes)]
    return float(np.median(finite)) if len(finite) else None


def _names(cite: CiteSeq) -> list[Finding]:
    """Find repeated names, names that are not text, and genes of two species."""
    found = []
    tables = {"cell": cite.rna.obs_names, "gene": cite.rna.var_names}
    if cite.protein is not None:
        tables["protein"] = cite.protein.var_names
    for noun, names in tables.items():
        repeated = tuple(map(str, names[names.duplicated()].unique()))
        if repeated:
            told = f"{named(repeated, f'{noun} name')} {'occurs' if len(repeated) == 1 else 'occur'} more than once"
            remedy = "make them unique" if noun == "cell" else "all are kept and told apart by id and position"
            found.append(
                Finding("error" if noun == "cell" else "warning", f"duplicated_{noun}s", told, remedy, repeated)
            )
        odd = tuple(str(name) for name in names if not isinstance(name, str) or name.strip() in ("", "nan"))
        if odd:
            told = f"{named(odd, f'{noun} name')} {'is' if len(odd) == 1 else 'are'} blank or not text"
            found.append(Finding("warning", f"odd_{noun}_names", told, "give them names", odd))
    lower = cite.rna.var_names.astype(str).str.lower()
    of_species = {species: lower.str.startswith(prefixes) for species, prefixes in _SPECIES_PREFIXES.items()}
    if all(hits.any() for hits in of_species.values()):
        told = " and ".join(f"{hits.sum()} {species}" for species, hits in of_species.items())
        found.append(
            Finding("warning", "mixed_species", f"{told} genes by prefix", "keep one species, cells and genes")
        )
    return found


def _sizes(cite: CiteSeq) -> list[Finding]:
    """Find inputs with few cells or genes, and cells with an odd library size."""
    found = []
    n_cells, n_genes = cite.rna.shape
    if not n_cells or not n_genes:
        return [
            Finding("error", "nothing_there", f"there are {n_cells} cells and {n_genes} genes", "give another file")
        ]
    if n_cells < FEW_CELLS:
        told = f"there {'is 1 cell' if n_cells == 1 else f'are {n_cells} cells'} only"
        found.append(Finding("warning", "few_cells", told, "training needs hundreds; embedding with a model works"))
    if n_genes < FEW_GENES:
        told = f"there {'is 1 gene' if n_genes == 1 else f'are {n_genes} genes'} only"
        found.append(Finding("warning", "few_genes", told, "give all genes measured, not a marker panel"))
    sizes = library_sizes(cite.rna.X)
    full = np.flatnonzero((sizes > 0) & np.isfinite(sizes))
    if len(full):
        log = np.log10(sizes[full])
        spread = 1.4826 * np.median(np.abs(log - np.median(log)))
        far = full[np.abs(log - np.median(log)) > OUTLIER_MADS * spread] if spread > 0 else full[:0]
        if len(far):
            names = tuple(map(str, cite.rna.obs_names[far]))
            told = f"the library size of {named(names, 'cell')} is far from the median {np.median(sizes[full]):.0f}"
            found.append(
                Finding("note", "library_size_outliers", told, "doublets, debris or a type of their own?", names)
            )
    return found


def _empty(cite: CiteSeq) -> list[Finding]:
    """Find cells and genes without RNA counts."""
    found = []
    cells = tuple(map(str, cite.rna.obs_names[library_sizes(cite.rna.X) == 0]))
    if cells and cite.rna.n_vars:
        told = f"no RNA counts in {named(cells, 'cell')}"
        found.append(Finding("error", "empty_cells", told, "leave them out with --drop-empty", cells))
    genes = tuple(map(str, cite.rna.var_names[np.asarray(cite.rna.X.sum(axis=0)).ravel() == 0]))
    if genes and cite.rna.n_obs:
        told = f"no counts in any cell for {named(genes, 'gene')}"
        found.append(Finding("warning", "empty_genes", told, "they carry no information here", genes))
    return found


def _proteins(protein: AnnData) -> list[Finding]:
    """Find proteins that are zero or missing throughout, and cells in which proteins were not measured."""
    found = []
    missing = np.isnan(protein.X)
    unmeasured = missing.all(axis=0)
    zero = ~unmeasured & (missing | (protein.X == 0)).all(axis=0)
    names = tuple(map(str, protein.var_names[zero]))
    if names:
        told = f"every count is zero for {named(names, 'protein')}, taken as measured zeros"
        found.append(Finding("warning", "empty_proteins", told, "where it was not measured, write NaN", names))
    names = tuple(map(str, protein.var_names[unmeasured]))
    if names and protein.n_obs:
        found.append(
            Finding("warning", "unmeasured_proteins", f"measured in no cell: {named(names, 'protein')}", "", names)
        )
    names = tuple(map(str, protein.obs_names[missing.any(axis=1)]))
    if names:
        told = f"proteins not measured (NaN) in {named(names, 'cell')}"
        found.append(Finding("note", "missing_proteins", told, "they are masked, not filled with zeros", names))
    return found


def _summary_lines(summary: Summary) -> list[str]:
    protein = f", {summary.proteins} proteins" if summary.proteins else ", no proteins"
    medians = {"RNA": summary.median_rna_counts, "proteins": summary.median_protein_counts}
    known = ", ".join(f"{name} {median:.0f}" for name, median in medians.items() if median is not None)
    shown = [
        f"{summary.cells} cells, {summary.genes} genes{protein}; {summary.density:.1%} of the RNA entries are not zero",
        f"median counts per cell: {known or 'none'}",
    ]
    for column, counts in summary.labels.items():
        classes = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:5])
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        shown.append(f"could be labels: {column} ({len(counts)} classes: {classes}{more})")
    return shown
