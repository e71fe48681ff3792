"""Inputs of which some cells can be read at a time; matrices stay on disk if the format allows it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.assemble import CountOptions, all_genes, as_citeseq, assemble, joined_obs
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.counts import has_layer, raw_counts
from scfusionttt.data.modalities import (
    antibody_findings,
    find_modality,
    named_after_proteins,
    protein_tables,
    transposed_findings,
)
from scfusionttt.errors import InputDataError, UserError
from scfusionttt.io.integrity import check_zarr, damaged, is_store, is_zarr, load_filters, without_pickle
from scfusionttt.io.partial import modality_names
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.keys import PROTEIN_MODALITIES, RNA_MODALITIES

log = logging.getLogger("scfusionttt")

#: Number of cells, at regular distances, that decide which matrix of an input has the raw counts.
SAMPLE = 500


@dataclass(frozen=True)
class Source:
    """An input whose cells are read in parts.

    Attributes
    ----------
    path
        File or folder.
    n_cells
        Number of cells.
    read
        Function that returns a slice of the cells.
    """

    path: Path
    n_cells: int
    read: Callable[[slice], CiteSeq]


def open_source(path: str | Path, **options: Unpack[CountOptions]) -> Source:
    """Open an input of any kind.

    AnnData and MuData in HDF5 or Zarr are read in parts if counts are dense or CSR and both modalities have the same
    cells in the same order; all other input is read at once. The options are those of `as_citeseq`.

    Raises
    ------
    UserError
        See `read` and `as_citeseq`.
    """
    path = Path(path)
    protein_modality = options.get("protein_modality")
    data = _open_lazily(path, protein_modality)
    if data is not None:
        with naming(path), damaged(path), quiet():
            data = _with_counts_in_x(path, data, options)
    if data is None:
        with naming(path):
            cite = as_citeseq(read(path), **options)
        return Source(path, cite.rna.n_obs, lambda rows: cite[rows])
    if isinstance(data, AnnData) and protein_modality is None:
        _keep_one_table(data)
    return _in_parts(path, data, options)


def _in_parts(path: Path, data: AnnData | MuData, options: CountOptions) -> Source:
    """Return a source that reads and assembles cells on demand, and logs each of its warnings once."""
    logged: set[str] = set()
    obs = _joined_obs(path, data, options.get("rna_modality"))

    def part(rows: slice) -> CiteSeq:
        with naming(path), damaged(path), quiet():
            cite, findings = assemble(data[rows], **options)
        for text in {str(finding) for finding in findings if finding.severity == "warning"} - logged:
            log.warning("warning: %s: %s", path, text)
            logged.add(text)
        return cite if obs is None else replace(cite, obs=obs.iloc[rows])

    features = part(slice(0, 1)).rna.var
    for finding in [*transposed_findings(data.obs_names, features.index), *antibody_findings(features)]:
        if finding.severity == "error":
            raise InputDataError(f"{path}: {finding}")
        log.warning("warning: %s: %s", path, finding)
    return Source(path, data.n_obs, part)


def _joined_obs(path: Path, data: AnnData | MuData, rna_modality: str | None) -> pd.DataFrame | None:
    """Return the joined obs of all cells of a MuData, since parts of them could differ in which columns are empty."""
    if not isinstance(data, MuData):
        return None
    with naming(path):
        rna = find_modality(data.mod, RNA_MODALITIES, rna_modality)
    return None if rna is None else joined_obs(data, rna)  # without RNA, reading the first cell is an error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prefix errors with the path of the input."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise type(error)(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _open_lazily(path: Path, protein_modality: str | None) -> AnnData | MuData | None:
    """Return AnnData or MuData with matrices on disk; None if the format or the cells do not allow it."""
    in_zarr = is_zarr(path)
    if is_store(path) or not (in_zarr or (path.is_file() and h5py.is_hdf5(path))):
        return None
    with damaged(path), without_pickle(path), quiet():
        if in_zarr:
            import zarr

            check_zarr(path, to_memory=False)
            group: Any = zarr.open_group(path, mode="r")
        else:
            load_filters()
            group = h5py.File(path, "r")
        if "mod" in group:
            data: AnnData | MuData | None = _lazy_mudata(group)
        else:
            data = _lazy_anndata(group, protein_modality) if "obs" in group and "var" in group else None
        if data is None and not in_zarr:
            group.close()
        return data


def _with_counts_in_x(path: Path, data: AnnData | MuData, options: CountOptions) -> AnnData | MuData | None:
    """Decide between X and ``.raw`` for all cells, since parts of the cells could differ in which looks like counts.

    None if the cells have to be read to do so. What has the layer that is asked for is left as it is.
    """
    layer = options.get("layer")
    if isinstance(data, AnnData):
        return data if layer is not None else _counts_in_x(path, data, "RNA")
    roles = {
        find_modality(data.mod, RNA_MODALITIES, options.get("rna_modality")): "RNA",
        find_modality(data.mod, PROTEIN_MODALITIES, options.get("protein_modality")): "protein",
    }
    parts = {
        name: _counts_in_x(path, part, roles[name]) if name in roles and not has_layer(part, layer) else part
        for name, part in data.mod.items()
    }
    return _mudata(parts, data.obs)


def _counts_in_x(path: Path, adata: AnnData, modality: str) -> AnnData | None:
    """Return one modality with the counts that some of its cells have, in X, and without ``.raw``."""
    if adata.raw is None or not adata.n_obs:
        return adata
    some = adata[np.unique(np.linspace(0, adata.n_obs - 1, SAMPLE, dtype=int))]
    whole, findings = all_genes(some) if modality == "RNA" else (some, [])
    findings = [*findings, *raw_counts(whole, modality=modality)[1]]
    from_raw = next((finding for finding in findings if finding.code == "counts_from_raw"), None)
    if from_raw is None:
        for finding in findings:
            if finding.code == "more_features_in_raw":
                log.warning("warning: %s: %s", path, finding)
        del adata.raw
        return adata
    if whole is some and adata.raw.n_vars > adata.n_vars:  # only some of its features are used
        return None
    var = adata.raw.var
    if whole is some:  # repeated names cannot be looked up, and are in the same order
        var = adata.var if var.index.equals(adata.var_names) else adata.var.loc[var.index]
    log.warning("warning: %s: %s", path, from_raw)
    return AnnData(adata.raw.X, obs=adata.obs, var=var, obsm=dict(adata.obsm), uns=adata.uns)


def _keep_one_table(data: AnnData) -> None:
    """Keep only the best protein table of all cells, since parts of the cells could differ in theirs."""
    chosen, *others = protein_tables(data) or [""]
    for other in others:
        log.warning(
            "warning: the proteins were taken from obsm['%s'], not from obsm['%s']; choose one with protein_modality",
            chosen, other,
        )  # fmt: skip
        del data.obsm[other]


def _lazy_anndata(group: Any, protein_modality: str | None = None) -> AnnData | None:
    """Return an AnnData with what counts are read from; in obsm and uns, only tables that may hold proteins."""
    from anndata.io import read_elem

    if not (_is_table(group["obs"]) and _is_table(group["var"])):
        return None  # written before anndata 0.7
    matrices = {name: _lazy_matrix(group[name]) for name in ("X", *(f"layers/{key}" for key in group.get("layers", ())))
                if name in group}  # fmt: skip
    if not matrices or any(matrix is None for matrix in matrices.values()):
        return None
    tables = [
        key for key in group.get("obsm", ())
        if key == protein_modality or named_after_proteins(key) or _is_table(group["obsm"][key])
    ]  # fmt: skip
    obsm = {key: read_elem(group["obsm"][key]) for key in tables}
    names = ("protein_names", *(f"{key}_names" for key in tables))
    uns = {key: read_elem(group["uns"][key]) for key in names if key in group.get("uns", ())}
    raw = None
    if "raw/X" in group:  # without .raw, anndata writes an array called raw to Zarr
        raw = {"X": _lazy_matrix(group["raw/X"]), "var": read_elem(group["raw/var"])}
    if raw is not None and raw["X"] is None:
        return None
    return AnnData(
        X=matrices.pop("X", None), obs=read_elem(group["obs"]), var=read_elem(group["var"]), obsm=obsm, uns=uns,
        layers={name.removeprefix("layers/"): matrix for name, matrix in matrices.items()},
        raw=raw,
    )  # fmt: skip


def _lazy_mudata(group: Any) -> MuData | None:
    from anndata.io import read_elem

    modalities = {name: _lazy_anndata(group["mod"][name]) for name in modality_names(group)}
    return _mudata(modalities, read_elem(group["obs"]))


def _mudata(modalities: Mapping[str, AnnData | None], obs: pd.DataFrame) -> MuData | None:
    """Return a MuData; None if a modality is, or has other cells than the whole."""
    if any(part is None or not part.obs_names.equals(obs.index) for part in modalities.values()):
        return None
    mdata = MuData({name: part for name, part in modalities.items() if part is not None})
    mdata.obs = obs
    return mdata


def _lazy_matrix(item: Any) -> Any:
    """Return a matrix that is read on slicing; None for one stored by columns, whose rows are scattered."""
    from anndata.io import sparse_dataset

    kind = item.attrs.get("encoding-type")
    if kind == "csr_matrix":
        return sparse_dataset(item)
    is_dense = hasattr(item, "shape") and np.dtype(item.dtype).kind in "buif" and kind in (None, "array")
    return item if is_dense else None


def _is_table(item: Any) -> bool:
    return item.attrs.get("encoding-type") == "dataframe"
