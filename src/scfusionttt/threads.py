"""The number of OpenMP threads, and how idle ones wait."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Spins of an idle thread of GNU's OpenMP before it sleeps. The default, some milliseconds, blocks the cores for the
#: CPU kernel's threads between torch's operations; no spinning at all delays the start of every operation.
SPINS = 10_000


def limit_spinning() -> None:
    """Let idle OpenMP threads sleep early, unless the user chose otherwise; call it before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restore the number of OpenMP threads after code that may start Numba's (scanpy, UMAP).

    On its first parallel run, Numba sets the number to all cores, also for torch and whatever OMP_NUM_THREADS is. An
    OpenMP library that the code has loaded, which torch may share later, is set to OMP_NUM_THREADS.
    """
    before = {pool.filepath: pool.num_threads for pool in _runtimes()}
    try:
        yield
    finally:
        for pool in _runtimes():
            pool.set_num_threads(before.get(pool.filepath) or _allowed(pool.num_threads))


def _runtimes() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="openmp").lib_controllers)


def _allowed(default: int) -> int:
    """Return OMP_NUM_THREADS (of a list, for nested levels, the first), or the default if it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else default
