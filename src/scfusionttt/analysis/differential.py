"""Differential expression of genes and proteins between groups of cells, from raw counts."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy.stats import false_discovery_control

from scfusionttt.data.assemble import assemble
from scfusionttt.data.cells import CellSelection, CiteSeq, count_findings, feature_panels, require_rna
from scfusionttt.data.findings import raise_or_warn
from scfusionttt.data.inplace import writable
from scfusionttt.data.modalities import find_modality
from scfusionttt.data.proteins import protein_columns
from scfusionttt.data.transforms import clr, log_normalize
from scfusionttt.errors import InputDataError, LabelError, missing_extra, name_some, require
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import PROTEIN_MODALITIES, RANKED, RNA_MODALITIES
from scfusionttt.labels import class_names, label_names, obs_column
from scfusionttt.masks import measured_together
from scfusionttt.threads import threads_kept

log = logging.getLogger("scfusionttt")

Modality = Literal["rna", "protein"]

#: Fewest cells of a donor in a group for their sum, and fewest donors of a group.
FEWEST_CELLS, FEWEST_DONORS = 10, 2
#: Features with fewer counts than this in all sums are not tested.
FEWEST_COUNTS = 10
REST = "rest"
#: Fewest cells of a group, and of its reference, for the test of cells.
_FEWEST_MEASURED = 2


def differential(
    data: AnnData | MuData | CiteSeq,
    groupby: str,
    *,
    modality: Modality = "rna",
    groups: str | int | Sequence[str | int] | None = None,
    reference: str = REST,
    donor_key: str | None = None,
    inplace: bool = False,
    key_added: str | None = None,
    layer: str | None = None,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: CellSelection = "same",
    round: bool = False,
) -> pd.DataFrame:
    """Rank the genes or proteins that differ between groups of cells.

    With `donor_key`, donors are the replicates: the counts of each donor are summed in the group and in those that it
    is compared with, and DESeq2 (Love et al. 2014; PyDESeq2, ``pip install 'scfusionttt[de]'``) tests the sums, paired
    by donor where all donors have both. Without donors, cells are the replicates: the Wilcoxon rank-sum test of scanpy
    on log-normalised genes or centred log-ratios of proteins. Its p-values only rank features: cells of one donor are
    not independent. Raw counts are used, never imputed values. Each feature is tested in the cells in which it was
    measured.

    Parameters
    ----------
    groupby
        obs column with the groups; cells without a label are left out.
    modality
        ``rna`` or ``protein``.
    groups, reference
        Groups to test, and the group to compare them with, by default all other cells. By default, all groups are
        tested but those with too few cells or donors, which a warning names.
    donor_key
        obs column with donors: at least 2 with 10 cells in each of the groups compared.
    inplace
        Also write ``uns["rank_genes_groups"]``, which ``sc.get.rank_genes_groups_df`` and scanpy's plots read: in the
        modality of a MuData. Plots that show cells, such as dot plots, need the column `groupby` there as well.
        Proteins of an AnnData are in ``uns["rank_genes_groups_protein"]``.
    key_added
        Another name for it.
    layer, rna_modality, protein_modality, cells, round
        See :func:`~scfusionttt.data.assemble.as_citeseq`.

    Returns
    -------
    DataFrame with the columns group, names, scores (z or Wald statistic), logfoldchanges (base 2), pvals and pvals_adj
    (Benjamini-Hochberg), as of ``sc.get.rank_genes_groups_df``; highest score first. Features with too few counts, and
    those that DESeq2 rejects because a donor is an outlier, have a score of 0 and p-values of 1. Features measured in
    too few cells of a group or its reference are NaN.

    Raises
    ------
    LabelError, SettingError, InputDataError
        There is no such column or group, a chosen group or all have too few cells or donors, PyDESeq2 is not installed,
        or `inplace` is set with an object that results cannot be written into.
    """
    require(modality in get_args(Modality), f"modality must be rna or protein (got {modality!r})")
    cite, findings = assemble(
        data, layer=layer, rna_modality=rna_modality, protein_modality=protein_modality, cells=cells, round=round
    )
    raise_or_warn([*findings, *count_findings(cite)])
    require_rna(cite, "differential expression")
    group = label_names(obs_column(cite.obs, groupby))
    reference = class_names([reference])[0]
    groups = [groups] if isinstance(groups, str | int) else groups
    tested_groups = _groups(group, groups, reference, groupby)
    donor = None if donor_key is None else class_names(obs_column(cite.obs, donor_key, role="batches"))
    target, key = _target(data, modality, rna_modality, protein_modality) if inplace else (None, "")
    tables = _tables(cite, modality, group, tested_groups, reference, donor, chosen=groups is not None)
    if target is not None:
        method = "wilcoxon" if donor_key is None else "deseq2 (pseudobulk)"
        params = {"groupby": groupby, "reference": reference, "method": method, "use_raw": False, "layer": layer}
        params["corr_method"] = "benjamini-hochberg"
        target.uns[key_added or key] = ranked(tables, params)
    return pd.concat([table.assign(group=name) for name, table in tables.items()], ignore_index=True)[
        ["group", "names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
    ]


def ranked(tables: dict[str, pd.DataFrame], params: dict[str, Any]) -> dict[str, Any]:
    """Return tables by group as scanpy stores them: a record array [features] of each column, with a field by group."""
    result: dict[str, Any] = {"params": params}
    for column in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        kind = object if column == "names" else float
        fields = {name: table[column].to_numpy(kind) for name, table in tables.items()}
        result[column] = pd.DataFrame(fields).to_records(index=False)
    return result


def _groups(group: np.ndarray, wanted: Sequence[str | int] | None, reference: str, key: str) -> list[str]:
    """Return the groups to test; raise an error if they cannot be compared."""
    known = sorted(set(group) - {""})
    if REST in known:
        raise LabelError(f"rename the group '{REST}' of obs['{key}'], the name for all other cells")
    tested_groups = [name for name in (known if wanted is None else class_names(list(wanted))) if name != reference]
    for name in [*([] if wanted is None else tested_groups), *([] if reference == REST else [reference])]:
        if name not in known:
            raise LabelError(f"obs['{key}'] has no group '{name}'; it has {', '.join(known)}")
        if (group == name).sum() < 2:
            raise LabelError(f"group '{name}' of obs['{key}'] has 1 cell; choose groups of at least 2")
    if len(known) < 2 or not tested_groups:
        raise LabelError(f"obs['{key}'] has a single group to compare; it needs two")
    return tested_groups


def _tables(
    cite: CiteSeq, modality: Modality, group: np.ndarray, groups: list[str], reference: str, donor: np.ndarray | None,
    *, chosen: bool,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Return the table of each group [f], which has all features, NaN where they were not measured in enough cells.

    Groups of too few cells or donors are left out, unless they were `chosen` or none remains.
    """
    features: list[str] = []
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in groups}
    refused: dict[str, InputDataError] = {}
    for part, own in _parts(cite, modality, group != ""):
        features.extend(own)
        rows = cite.rna.obs_names.get_indexer(part.obs_names)
        tables = {}
        if donor is None:
            enough = [name for name in groups if _smaller_side(group[rows], name, reference) >= _FEWEST_MEASURED]
            tables = _by_cells(part, group[rows], enough, reference, modality) if enough else {}
        else:
            for name in groups:
                try:
                    tables[name] = _by_donors(part, group[rows], name, reference, donor[rows])
                except InputDataError as error:  # too few donors were measured
                    refused[name] = error
        for name, table in tables.items():
            found[name].append(table[table["names"].isin(own)])
    untested = [name for name in groups if not found[name]]
    if untested and (chosen or len(untested) == len(groups)):
        raise refused.get(untested[0]) or InputDataError(
            f"no {'gene' if modality == 'rna' else modality} was measured in {_FEWEST_MEASURED} cells of group "
            f"{name_some(untested)} and {_FEWEST_MEASURED} of {reference}; choose other groups or another reference"
        )
    if untested:
        few = "cells" if donor is None else f"donors with at least {FEWEST_CELLS} cells"
        log.warning("warning: left out for lack of %s: group %s", few, name_some(untested, most=8))
    return {name: _joined(tables, features) for name, tables in found.items() if tables}


def _parts(cite: CiteSeq, modality: Modality, kept: np.ndarray) -> Iterator[tuple[AnnData, pd.Index]]:
    """Yield raw counts of the cells that have a group, and the names of the features to test in them.

    Features measured in the same cells are tested together. The counts also have the others that were measured in all
    of these cells, since the depth of a cell, and of a sample in DESeq2, is that of all features.
    """
    features = cite.rna if modality == "rna" else cite.protein
    if features is None:
        raise InputDataError("no proteins found; choose them with protein_modality")
    counts = features[kept]
    names = counts.var_names
    if modality == "rna":
        panel, measured = feature_panels(counts)
    else:
        names = protein_columns(names)
        panel, measured = np.arange(counts.n_obs), np.isfinite(counts.X)
    for panels, own in measured_together(measured):
        cells = panels[panel]
        if cells.any():
            shared = measured[np.unique(panel[cells])].all(axis=0)
            with quiet():
                part = counts[cells, shared].copy()
            part.var_names = names[shared]
            yield part, names[own]


def _joined(tables: list[pd.DataFrame], features: list[str]) -> pd.DataFrame:
    """Return the table of all features of a group, with p-values adjusted for all that were tested."""
    table = pd.concat(tables)
    if len(tables) > 1:
        table["pvals_adj"] = false_discovery_control(table["pvals"])
    missing = pd.DataFrame({"names": pd.Index(features).difference(pd.Index(table["names"]), sort=False)})
    return pd.concat([table, missing]).sort_values("scores", ascending=False, kind="stable", ignore_index=True)


def _smaller_side(group: np.ndarray, name: str, reference: str) -> int:
    """Return the number of cells of a group or of its reference, whichever is smaller."""
    compared = group != name if reference == REST else group == reference
    return int(min((group == name).sum(), compared.sum()))


def _by_cells(
    part: AnnData, group: np.ndarray, groups: list[str], reference: str, modality: Modality
) -> dict[str, pd.DataFrame]:
    """Return scanpy's Wilcoxon test of each group."""
    import scanpy as sc

    values = log_normalize(part.X) if modality == "rna" else clr(part.X)
    cells = AnnData(values, obs=pd.DataFrame({"group": pd.Categorical(group)}, index=part.obs_names), var=part.var[[]])
    with threads_kept(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant features, and scanpy's use of pandas
        sc.tl.rank_genes_groups(cells, "group", groups=groups, reference=reference, method="wilcoxon")
        return {name: sc.get.rank_genes_groups_df(cells, name) for name in groups}


def _by_donors(part: AnnData, group: np.ndarray, name: str, reference: str, donor: np.ndarray) -> pd.DataFrame:
    """Return DESeq2's test of the sums of one group."""
    sums, samples = pseudobulk(part, group, name, reference, donor)
    tested = sums.sum(axis=0) >= FEWEST_COUNTS
    if tested.sum() < 2:
        raise InputDataError(
            f"DESeq2 needs at least 2 features with {FEWEST_COUNTS} counts, measured in the same cells; leave out "
            "donor_key"
        )
    table = pd.DataFrame(
        {"names": part.var_names.astype(str), "scores": 0.0, "logfoldchanges": 0.0, "pvals": 1.0, "pvals_adj": 1.0}
    )
    found = _deseq2(sums[:, tested], samples)
    found.loc[found["pvals"].isna(), "scores"] = 0.0  # rejected as outliers
    table.loc[tested, found.columns] = found.to_numpy()
    return table.fillna({"scores": 0.0, "logfoldchanges": 0.0, "pvals": 1.0, "pvals_adj": 1.0}).sort_values(
        "scores", ascending=False, kind="stable", ignore_index=True
    )  # fmt: skip


def pseudobulk(
    part: AnnData, group: np.ndarray, name: str, reference: str, donor: np.ndarray
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the summed counts [samples, f] of each donor in a group and in the reference, and what they are sums of.

    Donors with fewer than 10 cells on a side have no sum there.
    """
    side = np.where(group == name, "group", np.where((group == reference) | (reference == REST), "reference", ""))
    sums, rows = [], []
    for one in sorted(set(donor) - {""}):
        for which in ("group", "reference"):
            chosen = np.flatnonzero((donor == one) & (side == which))
            if len(chosen) >= FEWEST_CELLS:
                sums.append(np.asarray(part.X[chosen].sum(axis=0)).ravel())
                rows.append({"donor": one, "side": which})
    samples = pd.DataFrame(rows, columns=["donor", "side"])
    for which, title in (("group", f"group '{name}'"), ("reference", f"'{reference}', the reference of '{name}',")):
        n = int((samples["side"] == which).sum())
        if n < FEWEST_DONORS:
            raise InputDataError(
                f"{title} has {n} donor{'s' * (n != 1)} with at least {FEWEST_CELLS} cells; {FEWEST_DONORS} are "
                "needed: choose other groups, or leave out donor_key to compare cells"
            )
    samples.index = pd.Index([f"s{i}" for i in range(len(samples))])
    return np.rint(np.array(sums)).astype(int), samples


def _deseq2(sums: np.ndarray, samples: pd.DataFrame) -> pd.DataFrame:
    """Return scores, logfoldchanges, pvals and pvals_adj of each feature."""
    try:
        from pydeseq2.dds import DeseqDataSet
        from pydeseq2.ds import DeseqStats
    except ModuleNotFoundError as error:
        raise missing_extra("de", "donor_key needs PyDESeq2") from error
    paired = (samples["donor"].value_counts() == 2).all()
    counts = pd.DataFrame(sums, index=samples.index)
    counts.columns = counts.columns.astype(str)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        fitted = DeseqDataSet(
            counts=counts, metadata=samples, design="~donor + side" if paired else "~side", quiet=True, n_cpus=1
        )
        fitted.deseq2()
        tests = DeseqStats(fitted, contrast=["side", "group", "reference"], quiet=True, n_cpus=1)
        tests.summary()
    columns = {"stat": "scores", "log2FoldChange": "logfoldchanges", "pvalue": "pvals", "padj": "pvals_adj"}
    return tests.results_df.rename(columns=columns)[list(columns.values())]


def _target(
    data: AnnData | MuData | CiteSeq, modality: Modality, rna_modality: str | None, protein_modality: str | None
) -> tuple[AnnData, str]:
    """Return the AnnData whose uns holds the result, and its name there."""
    data = writable(data)
    if isinstance(data, MuData):
        names = (RNA_MODALITIES, rna_modality) if modality == "rna" else (PROTEIN_MODALITIES, protein_modality)
        found = find_modality(data.mod, *names)
        if found is not None:
            return data.mod[found], RANKED
        data = data.mod[find_modality(data.mod, RNA_MODALITIES, rna_modality) or ""]  # it has both
    return data, RANKED if modality == "rna" else f"{RANKED}_protein"
