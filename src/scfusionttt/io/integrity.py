"""A store before its values are read: what would run code, what is missing, what no memory holds."""

import gzip
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py
from scipy.io import mminfo

from scfusionttt.errors import InputFileError
from scfusionttt.keys import STORE

#: Row, column and value, as they are read.
_BYTES_PER_ENTRY = 16
#: Bytes unpacked at a time.
_PIECE = 2**24
_SPARSE = ("csr_matrix", "csc_matrix")


def check_hdf5(path: Path, file: h5py.File) -> None:
    """Refuse a file that declares more values than memory holds; a few bytes may declare any number."""
    sizes: list[int] = []

    def look(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append((item.size or 0) * item.dtype.itemsize)

    file.visititems(look)
    _require_memory(path, sum(sizes))


def check_zarr(path: Path, *, to_memory: bool = True) -> None:
    """Refuse a store that lacks chunks of a sparse matrix or, to be read whole, declares more values than memory holds.

    Zarr reads a missing chunk as zeros. It leaves out chunks that are zero, which a sparse matrix has none of; a dense
    one may, so there it is a warning.
    """
    import zarr

    store = zarr.open_group(path, mode="r")
    arrays = dict(_arrays(store))
    if to_memory:
        _require_memory(path, sum(prod(array.shape) * array.dtype.itemsize for array in arrays.values()))
    sparse = {name for name, group in _groups(store) if _is_matrix(group)}
    for name, array in arrays.items():
        is_sparse = name.rpartition("/")[0] in sparse
        if not (is_sparse or (array.ndim == 2 and array.dtype.kind in "fiu")):
            continue
        missing = max(array.nchunks - array.nchunks_initialized, 0)  # of shards, those beyond the end count as there
        if missing and is_sparse:
            raise InputFileError(f"{path}: a chunk of {name} is missing; copy or write the whole store again")
        if missing:
            told = f"{path}: {missing} of {array.nchunks} chunks of {name} are not there and were read as zeros"
            warnings.warn(f"{told}; copy the store again unless they are zero", stacklevel=2)


def check_matrix_market(path: Path) -> None:
    """Refuse a matrix in exchange format whose header declares more entries than memory holds."""
    entries = mminfo(path)[2]
    _require_memory(path, entries * _BYTES_PER_ENTRY)


def check_gzip(path: Path) -> None:
    """Refuse a compressed file that unpacks to more than memory holds; a few bytes may unpack to any number."""
    if path.suffix != ".gz":
        return
    unpacked = 0
    with gzip.open(path) as file:
        while piece := len(file.read(_PIECE)):
            unpacked += piece
            _require_memory(path, unpacked, does="unpacks to")


@contextmanager
def without_pickle(path: Path) -> Iterator[None]:
    """Take Zarr's codec for pickled objects away while a store is read: decoding could run code."""
    from numcodecs.registry import codec_registry

    codec = codec_registry.pop("pickle", None)
    try:
        yield
    except Exception as error:
        if "pickle" not in str(error):
            raise
        raise InputFileError(
            f"{path} holds pickled objects, which are never read; write it again without them"
        ) from error
    finally:
        if codec is not None:
            codec_registry["pickle"] = codec


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file of the right kind into one line for the user."""
    try:
        yield
    except (MemoryError, PermissionError, InputFileError, Warning):
        raise
    except Exception as error:
        text = (str(error).splitlines() or [""])[0] or type(error).__name__
        cause = "is truncated" if "truncated" in text or isinstance(error, EOFError) else "cannot be read"
        raise InputFileError(f"{path} {cause} ({text}); it is damaged or incomplete: copy or write it again") from error


def _require_memory(path: Path, needed: int, *, does: str = "declares") -> None:
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputFileError(
            f"{path} {does} {needed / 2**30:.0f} GiB of values, more than the {there / 2**30:.0f} GiB of memory "
            "here; it is damaged, or leave out cells or features"
        )


def _is_matrix(group: Any) -> bool:
    """Tell whether a group is a sparse matrix in which a chunk of zeros makes no sense (one of one gene may)."""
    attributes = group.attrs
    return attributes.get("encoding-type") in _SPARSE and min(attributes.get("shape", (0,))) > 1


def _groups(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, below in group.groups():
        yield prefix + name, below
        yield from _groups(below, f"{prefix}{name}/")


def _arrays(store: Any) -> Iterator[tuple[str, Any]]:
    yield from store.arrays()
    for name, group in _groups(store):
        for own, array in group.arrays():
            yield f"{name}/{own}", array


def is_store(path: Path) -> bool:
    """Return whether a folder is a store that ``scfusionttt store`` wrote."""
    return STORE in zarr_attributes(path)


def zarr_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr 3 group; empty if there are none or they cannot be read."""
    try:
        return dict(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
