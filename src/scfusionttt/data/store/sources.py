"""Inputs opened so that some of their cells can be read at a time: matrices stay on disk where the format allows it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.assemble import as_citeseq, assemble
from scfusionttt.data.cells import Cells, CiteSeq
from scfusionttt.data.modalities import protein_tables
from scfusionttt.errors import UserError
from scfusionttt.io.integrity import check_zarr, damaged, is_store, without_pickle
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read

log = logging.getLogger("scfusionttt")


@dataclass(frozen=True)
class Source:
    """An input.

    Attributes
    ----------
    path
        Where it lies.
    n_cells
        How many cells it has.
    read
        Returns cells that stand one after the other.
    """

    path: Path
    n_cells: int
    read: Callable[[slice], CiteSeq]


def open_source(
    path: str | Path,
    *,
    rna_modality: str | None = None,
    protein_modality: str | None = None,
    cells: Cells = "same",
    layer: str | None = None,
) -> Source:
    """Open an input of any kind.

    AnnData and MuData in HDF5 or Zarr, with dense or CSR counts and both modalities of the same cells in the same
    order, are read a part at a time; everything else is read whole. The options are those of `as_citeseq`.

    Raises
    ------
    UserError
        As `read` and `as_citeseq`.
    """
    path = Path(path)
    options: dict[str, Any] = {
        "rna_modality": rna_modality, "protein_modality": protein_modality, "cells": cells, "layer": layer,
    }  # fmt: skip
    data = _open_lazily(path)
    if data is None:
        with naming(path):
            cite = as_citeseq(read(path), **options)
        return Source(path, cite.rna.n_obs, lambda rows: cite[rows])

    if isinstance(data, AnnData) and protein_modality is None:
        _keep_one_table(data)

    told: set[str] = set()

    def part(rows: slice) -> CiteSeq:
        with naming(path), damaged(path), quiet():
            cite, found = assemble(data[rows], **options)
        for text in {str(finding) for finding in found if finding.severity == "warning"} - told:
            log.warning("warning: %s: %s", path, text)
            told.add(text)
        return cite

    return Source(path, data.n_obs, part)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say in errors which of several inputs they are about."""
    try:
        yield
    except UserError as error:
        told = str(error)
        raise type(error)(told if told.startswith(str(path)) else f"{path}: {told}") from error


def _open_lazily(path: Path) -> AnnData | MuData | None:
    """Return AnnData or MuData whose matrices are on disk; None where the format or its cells do not allow it."""
    is_zarr = (path / "zarr.json").exists() or (path / ".zgroup").exists()
    if is_store(path) or not (is_zarr or (path.is_file() and h5py.is_hdf5(path))):
        return None
    with damaged(path), without_pickle(path), quiet():
        if is_zarr:
            import zarr

            check_zarr(path, to_memory=False)
            group: Any = zarr.open_group(path, mode="r")
        else:
            group = h5py.File(path, "r")
        if "mod" in group:
            data: AnnData | MuData | None = _lazy_mudata(group)
        else:
            data = _lazy_anndata(group) if "obs" in group and "var" in group else None
        if data is None and not is_zarr:
            group.close()
        return data


def _keep_one_table(data: AnnData) -> None:
    """Drop all tables of proteins but the best, which only the whole can tell; parts could differ in theirs."""
    taken, *others = protein_tables(data) or [""]
    for other in others:
        log.warning("warning: proteins come from obsm['%s'], not obsm['%s']; see --protein-modality", taken, other)
        del data.obsm[other]


def _lazy_anndata(group: Any) -> AnnData | None:
    from anndata.io import read_elem

    matrices = {name: _lazy_matrix(group[name]) for name in ("X", *(f"layers/{key}" for key in group.get("layers", ())))
                if name in group}  # fmt: skip
    if not matrices or any(matrix is None for matrix in matrices.values()):
        return None
    obsm = {key: read_elem(group["obsm"][key]) for key in group.get("obsm", ()) if _is_table(group["obsm"][key])}
    raw = group.get("raw")
    return AnnData(
        X=matrices.pop("X", None), obs=read_elem(group["obs"]), var=read_elem(group["var"]), obsm=obsm,
        layers={name.removeprefix("layers/"): matrix for name, matrix in matrices.items()},
        raw=None if raw is None else {"X": _lazy_matrix(raw["X"]), "var": read_elem(raw["var"])},
    )  # fmt: skip


def _lazy_mudata(group: Any) -> MuData | None:
    from anndata.io import read_elem

    order = group["mod"].attrs.get("mod-order")
    modalities = {str(name): _lazy_anndata(group["mod"][name]) for name in (group["mod"] if order is None else order)}
    whole = read_elem(group["obs"])
    if any(part is None or not part.obs_names.equals(whole.index) for part in modalities.values()):
        return None
    mdata = MuData({name: part for name, part in modalities.items() if part is not None})
    mdata.obs = whole
    return mdata


def _lazy_matrix(item: Any) -> Any:
    """Return a matrix that is read when it is cut; None for one stored by columns, of which every part is scattered."""
    from anndata.io import sparse_dataset

    kind = item.attrs.get("encoding-type")
    if kind == "csr_matrix":
        return sparse_dataset(item)
    is_dense = hasattr(item, "shape") and np.dtype(item.dtype).kind in "buif" and kind in (None, "array")
    return item if is_dense else None


def _is_table(item: Any) -> bool:
    return item.attrs.get("encoding-type") == "dataframe"
