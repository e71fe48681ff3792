"""Folders with a Matrix Market file and the names of its rows and columns, as 10x and other tools write them."""

from dataclasses import dataclass
from gzip import open as unpacked
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.io import mmread

from scfusionttt.errors import InputFileError
from scfusionttt.io.integrity import check_gzip, check_matrix_market, damaged
from scfusionttt.keys import FEATURE_TYPES


@dataclass(frozen=True)
class _Layout:
    """Names of the files of one tool, each plain or gzipped, and which of cells and features are the rows.

    Text before the name of the matrix, such as ``GSM1_``, also stands before the other names.
    """

    matrix: str
    features: tuple[str, ...]
    cells: str
    cells_in_rows: bool = True


_10X = _Layout("matrix.mtx", ("features.tsv", "genes.tsv"), "barcodes.tsv", cells_in_rows=False)
_LAYOUTS = (
    *(  # kallisto | bustools
        _Layout(f"{name}.mtx", (f"{name}.genes.txt",), f"{name}.barcodes.txt")
        for name in ("cells_x_genes", "cells_x_features")
    ),
    _Layout("quants_mat.mtx", ("quants_mat_cols.txt",), "quants_mat_rows.txt"),  # alevin-fry
    *(_Layout(name, ("all_genes.csv",), "cell_metadata.csv") for name in ("DGE.mtx", "count_matrix.mtx")),  # Parse
    _10X,  # and STARsolo
)


def find_matrices(folder: Path) -> list[Path]:
    """Return the matrices of a folder that can be read, without hidden files, as macOS writes them (``._matrix.mtx``).

    Raises
    ------
    InputFileError
        A matrix is there plain and gzipped, with different values.
    """
    plain = {
        path.name.removesuffix(".gz")
        for layout in _LAYOUTS
        for end in ("", ".gz")
        for path in folder.glob(f"*{layout.matrix}{end}")
        if not path.name.startswith(".")
    }
    return [path for name in sorted(plain) if (path := _plain_or_packed(folder / name)) is not None]


def read_matrix_folder(matrix_path: Path) -> AnnData:
    """Read a matrix with the features and cells next to it; rows and columns may be exchanged.

    scanpy's reader knows the files of 10x only, and those of version 3 only when gzipped.
    """
    layout, prefix = _layout_of(matrix_path)
    features = _read_names(matrix_path.parent, prefix, layout.features)
    cells = _read_names(matrix_path.parent, prefix, (layout.cells,))
    if _is_split(features[features.columns[0]]):
        raise InputFileError(
            f"{matrix_path} has spliced, unspliced and ambiguous counts (USA mode of alevin-fry); add them up with "
            "pyroe.load_fry and write the result as .h5ad"
        )
    with damaged(matrix_path):
        check_matrix_market(matrix_path)
        counts = mmread(matrix_path)
    shape = (len(cells), len(features))
    if counts.shape == shape[::-1] and not (layout.cells_in_rows and counts.shape == shape):
        counts = counts.T
    if counts.shape != shape:
        raise InputFileError(
            f"{matrix_path} is {counts.shape[0]} x {counts.shape[1]}, but there are {len(features)} features and "
            f"{len(cells)} barcodes; {_why_they_differ(counts.shape, *shape)}"
        )
    with damaged(matrix_path):
        csr = sparse.csr_matrix(counts, dtype=np.float32)
        return AnnData(csr, obs=_cell_table(cells), var=_feature_table(features))


def _why_they_differ(matrix: tuple[int, ...], n_cells: int, n_features: int) -> str:
    """Return why the matrix has another shape than its names."""
    headed = [sorted((n_cells - cells, n_features - features)) for cells, features in ((0, 1), (1, 0), (1, 1))]
    if sorted(matrix) in headed:
        return "the first line of the features or barcodes seems to be a header; remove it"
    return "the files do not belong together, or one is truncated"


def _layout_of(matrix_path: Path) -> tuple[_Layout, str]:
    """Return the layout of a matrix whose table of cells is there, else that of 10x, and the prefix of the names."""
    name = matrix_path.name.removesuffix(".gz")
    fitting = [(layout, name.removesuffix(layout.matrix)) for layout in _LAYOUTS if name.endswith(layout.matrix)]
    there = [
        (layout, prefix)
        for layout, prefix in fitting
        for end in ("", ".gz")
        if (matrix_path.parent / f"{prefix}{layout.cells}{end}").exists()
    ]
    return (there or fitting[-1:])[0]


def _read_names(folder: Path, prefix: str, names: tuple[str, ...]) -> pd.DataFrame:
    """Return the table of features or cells, the names in its first column."""
    for name in names:
        path = _plain_or_packed(folder / f"{prefix}{name}")
        if path is None:
            continue
        # "NA" is a valid name, and quotes in .tsv are literal
        kind: dict[str, Any] = {"header": None, "sep": "\t", "quoting": 3, "dtype": str}
        with damaged(path):
            check_gzip(path)
            table = pd.read_csv(path, keep_default_na=False, **({} if name.endswith(".csv") else kind))
        if table[table.columns[0]].astype(str).str.fullmatch('".*"').all():
            raise InputFileError(f"{path} has its names in quotes; remove them (in R: write.table(..., quote = FALSE))")
        return table
    raise InputFileError(f"{folder} has no {prefix}{names[0]}(.gz) next to the matrix; copy it into the folder")


def _plain_or_packed(path: Path) -> Path | None:
    """Return a file or the same with ``.gz``, whichever exists; if both do, they must have the same content."""
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists():
        return packed if packed.exists() else None
    if packed.exists():
        with damaged(packed), unpacked(packed) as one, path.open("rb") as other:
            while (piece := one.read(2**24)) == other.read(2**24):
                if not piece:
                    return path
        raise InputFileError(f"{path} and {packed.name} differ; remove the one that does not belong to the folder")
    return path


def _feature_table(features: pd.DataFrame) -> pd.DataFrame:
    """Return var: names (symbols, or ids if there are none), ids, and the feature types of 10x."""
    columns = [features[column].astype(str).to_numpy() for column in features.columns]
    var = pd.DataFrame({"gene_ids": columns[0]}, index=columns[min(1, len(columns) - 1)])
    if len(columns) > 2 and not _has_header(features):
        var[FEATURE_TYPES] = columns[2]
    return var


def _cell_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Return obs: the names, and the other columns if they have names."""
    names = cells[cells.columns[0]].astype(str).to_numpy()  # of a Series, the index would keep the name 0
    return cells[cells.columns[1:] if _has_header(cells) else []].set_axis(names, axis=0)


def _has_header(table: pd.DataFrame) -> bool:
    return isinstance(table.columns[0], str)


def _is_split(names: pd.Series) -> bool:
    """Return whether each gene is there three times, as ``CD4``, ``CD4-U`` and ``CD4-A``."""
    third = names[: len(names) // 3].tolist()
    return len(names) >= 3 and names.tolist() == [f"{name}{end}" for end in ("", "-U", "-A") for name in third]
