"""Raw counts as they come (any container, any dtype): where they lie, made uniform, and what is wrong with them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.errors import InputDataError, name_some
from scfusionttt.keys import COUNTS

#: float32 holds every whole number up to here; a larger count may be rounded.
EXACT_FLOAT32 = 2**24
_ROWS = 4096  # rows looked at in one go, so that no pass over the cells doubles the memory


@dataclass(frozen=True)
class Finding:
    """One thing that validation has to say about an input.

    Attributes
    ----------
    severity
        ``error``: the input cannot be used as it is; ``warning``: it can, but look; ``note``: for the record.
    code
        Stable name for programs, such as ``empty_cells``.
    message, remedy
        One line each: what is the case, and what to do.
    names
        Every cell or feature concerned (the message shows the first few).
    """

    severity: Literal["error", "warning", "note"]
    code: str
    message: str
    remedy: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values for JSON."""
        return asdict(self) | {"names": list(self.names)}


def named(names: Any, noun: str) -> str:
    """Return ``3 cells (a, b, c)``, ``1 gene (a)`` or ``9 cells (a, b, c and 6 more)``."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({name_some(names)})"


def raw_counts(adata: AnnData, *, modality: str, layer: str | None = None) -> tuple[Any, list[Finding]]:
    """Find the matrix of raw counts: the named layer, else ``layers["counts"]``, else X, else ``.raw``.

    ``.raw`` is taken only where X is not whole numbers and ``.raw`` is, and has every feature; a finding says so.

    Returns
    -------
    matrix, findings
        The matrix [n, f] as it is stored (never a copy made by us), and what the user should know about the choice.

    Raises
    ------
    InputDataError
        The layer does not exist, or there is no matrix at all.
    """
    if layer is not None:
        if layer not in adata.layers:
            known = ", ".join(name for name in adata.layers if name is not None) or "none"  # None is X, from 0.13 on
            raise InputDataError(f"{modality} has no layer '{layer}' (layers there: {known}); name one of them")
        return adata.layers[layer], []
    if COUNTS in adata.layers:
        return adata.layers[COUNTS], []
    if adata.X is None:
        raise InputDataError(f"{modality} has no matrix: put raw counts in X or layers['{COUNTS}']")
    if adata.raw is None or is_whole(adata.X) or not _covers(adata.raw.var_names, adata.var_names):
        return adata.X, []
    matrix = adata.raw[:, adata.var_names].X
    if not is_whole(matrix):
        return adata.X, []
    told = f"{modality}: X is not whole numbers, so the raw counts were taken from .raw"
    return matrix, [Finding("warning", "counts_from_raw", told, f"put them in layers['{COUNTS}'] to silence this")]


def to_csr(matrix: Any) -> sparse.csr_matrix:
    """Return a copy as canonical CSR float32, whatever the container, byte order or dtype of the input."""
    matrix = _in_memory(matrix)
    if _is_sparse(matrix):
        parts = (_float32(matrix.data), _native(matrix.indices), _native(matrix.indptr))
        kind = sparse.csr_matrix if matrix.format == "csr" else sparse.csc_matrix
        try:
            whole = kind(parts, shape=matrix.shape)
            whole.check_format(full_check=True)  # a place outside the matrix would corrupt the memory
        except ValueError as error:
            raise InputDataError(f"the sparse matrix is damaged ({error}); copy or write the file again") from error
        result = sparse.csr_matrix(whole)
    else:
        blocks = [sparse.csr_matrix(_float32(matrix[rows])) for rows in row_blocks(matrix.shape[0])]
        result = sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix(matrix.shape, dtype=np.float32)
    result.sum_duplicates()
    result.eliminate_zeros()
    return result


def to_dense(matrix: Any) -> np.ndarray:
    """Return a copy as a dense float32 array [n, p]; NaN stays NaN."""
    matrix = _in_memory(matrix)
    return to_csr(matrix).toarray() if _is_sparse(matrix) else _float32(matrix)


def value_findings(matrix: sparse.csr_matrix | np.ndarray, cells: pd.Index, *, modality: str) -> list[Finding]:
    """Find NaN, infinite, negative and fractional values, and counts too large for float32; name the cells.

    NaN in proteins means "not measured" and is no fault; in RNA it is an error.
    """
    is_rna = modality == "RNA"
    normalised = (
        "values look normalised, not raw counts; put raw counts in layers['counts'] or X, or name their layer (--layer)"
    )
    tests: list[tuple[str, Callable[[np.ndarray], np.ndarray], str, str]] = [
        ("infinite", np.isinf, "has infinite values", "repair or leave out these cells"),
        ("negative", lambda x: (x < 0) & np.isfinite(x), "has negative values", normalised),
        ("not_counts", lambda x: np.isfinite(x) & (x != np.rint(x)), "has values that are not whole", normalised),
    ]
    if is_rna:
        tests.insert(0, ("nan", np.isnan, "has NaN", "repair or leave out these cells"))
    found = [
        Finding("error", code, f"{modality} {what} in {named(names, 'cell')}", remedy, names)
        for code, test, what, remedy in tests
        if (names := _cells_where(matrix, cells, test))
    ]
    huge = _cells_where(matrix, cells, lambda x: np.isfinite(x) & (x > EXACT_FLOAT32))
    if huge:
        told = f"{modality} has counts above {EXACT_FLOAT32} (rounded in float32) in {named(huge, 'cell')}"
        found.append(Finding("note", "huge_counts", told, names=huge))
    return found


def row_values(matrix: sparse.csr_matrix, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return the stored values of some rows of a CSR matrix and their columns, as views."""
    stored = slice(matrix.indptr[rows.start], matrix.indptr[rows.stop])
    return matrix.data[stored], matrix.indices[stored]


def row_blocks(n: int) -> Iterator[slice]:
    """Yield slices that cover n rows, a few thousand at a time."""
    for start in range(0, n, _ROWS):
        yield slice(start, min(start + _ROWS, n))


def is_whole(matrix: Any) -> bool:
    """Tell whether every finite value is a whole number."""
    matrix = _in_memory(matrix)
    values = matrix.data if _is_sparse(matrix) else matrix
    parts = (_float32(values[rows]) for rows in row_blocks(len(values)))
    return all(not np.any(np.isfinite(part) & (part != np.rint(part))) for part in parts)


def columns_without_numbers(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold text, dates or the like."""
    return [str(name) for name, values in table.items() if not _is_numeric(values)]


def _cells_where(matrix: Any, cells: pd.Index, test: Callable[[np.ndarray], np.ndarray]) -> tuple[str, ...]:
    """Return the names of the cells that have a value for which the test holds."""
    hit: list[str] = []
    for rows in row_blocks(matrix.shape[0]):
        if _is_sparse(matrix):
            flagged = np.flatnonzero(test(row_values(matrix, rows)[0])) + matrix.indptr[rows.start]
            where = np.unique(np.searchsorted(matrix.indptr, flagged, side="right") - 1)
        else:
            where = np.flatnonzero(test(matrix[rows]).any(axis=1)) + rows.start
        hit.extend(map(str, cells[where]))
    return tuple(hit)


def _is_numeric(values: pd.Series) -> bool:
    if values.dtype.kind in "cmM":  # complex, spans of time, dates: NumPy would make some number of them
        return False
    try:
        values.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError):
        return False
    return True


def _is_sparse(matrix: Any) -> bool:
    return bool(sparse.issparse(matrix))


def _covers(names: pd.Index, wanted: pd.Index) -> bool:
    return bool(names.is_unique and wanted.is_unique and wanted.isin(names).all())


def _in_memory(matrix: Any) -> Any:
    """Load a matrix that lies on disk (backed or lazy); leave any other as it is."""
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    elif isinstance(matrix, h5py.Dataset):
        matrix = matrix[()]
    elif hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if isinstance(matrix, pd.DataFrame):
        matrix = matrix.to_numpy(dtype=np.float32, na_value=np.nan)
    return matrix if _is_sparse(matrix) else np.asarray(matrix)


def _float32(values: np.ndarray) -> np.ndarray:
    told = f"the matrix holds {values.dtype} values; counts must be numbers"
    if values.dtype.kind == "c":  # NumPy would drop the imaginary part
        raise InputDataError(told)
    with np.errstate(over="ignore"):  # a number too large becomes inf, which is then named
        try:
            return np.array(values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputDataError(told) from error


def _native(indices: np.ndarray) -> np.ndarray:
    return indices.astype(indices.dtype.newbyteorder("="))
