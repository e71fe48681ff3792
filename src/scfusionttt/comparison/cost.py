"""Time and peak memory of a piece of work."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and peak memory of the process in bytes (None if the system does not report it)."""

    seconds: float = 0.0
    peak_memory: int | None = None

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both, one after the other."""
        peaks = [peak for peak in (self.peak_memory, other.peak_memory) if peak is not None]
        return Cost(self.seconds + other.seconds, max(peaks, default=None))


def measure(work: Callable[[], T]) -> tuple[T, Cost]:
    """Run `work`; return its result and its cost."""
    resettable = _reset_peak()
    start = time.perf_counter()
    result = work()
    return result, Cost(time.perf_counter() - start, _peak() if resettable else None)


def _reset_peak() -> bool:
    """Reset the peak memory that the system has recorded; return whether that is possible."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return _peak() is not None


def _peak() -> int | None:
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(match[1]) * 1024 if match else None
