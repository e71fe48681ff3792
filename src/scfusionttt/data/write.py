"""Results to files, each whole or not at all."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.cells import find_modality, joined_obs
from scfusionttt.errors import InputDataError, OutputError
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import RNA_MODALITIES, X_FUSIONTTT

EMBEDDING_ENDINGS = (".npy", ".csv", ".h5ad", ".h5mu", ".zarr")
TABLE_ENDINGS = (".csv", ".tsv")
PAGE_ENDINGS = (".html", ".htm")
JSON_ENDINGS = (".json",)


def write_embedding(
    path: str | Path,
    array: np.ndarray,
    cell_names: pd.Index,
    source: AnnData | MuData | None = None,
    *,
    rna_modality: str | None = None,
) -> None:
    """Write one vector per cell, in the format of the name's ending.

    Parameters
    ----------
    path
        ``.npy``: the array; ``.csv``: a row per cell with its name; ``.h5ad``, ``.h5mu``, ``.zarr``: a copy of `source`
        with ``obsm["X_fusionttt"]``. An ``.h5ad`` from MuData holds the RNA modality with the joined obs.
    array
        [n, d], as :meth:`scfusionttt.FusionTTT.embed` returns it: bottleneck, components and proteins.
    cell_names
        Names of the rows, [n]. Where `source` has other cells too, the copy holds only these.
    source
        The caller's data, left unchanged; None for a file of cell names and embedding alone.
    rna_modality
        Name of the RNA in a MuData, where it is not a usual one.

    Raises
    ------
    OutputError
        Unknown ending, a format that cannot hold `source`, or a file that cannot be written.
    """
    ending = _ending(path, EMBEDDING_ENDINGS)
    array, cells = np.asarray(array), pd.Index(cell_names)
    source = AnnData(obs=pd.DataFrame(index=cells)) if source is None else source
    check_embedding_path(path, source)
    if array.shape[0] != len(cells):
        raise InputDataError(f"the embedding has {array.shape[0]} rows for {len(cells)} cells; give one row per cell")
    if ending == ".npy":
        with replacing(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    elif ending == ".csv":
        columns = [f"fusionttt_{i}" for i in range(array.shape[1])]
        write_table(path, pd.DataFrame(array, index=cells.rename("cell"), columns=columns))
    else:
        with quiet():
            _write_annotated(path, _annotated(array, cells, source, ending, rna_modality), ending)


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as ``.csv`` or ``.tsv``; its index is the first column."""
    separator = "\t" if _ending(path, TABLE_ENDINGS) == ".tsv" else ","
    with replacing(path) as temporary:
        table.to_csv(temporary, sep=separator)


def check_embedding_path(path: str | Path, source: AnnData | MuData | None = None) -> None:
    """Raise OutputError now, before the work, if `write_embedding` could not write to a file of this name."""
    ending = _ending(path, EMBEDDING_ENDINGS)
    check_target(path, folder=ending == ".zarr", ours=_is_embedded)
    if ending == ".h5mu" and isinstance(source, AnnData):
        raise OutputError(f"{path}: a .h5mu file needs MuData, but the input is one AnnData; write .h5ad or .zarr")


def check_file_path(path: str | Path, endings: tuple[str, ...]) -> None:
    """Raise OutputError now, before the work, if no such file could be written: by its ending it is never data."""
    _ending(path, endings)
    check_target(path, folder=False)


def _is_embedded(folder: Path) -> bool:
    """Return whether a folder is a Zarr store that has an embedding already: an earlier result."""
    return (folder / "obsm" / X_FUSIONTTT).is_dir()


def _ending(path: str | Path, known: tuple[str, ...]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in known:
        raise OutputError(f"{path}: the ending '{ending}' is not known; choose {', '.join(known)}")
    return ending


def _annotated(
    array: np.ndarray, cells: pd.Index, source: AnnData | MuData, ending: str, rna_modality: str | None
) -> AnnData | MuData:
    """Return a copy of the source, cut to the cells and in their order, with the embedding in obsm."""
    if ending == ".h5ad" and isinstance(source, MuData):
        name = find_modality(source, RNA_MODALITIES, rna_modality)
        if name is None:
            raise InputDataError(f"no RNA among {', '.join(source.mod)}; name the modality with RNA (--rna-modality)")
        copy = _copy(source.mod[name], cells)
        copy.obs = joined_obs(source, name).loc[copy.obs_names]
    else:
        copy = _copy(source, cells)
    copy.obsm[X_FUSIONTTT] = array[cells.get_indexer(copy.obs_names)]
    return copy


def _copy(source: AnnData | MuData, cells: pd.Index) -> AnnData | MuData:
    lost = cells.difference(source.obs_names)
    if len(lost):
        raise InputDataError(
            f"{len(lost)} embedded cells are not in the data given (such as {lost[0]}); give the same data"
        )
    if len(cells) < source.n_obs:
        source = source[source.obs_names.isin(cells)]
    if isinstance(source, MuData) and source.isbacked:
        raise InputDataError("a backed MuData cannot be copied; read it without backed=")
    copy = source.to_memory() if isinstance(source, AnnData) and source.isbacked else source.copy()
    if isinstance(copy, MuData):
        copy._axis = int(copy.axis)  # from .h5mu it is a NumPy integer, which Zarr's JSON refuses
    return copy


def _write_annotated(path: str | Path, data: AnnData | MuData, ending: str) -> None:
    with replacing(path, ours=_is_embedded) as temporary:
        try:
            getattr(data, f"write_{ending[1:]}")(temporary)
        except (OSError, RuntimeError, MemoryError):
            raise
        except Exception as error:  # anndata has a class of its own for values that it cannot write
            text = " ".join(str(error).split())
            raise OutputError(
                f"{path} was not written: a part of the input does not fit the format ({text})"
            ) from error
