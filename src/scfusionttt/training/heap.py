"""Freed memory that stays with the process between the steps of training, instead of being cleared and mapped anew."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Bytes that are kept, and bytes of one tensor from which on it goes back at once.
KEPT, LARGE = 2**30, 2**26
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of GNU's malloc.h
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed, up to `KEPT`, and give it back at the end.

    GNU's C library, left to itself, gives back the memory of a step's activations at the step's end, and each page
    that the next step touches is cleared by the system: a tenth of a step's time. Nothing is done where there is
    another C library, or where the user has set this one. The thresholds stay: there is no way to read them.
    """
    library = None if sys.platform != "linux" or any(map(os.environ.get, _SETTINGS)) else ctypes.CDLL(None)
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, LARGE)
    library.mallopt(_TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        library.malloc_trim(0)
