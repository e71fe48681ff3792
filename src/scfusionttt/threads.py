"""How many threads the numerical libraries use."""

from collections.abc import Iterator
from contextlib import contextmanager


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
