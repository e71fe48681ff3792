"""Compile functions of arrays with Numba."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit

# NaN and inf keep their meaning; no reference counts: they took half the time, and nothing here allocates memory.
_njit: Any = partial(njit, fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True, _nrt=False, error_model="numpy")
# Inlined for good: left to itself, the process that compiles runs other copies of these than one that reads the cache,
# with other rounding, so that a first run would differ from the second.
compiled: Any = partial(_njit, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def entry(function: Callable) -> Any:
    """Compile a function that Python calls; the result is cached on disk, if a cache folder is writable."""
    try:
        kernel = _njit(function, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return _njit(function)
    sources = [Path(__file__), *sorted(Path(function.__code__.co_filename).parent.glob("*.py"))]
    stamp = [(source.stat().st_mtime, source.stat().st_size) for source in sources]
    kernel._cache._cache_file._source_stamp = stamp  # Numba itself would look at the function's own file only
    return kernel
