"""What a piece of work costs: seconds and the most memory that the process held meanwhile."""

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
    """Seconds on the clock, and bytes of the whole process at the peak (None where the system does not tell)."""

    seconds: float = 0.0
    peak_memory: int | None = None

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of one after the other."""
        peaks = [peak for peak in (self.peak_memory, other.peak_memory) if peak is not None]
        return Cost(self.seconds + other.seconds, max(peaks, default=None))


def measured(work: Callable[[], T]) -> tuple[T, Cost]:
    """Do the work and measure it."""
    told = _forget_peak()
    start = time.perf_counter()
    result = work()
    return result, Cost(time.perf_counter() - start, _peak() if told else None)


def _forget_peak() -> bool:
    """Let the system count the peak from here on; says whether it does."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return _peak() is not None


def _peak() -> int | None:
    told = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(told[1]) * 1024 if told else None
