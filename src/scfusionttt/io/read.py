"""Read files and folders as AnnData or MuData; the content decides which kind they are."""

import logging
from pathlib import Path

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt.errors import InputFileError, name_some
from scfusionttt.io.integrity import (
    check_hdf5,
    check_zarr,
    damaged,
    is_store,
    is_zarr,
    load_filters,
    without_pickle,
)
from scfusionttt.io.matrices import find_matrices, read_matrix_folder
from scfusionttt.io.partial import is_unsupported, raw_of, read_supported
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import FEATURE_TYPES

log = logging.getLogger("scfusionttt")

#: Bytes from which a message says that a file is being read.
LARGE = 10**8
_KNOWN = ".h5mu, .h5ad, .zarr, 10x .h5 or a 10x matrix folder"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024, 2048)  # MuData has a user block before the signature
_OTHER_KINDS = {
    b"\x1f\x8b": "is compressed with gzip; unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"RDX": "is an R object; write it as .h5ad or .h5mu from R",
}


def read(path: str | Path) -> AnnData | MuData:
    """Read single-cell data of any supported kind, with all features.

    Parameters
    ----------
    path
        ``.h5mu``, ``.h5ad``, ``.zarr`` of either, 10x ``.h5`` (Cell Ranger 2 and later), or a folder with matrix,
        features (or genes) and barcodes, each plain or gzipped, as written by 10x, STARsolo, kallisto | bustools,
        alevin-fry and Parse. The kind is detected from the content, not from the file name.

    Returns
    -------
    AnnData or MuData
        As stored. From 10x, names are symbols and may repeat; var has ``gene_ids`` and, since Cell Ranger 3,
        ``feature_types``.

    Raises
    ------
    InputFileError
        The file is missing, empty, truncated, unreadable or of another kind.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
        if not is_folder and not path.exists():
            raise InputFileError(f"{path}: no such file; check the path")
        size = sum(file.stat().st_size for file in (path.rglob("*") if is_folder else [path]) if file.is_file())
        if size >= LARGE:
            log.info("reading %s (%.1f GB)", path, size / 1e9)
        with quiet():
            return _read_folder(path) if is_folder else _read_file(path)
    except PermissionError as error:
        raise InputFileError(f"{path}: no permission to read it; change its permissions") from error


def _read_file(path: Path) -> AnnData | MuData:
    size = path.stat().st_size
    if not size:
        raise InputFileError(f"{path} is empty (0 bytes); copy or download it again")
    with path.open("rb") as file:
        start = file.read(max(_HDF5_OFFSETS) + len(_HDF5))
    if not any(start[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_OFFSETS):
        raise InputFileError(f"{path} {_other_kind(path, start)}")
    load_filters()
    with damaged(path):
        with h5py.File(path, "r") as file:
            kind = _hdf5_kind(path, file)
            inside = name_some(list(file), most=5) or "nothing"
            check_hdf5(path, file)
        if kind in ("h5mu", "h5ad"):
            try:
                return mudata.read_h5mu(path) if kind == "h5mu" else anndata.read_h5ad(path)
            except Exception as error:
                if not is_unsupported(error):
                    raise
                with h5py.File(path, "r") as file:
                    return read_supported(path, file)
        if kind == "matrix":
            import scanpy as sc

            return sc.read_10x_h5(path, gex_only=False)
        if kind is not None:
            with h5py.File(path, "r") as file:
                return _read_10x_group(file[kind])
    raise InputFileError(f"{path} is HDF5 of another kind (it has {inside}); expected {_KNOWN}")


def _hdf5_kind(path: Path, file: h5py.File) -> str | None:
    """Return h5mu, h5ad, or the group of a 10x matrix; None for another kind."""
    if "mod" in file:
        return "h5mu"
    if "obs" in file and "var" in file:
        return "h5ad"
    matrices = [name for name in file if isinstance(file[name], h5py.Group) and "barcodes" in file[name]]
    if "matrix" in matrices:
        return "matrix"
    if len(matrices) > 1:
        raise InputFileError(
            f"{path} has {len(matrices)} genomes ({name_some(matrices)}), as 10x wrote them before version 3; read "
            "one with scanpy.read_10x_h5(..., genome=...) and write it as .h5ad"
        )
    return matrices[0] if matrices else None


def _read_10x_group(group: h5py.Group) -> AnnData:
    """Read a 10x matrix under another name than ``matrix``: a genome (before version 3), or that of CellBender."""
    parts = (group["data"][()].astype(np.float32), group["indices"][()], group["indptr"][()])
    n_features, n_cells = group["shape"][()]
    features = group.get("features", group)
    columns = {"gene_ids": ("id", "genes"), FEATURE_TYPES: ("feature_type",), "name": ("name", "gene_names")}
    var = pd.DataFrame(
        {column: features[name].asstr()[()] for column, names in columns.items() for name in names if name in features}
    ).set_index("name")
    var.index.name = None
    counts = sparse.csr_matrix(parts, shape=(n_cells, n_features))
    return AnnData(counts, obs=pd.DataFrame(index=group["barcodes"].asstr()[()]), var=var)


def _other_kind(path: Path, start: bytes) -> str:
    if path.name.removesuffix(".gz").endswith(".mtx"):
        return f"is one file of a 10x matrix; use its folder, {path.parent}"
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if start.startswith(magic)), None)
    if kind is not None:
        return kind
    is_text = b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start[:512])
    return f"is {'a text file' if is_text else 'not an HDF5 file, or its start is damaged'}; expected {_KNOWN}"


def _read_folder(path: Path) -> AnnData | MuData:
    if is_store(path):
        raise InputFileError(
            f"{path} is a store, which is read by pretrain, finetune, transfer, embed, map, predict, impute, denoise, "
            "annotate, explain and plan only"
        )
    if is_zarr(path):
        return _read_zarr(path)
    matrices = find_matrices(path)
    if len(matrices) == 1:
        return read_matrix_folder(matrices[0])
    if matrices:
        raise InputFileError(
            f"{path} has {len(matrices)} matrices; put each into its own folder with its features and barcodes"
        )
    raise InputFileError(f"{path} is a folder without matrix.mtx and not a Zarr store; {_where_else(path)}")


def _where_else(path: Path) -> str:
    """Return what to do with a folder without a matrix whose names are known."""
    below = [folder for folder in sorted(path.glob("*/")) if find_matrices(folder)]
    if below:
        return f"did you mean {name_some(below)}?"
    others = sorted(file.name for file in path.glob("[!.]*.mtx*"))
    if others:
        return f"rename {name_some(others)} to matrix.mtx, with features.tsv and barcodes.tsv next to it"
    return f"expected {_KNOWN}"


def _read_zarr(path: Path) -> AnnData | MuData:
    import zarr

    with damaged(path), without_pickle(path):
        group = zarr.open_group(path, mode="r")
        if "tables" in group and "obs" not in group:
            tables = name_some(sorted(part for part in (path / "tables").iterdir() if part.is_dir())) or "none"
            raise InputFileError(f"{path} is SpatialData; choose one of its tables of counts: {tables}")
        check_zarr(path)
        try:
            data = mudata.read_zarr(path)
        except Exception as error:
            if not is_unsupported(error):
                raise
            return read_supported(path, group)
        if isinstance(data, MuData):  # mudata does not read .raw from Zarr
            for name, adata in data.mod.items():
                raw = raw_of(group["mod"][name])
                if adata.raw is None and raw:
                    adata.raw = AnnData(**raw, obs=adata.obs[[]])
        return data
