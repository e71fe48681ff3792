"""Checks of a file before its values are read: pickled code, missing chunks, sizes beyond memory."""

import gzip
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import mminfo

from scfusionttt.errors import InputFileError, UserError, first_line
from scfusionttt.io.partial import is_unsupported
from scfusionttt.keys import STORE

#: Row, column and value in memory.
_BYTES_PER_ENTRY = 16
#: Bytes decompressed at a time.
_PIECE = 2**24
_SPARSE = ("csr_matrix", "csc_matrix")


def check_hdf5(path: Path, file: h5py.File) -> None:
    """Refuse a file that declares more values than fit in memory; a few bytes may declare any number."""
    sizes: list[int] = []

    def look(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append((item.size or 0) * item.dtype.itemsize)

    file.visititems(look)
    _require_memory(path, sum(sizes))


def check_zarr(path: Path, *, to_memory: bool = True) -> None:
    """Refuse a store that lacks chunks of a sparse matrix or (`to_memory`) declares more values than fit in memory.

    Zarr reads missing chunks as zeros, and does not write chunks of zeros. A dense matrix may have such chunks, so a
    warning is issued instead; in a sparse one they are valid only for empty rows, for counts in the first column, and
    in a layer whose stored values are all zero.
    """
    import zarr

    members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
    arrays = {name: item for name, item in members.items() if isinstance(item, zarr.Array)}
    if to_memory:
        _require_memory(path, sum(prod(array.shape) * array.dtype.itemsize for array in arrays.values()))
    sparse = {name: item for name, item in members.items() if item.attrs.get("encoding-type") in _SPARSE}
    for name, array in arrays.items():
        matrix, _, part = name.rpartition("/")
        is_sparse = matrix in sparse
        if not (is_sparse or (array.ndim == 2 and array.dtype.kind in "fiu")):
            continue
        # chunks of a shard beyond the end count as initialized
        missing = max(array.nchunks - array.nchunks_initialized, 0)
        if not missing:
            continue
        if is_sparse and not _are_zeros(sparse[matrix], part):
            raise InputFileError(f"{path}: a chunk of {name} is missing; copy or write the whole store again")
        if not is_sparse or part == "data":
            message = f"{path}: {missing} of {array.nchunks} chunks of {name} are missing and were read as zeros"
            warnings.warn(f"{message}; copy the store again unless they are zero", stacklevel=2)


def check_matrix_market(path: Path) -> None:
    """Refuse a Matrix Market file whose header declares more entries than fit in memory."""
    entries = mminfo(path)[2]
    _require_memory(path, entries * _BYTES_PER_ENTRY)


def check_gzip(path: Path) -> None:
    """Refuse a compressed file that unpacks to more than fits in memory; a few bytes may unpack to any number."""
    if path.suffix != ".gz":
        return
    unpacked = 0
    with gzip.open(path) as file:
        while piece := len(file.read(_PIECE)):
            unpacked += piece
            _require_memory(path, unpacked, does="unpacks to")


@contextmanager
def without_pickle(path: Path) -> Iterator[None]:
    """Disable Zarr's codec for pickled objects while a store is read, since unpickling can run code."""
    from numcodecs.registry import codec_registry

    codec = codec_registry.pop("pickle", None)
    try:
        yield
    except Exception as error:
        if "pickle" not in str(error):
            raise
        raise InputFileError(
            f"{path} has pickled objects, which are never read; write it again without them"
        ) from error
    finally:
        if codec is not None:
            codec_registry["pickle"] = codec


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn errors of a library that reads a file into an InputFileError of one line."""
    try:
        yield
    except (MemoryError, PermissionError, UserError, Warning):
        raise
    except Exception as error:
        text = first_line(error)
        if is_unsupported(error):
            remedy = "update anndata and zarr, or install the package that it names"
            raise InputFileError(f"{path} cannot be read with the installed packages ({text}); {remedy}") from error
        if missing := _missing_filters(path):
            remedy = "install hdf5plugin, or write the file with gzip"
            raise InputFileError(f"{path} is compressed with {missing}, which HDF5 lacks here; {remedy}") from error
        cause = "is truncated" if "truncated" in text or isinstance(error, EOFError) else "cannot be read"
        raise InputFileError(f"{path} {cause} ({text}); it is damaged or incomplete: copy or write it again") from error


def load_filters() -> None:
    """Register the compression filters of hdf5plugin, if it is installed."""
    with suppress(ImportError):
        import_module("hdf5plugin")


def _missing_filters(path: Path) -> str:
    """Return the compression filters of an HDF5 file that are not available; empty if there are none."""
    missing: dict[int, str] = {}

    def look(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            created = item.id.get_create_plist()
            for number, _flags, _values, name in map(created.get_filter, range(created.get_nfilters())):
                if not h5py.h5z.filter_avail(number):
                    missing[number] = f"{name.decode(errors='replace') or 'a filter'} (HDF5 filter {number})"

    with suppress(OSError, RuntimeError), h5py.File(path, "r") as file:
        file.visititems(look)
    return " and ".join(missing.values())


def _require_memory(path: Path, needed: int, *, does: str = "declares") -> None:
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise InputFileError(
            f"{path} {does} {needed / 2**30:.0f} GiB of values, more than the {memory / 2**30:.0f} GiB of "
            "memory; it is damaged, or too large: leave out cells or features"
        )


def _are_zeros(matrix: Any, part: str) -> bool:
    """Return whether a sparse matrix is valid with zeros for the missing chunks of one of its arrays."""
    values, indices, ends = matrix["data"], matrix["indices"], matrix["indptr"][:]
    if part == "data":  # stored zeros are unusual, and a matrix of only these is of no use
        return bool(values.nchunks_initialized == 0 and "layers/" in matrix.path)
    if part == "indptr":
        longest = matrix.attrs["shape"][matrix.attrs["encoding-type"] == "csr_matrix"]
        per_row = np.diff(ends)
        in_order = ends[-1] == values.shape[0] and (per_row >= 0).all() and (per_row <= longest).all()
        entries = indices[: ends[np.argmax(ends > 0)]]  # of the first row that is not empty
        return bool(in_order and len(np.unique(entries)) == len(entries))
    blocks = range(0, indices.shape[0], _PIECE)
    first = np.concatenate([start + np.flatnonzero(indices[start : start + _PIECE] == 0) for start in blocks])
    rows = np.searchsorted(ends, first, side="right")
    return len(np.unique(rows)) == len(rows)


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr group, of format 3 or 2."""
    return (path / "zarr.json").exists() or (path / ".zgroup").exists()


def is_store(path: Path) -> bool:
    """Return whether a folder is a store written by ``scfusionttt store``."""
    return STORE in zarr_attributes(path)


def zarr_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr 3 group; empty if there are none or they are unreadable."""
    try:
        return dict(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
