"""The protein counts of an input that need not have RNA: cells with proteins alone, or empty droplets."""

from collections.abc import Iterable

import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from mudata import MuData

from scfusionttt.data.assemble import assemble, protein_part
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.counts import raw_counts, rounded, value_findings
from scfusionttt.data.findings import raise_or_warn
from scfusionttt.data.modalities import antibody_findings, find_modality, protein_tables, split_features
from scfusionttt.errors import InputDataError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import PROTEIN_MODALITIES


def protein_counts(
    data: AnnData | MuData | CiteSeq,
    *,
    protein_modality: str | None = None,
    layer: str | None = None,
    round: bool = False,
) -> AnnData:
    """Return the raw protein counts [n, p], dense float32, NaN = not measured; `data` is not changed.

    An AnnData may have proteins alone. The options are those of `as_citeseq`.

    Raises
    ------
    InputDataError
        There are no proteins, or their values are not raw counts.
    """
    part = _part_with_proteins(data, protein_modality)
    if part is None:
        cite, findings = assemble(data, protein_modality=protein_modality, layer=layer, round=round)
        raise_or_warn(finding for finding in findings if finding.code == "proteins_left_out")
        protein = cite.protein
        if protein is None:
            raise InputDataError("no proteins found; choose them with protein_modality")
    else:
        matrix, findings = raw_counts(part, modality="protein", layer=layer)
        raise_or_warn(finding for finding in findings if not (round and finding.code == "fractional_matrix"))
        protein, findings = protein_part(matrix, part)
        raise_or_warn(findings)
        if round:
            protein.X = rounded(protein.X)
    raise_or_warn(value_findings(protein.X, protein.obs_names, modality="protein"))
    return protein


def protein_columns(names: Iterable[str]) -> pd.Index:
    """Return names of proteins as columns of a table: those of two antibodies of one name are ``CD3`` and ``CD3-1``."""
    with quiet():
        return make_index_unique(pd.Index(list(names), dtype=object))


def _part_with_proteins(data: AnnData | MuData | CiteSeq, protein_modality: str | None) -> AnnData | None:
    """Return the modality of a MuData with the proteins, or an AnnData of proteins alone; else None."""
    if isinstance(data, MuData):
        name = find_modality(data.mod, PROTEIN_MODALITIES, protein_modality)
        return None if name is None else data.mod[name]
    if not isinstance(data, AnnData) or protein_modality is not None or protein_tables(data):
        return None
    is_gene, is_antibody, _ = split_features(data)
    only = is_antibody.all() or any(found.severity == "error" for found in antibody_findings(data.var))
    return data if data.n_vars and (only or (is_antibody.any() and not is_gene.any())) else None
