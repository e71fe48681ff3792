"""How many threads the numerical libraries use, and how they wait."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Turns that an idle thread of GNU's OpenMP waits before it sleeps. Its own choice, some milliseconds, keeps the CPU
#: kernel's threads off the cores between torch's operations; none at all makes every one of those slower to start.
SPINS = 10_000


def rest_soon() -> None:
    """Let idle OpenMP threads sleep soon, unless the user said how they wait; torch reads it when it is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give OpenMP's threads back as they were, around what may start Numba's (scanpy, UMAP).

    Numba sets them to all cores when it first runs in parallel, and so torch's, whatever OMP_NUM_THREADS says.
    """
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="openmp").lib_controllers
    threads = [pool.num_threads for pool in pools]
    try:
        yield
    finally:
        for pool, before in zip(pools, threads, strict=True):
            pool.set_num_threads(before)
