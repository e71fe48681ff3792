"""The machine that training runs on: its devices, the memory that is free, and how freed memory is kept."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from scfusionttt.errors import SettingError
from scfusionttt.nn.networks import Network

#: Files of a control group (limit, usage), and the reclaimable part of the usage by its name in ``memory.stat``.
_GROUPS = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}

#: Largest size of a [cells, tokens, width] tensor, in numbers; the widest tensors are a few times as large. On Linux,
#: blocks over 32 MB are mapped anew at each use, and clearing their pages takes as long as the computation.
MAX_NUMBERS = {"cpu": 2**21, "cuda": 2**25}

#: Bytes that are kept; a tensor of at least LARGE bytes is returned at once.
KEPT, LARGE = 2**30, 2**26
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of GNU's malloc.h
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device that `name` stands for.

    Parameters
    ----------
    name
        ``auto``, ``cpu``, ``mps``, ``cuda`` or one GPU, such as ``cuda:1``.

    Raises
    ------
    SettingError
        The device does not exist or is not available on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if str(name) == "auto":
        return torch.device(next(kind for kind, is_available in available.items() if is_available))
    kind, _, number = str(name).partition(":")
    if kind not in available or (number and not number.isdecimal()):
        raise SettingError(f"unknown device {str(name)!r}; choose auto, cpu, cuda, cuda:0 or mps")
    if not available[kind]:
        raise SettingError(f"the device {str(name)!r} is not available on this machine; choose auto or cpu")
    device, count = torch.device(str(name)), torch.cuda.device_count() if kind == "cuda" else 1
    if (device.index or 0) >= count:
        raise SettingError(
            f"the device {str(name)!r} does not exist: the last one on this machine is {kind}:{count - 1}"
        )
    return device


def cells_at_once(network: Network, device: torch.device) -> int:
    """Return how many cells to pass through the network at a time, at least one per thread."""
    size = network.backbone.rna_encoder.embedding.position.numel()
    cells = MAX_NUMBERS.get(device.type, MAX_NUMBERS["cpu"]) // size
    return max(cells, torch.get_num_threads() if device.type == "cpu" else 1)


def in_use(device: torch.device) -> int:
    """Return the bytes that this process uses on a device; 0 where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def free(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Return the bytes that are free on a device, within the limits of control groups; None if unknown.

    Parameters
    ----------
    root
        Root of the file system, for tests.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        reported = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    machine = [int(reported[1]) * 1024] if reported else []
    return min([*machine, *_free_in_groups(root)], default=None)


def _free_in_groups(root: Path) -> list[int]:
    """Return the free bytes of each control group (version 1 or 2) that this process is in."""
    lines = (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else []
    own = {line.split(":", 2)[2].lstrip("/") for line in lines}
    left = []
    for mount, (limit, usage, spare) in _GROUPS.items():
        inside = {root / mount} | {root / mount / path for path in own}
        for folder in {above for path in inside for above in (path, *path.parents)}:
            try:
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or no limit ("max")
                continue
            left.append(max(0, most - used + int(stat.get(spare, 0))))
    return left


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep up to `KEPT` bytes of freed memory for the next step, and return it to the system at the end.

    By default GNU's C library returns the memory of a step's activations at the end of the step, and the system clears
    each page that the next step touches: a tenth of a step's time. Other C libraries, and thresholds set by the user,
    are left alone. The new thresholds stay, since the old ones cannot be read.
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
