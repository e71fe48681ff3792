"""Raw counts of any container and dtype: where an AnnData keeps them, conversion to float32, and invalid values."""

from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.data.findings import Finding, named
from scfusionttt.errors import InputDataError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import COUNTS

#: The largest whole number up to which float32 is exact; larger counts may be rounded.
EXACT_FLOAT32 = 2**24
#: Percentage of fractional values from which they look normalised rather than corrected.
MANY_FRACTIONS = 50
#: Values this close to a whole number may be counts with rounding errors, as after undoing a logarithm.
ROUNDING = 0.01
#: Counts of at most this share of the features in ``.raw`` are those of variable genes, not of filtered ones.
FEW_FEATURES = 1 / 3
X = "X"
_ROWS = 4096  # rows per block, so that no pass over the cells doubles the memory


def raw_counts(adata: AnnData, *, modality: str, layer: str | None = None) -> tuple[Any, list[Finding]]:
    """Find the matrix of raw counts: the given layer or X, else ``layers["counts"]``, else X, else ``.raw``.

    ``.raw`` is used only where it has whole numbers and every feature, and X has not; this is reported, as are the
    other matrices if the one chosen by default has fractional values.

    Returns
    -------
    matrix, findings
        The matrix [n, f] as stored (not copied), and what the user should know about the choice.

    Raises
    ------
    InputDataError
        The layer does not exist, or there is no matrix at all.
    """
    if has_layer(adata, layer) and layer != X:
        return adata.layers[layer], []
    if layer not in (None, X):
        raise InputDataError(
            f"{modality} has no layer '{layer}'; available layers: {', '.join(_layers(adata)) or 'none'}"
        )
    if COUNTS in adata.layers and layer is None:
        return adata.layers[COUNTS], _other_matrices(adata, modality)
    if adata.X is None:
        others = _layers(adata)
        choice = f", or choose a layer: {', '.join(others)}" if others else ""
        lacks = "X" if others else "matrix"
        raise InputDataError(f"{modality} has no {lacks}; put raw counts in X or layers['{COUNTS}']{choice}")
    if layer == X:
        return adata.layers.get(X, adata.X), []
    if adata.raw is None or is_whole(adata.X) or not _covers(adata.raw.var_names, adata.var_names):
        return adata.X, _other_matrices(adata, modality)
    matrix = _of_raw(adata, adata.var_names)
    if not is_whole(matrix):
        return adata.X, _other_matrices(adata, modality)
    message = f"{modality}: X has fractional values, so the raw counts were taken from .raw"
    return matrix, [Finding("warning", "counts_from_raw", message, f"store them in layers['{COUNTS}'] to be explicit")]


def features_of_raw(adata: AnnData, *, modality: str, layer: str | None = None) -> tuple[AnnData, list[Finding]]:
    """Return `adata` with the counts and all features of ``.raw``, if X has fractional values of only some of them.

    If `adata` has counts itself, but of few of the features in ``.raw``, as of the variable genes, this is reported.
    """
    raw = adata.raw
    if layer is not None or raw is None or raw.n_vars == adata.n_vars or not _covers(raw.var_names, adata.var_names):
        return adata, []
    has_counts = COUNTS in adata.layers or adata.X is None or is_whole(adata.X)
    if has_counts and adata.n_vars > FEW_FEATURES * raw.n_vars:
        return adata, []
    matrix = _of_raw(adata, raw.var_names)
    if not is_whole(matrix):
        return adata, []
    if has_counts:
        place = f"layers['{COUNTS}']" if COUNTS in adata.layers else X
        message = f"{modality}: {place} has counts of {adata.n_vars} features, and .raw of all {raw.n_vars}"
        return adata, [Finding("warning", "more_features_in_raw", message, "to use these, give adata.raw.to_adata()")]
    message = (
        f"{modality}: X has fractional values of {adata.n_vars} features, so the raw counts of all {raw.n_vars} "
        "features were taken from .raw"
    )
    finding = Finding("warning", "counts_from_raw", message, f"store them in layers['{COUNTS}'] to be explicit")
    with quiet():
        return AnnData(matrix, obs=adata.obs, var=raw.var, obsm=dict(adata.obsm), uns=adata.uns), [finding]


def _of_raw(adata: AnnData, names: pd.Index) -> Any:
    """Return the values of some features of ``.raw``; those of a view of a file are read, as it has no views."""
    raw = (adata.to_memory() if adata.isbacked and adata.is_view else adata).raw
    matrix = _in_memory(raw.X)
    if raw.var_names.equals(names):  # which may be repeated, as symbols are
        return matrix
    # anndata does not choose columns of .raw in a file: raw[:, names].X has all of them
    return matrix[:, raw.var_names.get_indexer(names)]


def has_layer(adata: AnnData, layer: str | None) -> bool:
    """Return whether there is a matrix of this name; ``X`` is that of the AnnData."""
    return layer is not None and (layer == X or layer in _layers(adata))


def _layers(adata: AnnData) -> list[str]:
    return [name for name in adata.layers if name is not None]  # anndata 0.13: None is X


def _other_matrices(adata: AnnData, modality: str) -> list[Finding]:
    """Return a finding that lists the other matrices, if that chosen by default has fractional values."""
    layers = _layers(adata)
    matrices = {name: adata.layers[name] for name in layers} | ({} if adata.X is None else {X: adata.X})
    chosen = matrices.pop(COUNTS if COUNTS in layers else X)
    if not matrices or is_whole(chosen):
        return []
    place = f"layers['{COUNTS}']" if COUNTS in layers else X
    others = ", ".join(
        f"{name} ({'whole' if is_whole(other) else 'fractional'} values)" for name, other in matrices.items()
    )
    best = next((name for name, other in matrices.items() if is_whole(other)), next(iter(matrices)))
    remedy = f"choose one with layer='{best}'"
    message = f"{modality}: {place} has fractional values; other matrices: {others}"
    return [Finding("warning", "fractional_matrix", message, remedy)]


def to_csr(matrix: Any) -> sparse.csr_matrix:
    """Return a copy as canonical CSR float32, from any container, byte order and dtype."""
    matrix = _in_memory(matrix)
    if _is_sparse(matrix):
        parts = (_float32(matrix.data), _native(matrix.indices), _native(matrix.indptr))
        kind = sparse.csr_matrix if matrix.format == "csr" else sparse.csc_matrix
        try:
            whole = kind(parts, shape=matrix.shape)
            whole.check_format(full_check=True)  # an index out of bounds would corrupt memory
        except ValueError as error:
            raise InputDataError(f"the sparse matrix is corrupt ({error}); copy or write the file again") from error
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
    """Report cells with NaN, infinite, negative or fractional values, or counts too large for float32.

    NaN in proteins means "not measured" and is valid; in RNA it is an error.
    """
    is_rna = modality == "RNA"
    normalized = "values look normalised, not raw counts; put raw counts in layers['counts'] or X, or choose a layer"
    if not is_rna:
        normalized += "; for a table in obsm, put them there, or choose another with protein_modality"
    share = float(f"{share_of_fractions(matrix):.2g}")
    correction = "from EM or ambient correction? round them with round=True"
    remedy = normalized if share and looks_normalised(matrix) else correction
    fractional = f"has fractional values ({share:g} % of those above zero)"
    tests: list[tuple[str, Callable[[np.ndarray], np.ndarray], str, str]] = [
        ("infinite", np.isinf, "has infinite values", "correct or remove these cells"),
        ("negative", lambda x: (x < 0) & np.isfinite(x), "has negative values", normalized),
        ("not_counts", _is_fraction, fractional, remedy),
    ]
    if is_rna:
        tests.insert(0, ("nan", np.isnan, "has NaN", "correct or remove these cells"))
    findings = [
        Finding("error", code, f"{modality} {what} in {named(names, 'cell')}", advice, names)
        for code, test, what, advice in tests
        if (names := _cells_where(matrix, cells, test))
    ]
    huge = _cells_where(matrix, cells, lambda x: np.isfinite(x) & (x > EXACT_FLOAT32))
    if huge:
        message = f"{modality} has counts above {EXACT_FLOAT32} (rounded in float32) in {named(huge, 'cell')}"
        findings.append(Finding("note", "huge_counts", message, names=huge))
    return findings


def row_values(matrix: sparse.csr_matrix, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return views of the stored values of some rows of a CSR matrix, and of their column indices."""
    stored = slice(matrix.indptr[rows.start], matrix.indptr[rows.stop])
    return matrix.data[stored], matrix.indices[stored]


def row_blocks(n: int) -> Iterator[slice]:
    """Yield slices of a few thousand rows that cover n rows."""
    for start in range(0, n, _ROWS):
        yield slice(start, min(start + _ROWS, n))


def is_whole(matrix: Any) -> bool:
    """Return whether every finite value is a whole number."""
    matrix = _in_memory(matrix)
    values = matrix.data if _is_sparse(matrix) else matrix
    parts = (_float32(values[rows]) for rows in row_blocks(len(values)))
    return all(not np.any(_is_fraction(part)) for part in parts)


def rounded(matrix: Any) -> Any:
    """Return a float32 matrix rounded to whole numbers, without stored zeros; NaN stays NaN."""
    if not _is_sparse(matrix):
        return np.rint(matrix)
    matrix = matrix.copy()
    matrix.data = np.rint(matrix.data)
    matrix.eliminate_zeros()
    return matrix


def _is_fraction(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (values != np.rint(values))


def looks_normalised(matrix: sparse.csr_matrix | np.ndarray) -> bool:
    """Return whether so many values are fractional, by more than rounding errors, that these are no counts."""
    return share_of_fractions(matrix, beyond=ROUNDING) > MANY_FRACTIONS


def share_of_fractions(matrix: sparse.csr_matrix | np.ndarray, *, beyond: float = 0) -> float:
    """Return how many of the nonzero values differ from a whole number by more than `beyond`, in percent."""
    values: np.ndarray = np.asarray(matrix.data) if isinstance(matrix, sparse.csr_matrix) else matrix
    fractions = (block[_is_fraction(block)] for block in map(values.__getitem__, row_blocks(len(values))))
    n_far = sum(int((np.abs(block - np.rint(block)) > beyond).sum()) for block in fractions)
    return 100 * n_far / max(int(np.count_nonzero(values)), 1)


def columns_without_numbers(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns with text, dates or other values that are not numbers."""
    return [str(name) for name, values in table.items() if not _is_numeric(values)]


def _cells_where(matrix: Any, cells: pd.Index, test: Callable[[np.ndarray], np.ndarray]) -> tuple[str, ...]:
    """Return the names of the cells with a value that passes the test."""
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
    if values.dtype.kind in "cmM":  # NumPy would cast complex numbers, time spans and dates to floats
        return False
    try:
        values.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError):
        return False
    return True


def _is_sparse(matrix: Any) -> bool:
    return bool(sparse.issparse(matrix))


def _covers(names: pd.Index, wanted: pd.Index) -> bool:
    return names.equals(wanted) or bool(names.is_unique and wanted.is_unique and wanted.isin(names).all())


def _in_memory(matrix: Any) -> Any:
    """Load a matrix that is on disk (backed or lazy) into memory."""
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
    message = f"the matrix has {values.dtype} values; counts must be numbers"
    if values.dtype.kind == "c":  # NumPy would discard the imaginary part
        raise InputDataError(message)
    with np.errstate(over="ignore"):  # too large a number becomes inf, which is then reported
        try:
            return np.array(values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputDataError(message) from error


def _native(indices: np.ndarray) -> np.ndarray:
    return indices.astype(indices.dtype.newbyteorder("="))
