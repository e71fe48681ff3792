"""Checks of an input before anything is computed from it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.assemble import assemble
from scfusionttt.data.cells import CellSelection, CiteSeq, by_modality, count_findings, has_rna
from scfusionttt.data.features import require_placed
from scfusionttt.data.findings import Finding, named
from scfusionttt.data.transforms import library_sizes, mads_from_median
from scfusionttt.errors import FeatureError, InputDataError, UserError
from scfusionttt.genome.names import PREFIXES, species_prefix
from scfusionttt.genome.resolve import resolve_genes
from scfusionttt.io.read import read
from scfusionttt.labels import label_columns

FEW_GENES = 200
FEW_CELLS = 50
#: Library sizes (log10) more than this many scaled median absolute deviations from the median are reported.
OUTLIER_MADS = 5.0
#: An input looks unfiltered if at least this fraction of its barcodes have a tenth of the counts of the best ones, and
#: the median barcode has fewer counts than any cell.
UNFILTERED_SHARE = 0.8
UNFILTERED_MEDIAN = 10


@dataclass(frozen=True)
class Summary:
    """Size of an input.

    Attributes
    ----------
    modalities
        Number of cells with ``both`` RNA and proteins, ``RNA alone`` and ``proteins alone``.
    density
        Fraction of nonzero RNA entries.
    median_rna_counts, median_protein_counts
        Counts per cell.
    labels
        obs columns that could be labels, each with its classes and their numbers of cells.
    """

    cells: int
    genes: int
    proteins: int
    modalities: dict[str, int]
    density: float
    median_rna_counts: float | None
    median_protein_counts: float | None
    labels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Report:
    """All findings about an input, errors first; `summary` is None if the input could not be read."""

    source: str
    summary: Summary | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the input unusable."""
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
        lines = [f"{self.source}: {'not usable as it is' if self.errors else 'usable'}"]
        if self.summary is not None:
            lines += _summary_lines(self.summary)
        return lines + [f"{finding.severity:7} {finding.code}: {finding}" for finding in self.findings]


def validate(
    data: str | Path | AnnData | MuData | CiteSeq,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: CellSelection = "same",
    layer: str | None = None,
    round: bool = False,
    species: str | None = None,
) -> Report:
    """Read and check an input; errors in it are findings of the report, not exceptions.

    Parameters
    ----------
    data
        The input, or its path.
    rna_modality, protein_modality, cells, layer, round
        See :func:`~scfusionttt.data.assemble.as_citeseq`.
    species
        ``human`` or ``mouse``; None: inferred from the gene names.
    """
    source = str(data) if isinstance(data, str | Path) else type(data).__name__
    try:
        loaded = read(data) if isinstance(data, str | Path) else data
        cite, findings = assemble(
            loaded, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, layer=layer, round=round
        )
    except UserError as error:
        return Report(source, None, (Finding("error", type(error).__name__, str(error)),))
    order = ("error", "warning", "note").index
    findings += [*_genes(cite, species), *check(cite)]
    findings = sorted(findings, key=lambda finding: order(finding.severity))
    return Report(source, summarize(cite), tuple(findings))


def check(cite: CiteSeq) -> list[Finding]:
    """Report invalid and unusual names, counts and sizes."""
    rna = cite.with_rna()
    findings = [*_names(cite), *count_findings(cite)]
    if rna.rna.n_obs or not cite.rna.n_obs:
        findings += unfiltered(library_sizes(rna.rna.X)) or [*_sizes(rna), *_empty(rna)]
    return findings if cite.protein is None else [*findings, *_proteins(cite.protein)]


def drop_empty(cite: CiteSeq) -> tuple[CiteSeq, list[str]]:
    """Return the cells with RNA counts, and the names of those without."""
    empty = (library_sizes(cite.rna.X) == 0) & has_rna(cite.rna)
    if not empty.any():
        return cite, []
    if empty.all():
        raise InputDataError("every cell is empty (no RNA counts); check that this is the right matrix")
    return cite[~empty], list(cite.rna.obs_names[empty])


def summarize(cite: CiteSeq) -> Summary:
    """Return the size of an input and the obs columns that could be labels."""
    matrix, protein = cite.with_rna().rna.X, cite.protein
    return Summary(
        cells=cite.rna.n_obs,
        genes=cite.rna.n_vars,
        proteins=0 if protein is None else protein.n_vars,
        modalities=by_modality(cite),
        density=matrix.nnz / max(matrix.shape[0] * matrix.shape[1], 1),
        median_rna_counts=_median(library_sizes(matrix)),
        median_protein_counts=None if protein is None else _median(_protein_sizes(protein.X)),
        labels=label_columns(cite.obs),
    )


def _protein_sizes(matrix: np.ndarray) -> np.ndarray:
    """Return the total protein counts of each cell with any measured protein."""
    measured = ~np.isnan(matrix).all(axis=1)
    return np.asarray(np.nansum(matrix[measured], axis=1, dtype=np.float64))


def _median(sizes: np.ndarray) -> float | None:
    """Return the median of the finite library sizes; None, which JSON can hold, if there are none."""
    finite = sizes[np.isfinite(sizes)]
    return float(np.median(finite)) if len(finite) else None


def _genes(cite: CiteSeq, species: str | None) -> list[Finding]:
    """Report genes of an unknown or mixed species, on which no model can be trained."""
    if not cite.rna.n_vars:
        return []
    try:
        require_placed(resolve_genes(cite.rna.var_names, gene_ids=cite.rna.var.get("gene_ids"), species=species))
    except FeatureError as error:
        return [Finding("error", "unknown_genes", str(error))]
    return []


def _names(cite: CiteSeq) -> Iterator[Finding]:
    """Report repeated names, names that are not text, and genes of two species."""
    tables = {"cell": cite.rna.obs_names, "gene": cite.rna.var_names}
    if cite.protein is not None:
        tables["protein"] = cite.protein.var_names
    for noun, names in tables.items():
        if repeated := _as_text(names[names.duplicated()].unique()):
            message = f"{named(repeated, f'{noun} name')} {'occurs' if len(repeated) == 1 else 'occur'} more than once"
            remedy = "make them unique" if noun == "cell" else "all are kept, distinguished by id and position"
            severity: Literal["error", "warning"] = "error" if noun == "cell" else "warning"
            yield Finding(severity, f"duplicated_{noun}s", message, remedy, repeated)
        if odd := _as_text(name for name in names if not isinstance(name, str) or name.strip() in ("", "nan")):
            message = f"{named(odd, f'{noun} name')} {'is' if len(odd) == 1 else 'are'} blank or not text"
            yield Finding("warning", f"odd_{noun}_names", message, "rename them", odd)
    genes = cite.rna.var_names.astype(str)
    of_species = {species: genes.str.match(species_prefix(species)) for species in PREFIXES}
    if all(hits.any() for hits in of_species.values()):
        counts = " and ".join(f"{hits.sum()} {species}" for species, hits in of_species.items())
        remedy = "keep the genes and cells of one species"
        yield Finding("warning", "mixed_species", f"{counts} genes by prefix", remedy)


def _as_text(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, names))


def unfiltered(sizes: np.ndarray) -> list[Finding]:
    """Report a matrix of all barcodes from their library sizes [n]: an error if some are empty.

    Without empty barcodes, which the user left out, it is a warning. Findings on empty cells or outliers would mislead.
    """
    if not len(sizes) or not np.median(sizes) < UNFILTERED_MEDIAN:
        return []
    few = np.median(np.sort(sizes)[-100:]) / 10
    share = np.mean(sizes < few)
    if share < UNFILTERED_SHARE:
        return []
    message = f"looks unfiltered: {share:.0%} of {len(sizes)} barcodes have fewer than {np.ceil(few):.0f} counts"
    remedy = "use filtered_feature_bc_matrix, or keep only the barcodes that were called as cells"
    return [Finding("warning" if (sizes > 0).all() else "error", "unfiltered", message, remedy)]


def _sizes(cite: CiteSeq) -> Iterator[Finding]:
    """Report inputs with few cells or genes, and cells with an unusual library size."""
    n_cells, n_genes = cite.rna.shape
    if not n_cells or not n_genes:
        message = f"the input has {n_cells} cells and {n_genes} genes"
        yield Finding("error", "no_counts", message, "choose a file with counts")
        return
    if n_cells < FEW_CELLS:
        message = f"the input has only {n_cells} cell{'' if n_cells == 1 else 's'}"
        yield Finding("warning", "few_cells", message, "training needs hundreds; a trained model can embed them")
    if n_genes < FEW_GENES:
        message = f"the input has only {n_genes} gene{'' if n_genes == 1 else 's'}"
        yield Finding("warning", "few_genes", message, "include all measured genes, not a marker panel")
    sizes = library_sizes(cite.rna.X)
    full = np.flatnonzero((sizes > 0) & np.isfinite(sizes))
    logs = pd.Series(np.log10(sizes[full]), index=cite.rna.obs_names[full])
    if far := _as_text(logs.index[mads_from_median(logs).abs() > OUTLIER_MADS]):
        message = f"the library size of {named(far, 'cell')} is far from the median {np.median(sizes[full]):.0f}"
        yield Finding(
            "note", "library_size_outliers", message, "check for doublets, debris or a distinct cell type", far
        )


def _empty(cite: CiteSeq) -> Iterator[Finding]:
    """Report cells and genes without RNA counts."""
    n_cells, n_genes = cite.rna.shape
    if (cells := _as_text(cite.rna.obs_names[library_sizes(cite.rna.X) == 0])) and n_genes:
        message = f"no RNA counts in {named(cells, 'cell')}"
        yield Finding("error", "empty_cells", message, "leave them out with drop_empty", cells)
    if (genes := _as_text(cite.rna.var_names[np.asarray(cite.rna.X.sum(axis=0)).ravel() == 0])) and n_cells:
        message = f"no counts in any cell for {named(genes, 'gene')}"
        yield Finding("warning", "empty_genes", message, "they carry no information", genes)


def empty_proteins(names: pd.Index, highest: np.ndarray) -> Iterator[Finding]:
    """Report proteins that are zero in all cells, by the highest count of each [p], NaN if it was never measured."""
    if empty := _as_text(names[highest == 0]):
        message = f"all counts are zero for {named(empty, 'protein')}, treated as measured"
        yield Finding("warning", "empty_proteins", message, "use NaN for proteins not measured", empty)


def highest_counts(counts: np.ndarray) -> np.ndarray:
    """Return the highest count of each protein in cells [n, p], NaN if it was measured in none, [p]."""
    return np.asarray(np.fmax.reduce(counts, axis=0, initial=np.nan))


def _proteins(protein: AnnData) -> Iterator[Finding]:
    """Report proteins that are zero or missing in all cells, and cells with proteins that were not measured."""
    missing, highest = np.isnan(protein.X), highest_counts(protein.X)
    yield from empty_proteins(protein.var_names, highest)
    if (names := _as_text(protein.var_names[np.isnan(highest)])) and protein.n_obs:
        yield Finding("warning", "unmeasured_proteins", f"measured in no cell: {named(names, 'protein')}", names=names)
    if names := _as_text(protein.obs_names[missing.any(axis=1)]):
        message = f"proteins not measured (NaN) in {named(names, 'cell')}"
        yield Finding("note", "missing_proteins", message, "they are masked, not set to zero", names)


def _summary_lines(summary: Summary) -> list[str]:
    protein = f", {summary.proteins} proteins" if summary.proteins else ", no proteins"
    medians = {"RNA": summary.median_rna_counts, "proteins": summary.median_protein_counts}
    shown_medians = ", ".join(f"{name} {median:.0f}" for name, median in medians.items() if median is not None)
    n_cells = f"{summary.cells} cells"
    if len(summary.modalities) > 1:
        n_cells += f" ({', '.join(f'{n} with {name}' for name, n in summary.modalities.items())})"
    lines = [
        f"{n_cells}, {summary.genes} genes{protein}; {summary.density:.1%} of the RNA entries are nonzero",
        f"median counts per cell: {shown_medians or 'none'}",
    ]
    for column, counts in summary.labels.items():
        classes = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:5])
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        lines.append(f"possible labels: {column} ({len(counts)} classes: {classes}{more})")
    return lines
