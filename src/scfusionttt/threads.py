"""The number of OpenMP threads, and how idle ones wait."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Spins of an idle thread of GNU's OpenMP before it sleeps. The default, some milliseconds, blocks the cores for the
#: CPU kernel's threads between torch's operations; no spinning at all delays the start of every operation.
SPINS = 10_000


def rest_soon() -> None:
    """Let idle OpenMP threads sleep early, unless the user chose otherwise; call it before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restore the number of OpenMP threads after code that may start Numba's (scanpy, UMAP).

    On its first parallel run, Numba sets the number to all cores, also for torch and whatever OMP_NUM_THREADS is.
    """
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="openmp").lib_controllers
    threads = [pool.num_threads for pool in pools]
    try:
        yield
    finally:
        for pool, before in zip(pools, threads, strict=True):
            pool.set_num_threads(before)
