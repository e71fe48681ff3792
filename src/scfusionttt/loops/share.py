"""Share the work of compiled loops out over torch's threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch


def share(kernel: Callable, n: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, lo, hi)`` on each thread, for its part of the range from 0 to n."""
    threads = max(1, min(torch.get_num_threads(), n))
    bounds = [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
    waiting = [_pool(os.getpid(), threads).submit(kernel, *arguments, *part) for part in bounds[1:]]
    kernel(*arguments, *bounds[0])
    for job in waiting:
        job.result()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ttt")  # of its own process: threads do not outlive a fork
