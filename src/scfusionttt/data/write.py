"""Results for each cell to files, complete or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from mudata import MuData

from scfusionttt.data.assemble import joined_obs
from scfusionttt.data.inplace import write_tables
from scfusionttt.data.modalities import find_modality
from scfusionttt.errors import InputDataError, OutputError, UserError
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.tables import TABLE_ENDINGS, checked_ending, write_table
from scfusionttt.keys import PROTEIN_IMPUTED, PROTEIN_POSITIVE, PROTOCOL, RNA_MODALITIES, X_FUSIONTTT

ANNOTATED_ENDINGS = (".h5ad", ".h5mu", ".zarr")
EMBEDDING_ENDINGS = (".npy", ".csv", *ANNOTATED_ENDINGS)
PROTEIN_ENDINGS = (*TABLE_ENDINGS, *ANNOTATED_ENDINGS)


def write_embedding(
    path: str | Path,
    array: np.ndarray,
    cell_names: pd.Index,
    source: AnnData | MuData | None = None,
    *,
    rna_modality: str | None = None,
    protocol: str | None = None,
    columns: pd.DataFrame | None = None,
) -> None:
    """Write one vector per cell, in the format given by the file name.

    Parameters
    ----------
    path
        ``.npy``: the array; ``.csv``: a row per cell with its name; ``.h5ad``, ``.h5mu``, ``.zarr``: a copy of `source`
        with ``obsm["X_fusionttt"]``. An ``.h5ad`` from MuData has the RNA modality with the joined obs.
    array
        [n, d], as returned by :meth:`scfusionttt.FusionTTT.embed`.
    cell_names
        Names of the rows, [n]. If `source` has more cells, the copy has only these.
    source
        The input data, which is not changed; None for a file with only cell names and embedding.
    rna_modality
        RNA modality of a MuData, by default the one with a name in `keys.RNA_MODALITIES`.
    protocol
        Protocol under which the embedding can be scored, for ``uns["fusionttt_protocol"]``.
    columns
        Values of each cell [n, ...] to write as well: as columns of a table or of ``obs``, but not to ``.npy``.

    Raises
    ------
    OutputError
        The ending is not supported, the format cannot hold `source`, or the file cannot be written.
    """
    array, cells = np.asarray(array), pd.Index(cell_names)
    more = pd.DataFrame(index=cells) if columns is None else columns
    source = AnnData(obs=pd.DataFrame(index=cells)) if source is None else source
    ending = check_result_path(path, EMBEDDING_ENDINGS, source, rna_modality=rna_modality)
    if array.shape[0] != len(cells):
        raise InputDataError(f"the embedding has {array.shape[0]} rows for {len(cells)} cells; they must match")
    if ending == ".npy":
        with replacing(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    elif ending == ".csv":
        names = [f"fusionttt_{i}" for i in range(array.shape[1])]
        table = pd.DataFrame(array, index=cells.rename("cell"), columns=names)
        write_table(path, more.rename_axis("cell").join(table))
    else:
        with quiet():
            copy = _cells_of(source, cells, ending, rna_modality)
            copy.obsm[X_FUSIONTTT] = array[cells.get_indexer(copy.obs_names)]
            others = {key: value for key, value in copy.uns.items() if key != PROTOCOL}  # of an earlier embedding
            copy.uns = others | ({} if protocol is None else {PROTOCOL: protocol})
            for name, values in more.loc[copy.obs_names].items():
                copy.obs[name] = values.array
            _write_annotated(path, copy, ending)


def write_proteins(
    path: str | Path,
    tables: Mapping[str, pd.DataFrame],
    source: AnnData | MuData,
    *,
    obs: pd.DataFrame | None = None,
    rna_modality: str | None = None,
) -> None:
    """Write tables of proteins, in the format given by the file name.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``: the tables side by side, names of columns with what the slot adds to that of the first;
        ``.h5ad``, ``.h5mu``, ``.zarr``: a copy of `source` with the tables in obsm, as for :func:`write_embedding`.
        ``CD66a/c/e`` is called ``CD66a_c_e``, since a slash separates folders in these formats.
    tables
        [n, p] each, by their slots in obsm: ``protein_imputed``, ``protein_imputed_sd``, ...
    obs
        Columns for obs, [n, ...], which come first in a ``.csv`` or ``.tsv``.
    source, rna_modality
        As for :func:`write_embedding`.

    Raises
    ------
    OutputError
        The ending is not supported, the format cannot hold `source`, or the file cannot be written.
    """
    obs = pd.DataFrame(index=next(iter(tables.values())).index) if obs is None else obs
    ending = check_result_path(path, PROTEIN_ENDINGS, source, rna_modality=rna_modality)
    if ending in TABLE_ENDINGS:
        first = next(iter(tables), "")
        parts = [table.add_suffix(key.removeprefix(first)) for key, table in tables.items()]
        write_table(path, pd.concat([obs, *parts], axis=1).rename_axis("cell"))
        return
    with quiet():
        copy = _cells_of(source, obs.index, ending, rna_modality)
        for name, column in obs.loc[copy.obs_names].items():
            copy.obs[name] = column
        write_tables(copy, {key: table.loc[copy.obs_names] for key, table in tables.items()})
        _write_annotated(path, copy, ending)


def write_cells(path: str | Path, cells: AnnData) -> None:
    """Write denoised cells, proteins in obsm, as ``.h5ad``.

    OutputError if the ending is another or the file cannot be written.
    """
    with quiet():
        check_result_path(path, (".h5ad",), cells)
        _write_annotated(path, cells, ".h5ad")


def check_result_path(
    path: str | Path,
    endings: tuple[str, ...],
    source: AnnData | MuData | None = None,
    *,
    rna_modality: str | None = None,
) -> str:
    """Return the ending of `path`; raise OutputError, before the work, if a result cannot be written to it.

    One reason is a part of `source` that the format cannot hold.
    """
    ending = checked_ending(path, endings)
    check_target(path, folder=ending == ".zarr", ours=_is_result)
    if ending == ".h5mu" and isinstance(source, AnnData):
        raise OutputError(f"{path}: an .h5mu file needs MuData, but the input is AnnData; use .h5ad or .zarr")
    if source is not None and ending in ANNOTATED_ENDINGS:
        _check_storable(path, source, ending, rna_modality)
    return ending


def _is_result(folder: Path) -> bool:
    """Return whether a folder is a Zarr store with an earlier result."""
    return any((folder / "obsm" / key).is_dir() for key in (X_FUSIONTTT, PROTEIN_IMPUTED, PROTEIN_POSITIVE))


def _check_storable(path: str | Path, source: AnnData | MuData, ending: str, rna_modality: str | None) -> None:
    """Write all of the source but its matrices to memory, which fails where writing the copy would."""
    if isinstance(source, MuData) and source.isbacked:
        raise InputDataError("a backed MuData cannot be copied; read it into memory (without backed=)")
    with quiet(), _storing(path):
        if isinstance(source, AnnData):
            parts = [source]
        elif ending == ".h5ad":
            name = _rna_name(source, rna_modality)
            parts = [source.mod[name], AnnData(obs=joined_obs(source, name))]
        else:
            parts = [*source.mod.values(), AnnData(obs=source.obs, var=source.var, uns=source.uns)]
        for part in parts:
            tables = {key: table for key, table in part.obsm.items() if isinstance(table, pd.DataFrame)}
            for small in (part[:1].to_memory(copy=True), AnnData(obs=part.obs.copy(), obsm=tables)):
                small.strings_to_categoricals()
                write_elem(_memory(ending), "/", small)


def _memory(ending: str) -> Any:
    """Return an empty HDF5 file or Zarr store in memory."""
    if ending != ".zarr":
        return h5py.File(BytesIO(), "w")
    import zarr

    return zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=anndata.settings.zarr_write_format)


def _rna_name(source: MuData, wanted: str | None) -> str:
    name = find_modality(source.mod, RNA_MODALITIES, wanted)
    if name is None:
        raise InputDataError(f"no RNA among {', '.join(source.mod)}; choose a modality with rna_modality")
    return name


def _cells_of(source: AnnData | MuData, cells: pd.Index, ending: str, rna_modality: str | None) -> AnnData | MuData:
    """Return a copy of the source with only these cells."""
    if ending == ".h5ad" and isinstance(source, MuData):
        name = _rna_name(source, rna_modality)
        copy = _copy(source.mod[name], cells)
        copy.obs = joined_obs(source, name).loc[copy.obs_names]
        return copy
    return _copy(source, cells)


def _copy(source: AnnData | MuData, cells: pd.Index) -> AnnData | MuData:
    missing = cells.difference(source.obs_names)
    if len(missing):
        raise InputDataError(
            f"{len(missing)} cells are not in `source` (such as {missing[0]}); pass the data that the result is from"
        )
    if len(cells) < source.n_obs:
        source = source[source.obs_names.isin(cells)]
    copy = source.to_memory() if isinstance(source, AnnData) and source.isbacked else source.copy()
    if isinstance(copy, MuData):
        copy._axis = int(copy.axis)  # read from .h5mu it is a NumPy integer, which Zarr cannot write as JSON
    return copy


def _write_annotated(path: str | Path, data: AnnData | MuData, ending: str) -> None:
    with replacing(path, ours=_is_result) as temporary, _storing(path):
        getattr(data, f"write_{ending[1:]}")(temporary)


@contextmanager
def _storing(path: str | Path) -> Iterator[None]:
    """Accept text columns of pandas' string types; turn errors of anndata into an OutputError of one line."""
    try:
        with anndata.settings.override(allow_write_nullable_strings=True):
            yield
    except (OSError, RuntimeError, MemoryError, UserError):
        raise
    except Exception as error:  # anndata has its own error class for values that it cannot write
        text = " ".join("; ".join([str(error), *getattr(error, "__notes__", [])]).split())
        raise OutputError(
            f"{path} was not written: part of the input cannot be stored in this format ({text}); rename or remove "
            "that part, or write .csv, which has only the result"
        ) from error
