"""How much memory there is: what the user allows, what the machine has free, what this process holds already."""

import os
import re
from pathlib import Path

import torch

from scfusionttt.errors import SettingError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([kmgt]i?)?b?", re.IGNORECASE)

#: Files of a control group: limit, usage, and the name of what of the usage the system would give back.
_GROUPS = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def parse_size(size: str | int) -> int:
    """Return bytes of ``6GiB``, ``4GB``, ``500M`` or a number of bytes.

    Raises
    ------
    SettingError
        For anything else.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or not float(match[1]):
        raise SettingError(f"memory must be a size like 6GiB, 4GB or a number of bytes, not {size!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def in_use(device: torch.device) -> int:
    """Return the bytes that this process holds on a device; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def free(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Return the bytes that are free on a device, within the limits of control groups; None if nobody says.

    Parameters
    ----------
    root
        Where the system tells of itself.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        told = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    machine = [int(told[1]) * 1024] if told else []
    return min([*machine, *_free_in_groups(root)], default=None)


def _free_in_groups(root: Path) -> list[int]:
    """Return what each control group above this process, in either version of them, leaves it."""
    lines = (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else []
    own = {line.split(":", 2)[2].lstrip("/") for line in lines}
    left = []
    for mount, (limit, usage, spare) in _GROUPS.items():
        inside = {root / mount} | {root / mount / path for path in own}
        for folder in {above for path in inside for above in (path, *path.parents)}:
            try:
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # there is no such group, or it has no limit ("max")
                continue
            left.append(max(0, most - used + int(stat.get(spare, 0))))
    return left
