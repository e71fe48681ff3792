"""Check of the machine: versions, devices, and comparison of each TTT kernel with the definition."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd
import torch

from scfusionttt.ttt import ttt_linear
from scfusionttt.ttt.parity import TOLERANCES, difference, make_case, results

_PACKAGES = ("scfusionttt", "torch", "lightning", "numba", "triton", "anndata", "mudata", "scanpy")

#: Backends to check, and the devices to run them on.
_KERNELS = (("chunked", "cpu"), ("cpu", "cpu"), ("chunked", "cuda"), ("gpu", "cuda"))

TOLERANCE = TOLERANCES["highest"]
HEAD = 32  # units per head


def examine(*, seed: int = 0) -> dict[str, Any]:
    """Return versions, devices, and for each kernel its difference from the definition and its speed.

    The difference is the largest one of output, inner loss and gradients in float32, relative to the largest value, on
    a sequence of odd length with masked tokens. The speed is that of a forward and a backward pass, in nanoseconds per
    token and head; on a CPU in process time, to which each thread adds its own.
    """
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "devices": {
            "cpu": f"{torch.get_num_threads()} threads",
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not available",
            "mps": "available" if torch.backends.mps.is_available() else "not available",
        },
        "kernels": [_try_kernel(name, device, seed) for name, device in _KERNELS],
    }


def kernel_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the kernels of `examine` as text for people: speeds in tokens per second, a dash for what did not run."""
    return pd.DataFrame(
        {
            "kernel": row["kernel"],
            "device": row["device"],
            "works": row["works"],
            "error": row["difference"] or "-",
            "tokens per second": f"{1e9 / speed:,.0f}" if (speed := row["ns per token-head"]) else "-",
            "note": row["note"],
        }
        for row in rows
    ).set_index("kernel")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _try_kernel(name: str, device: str, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"kernel": name, "device": device}
    try:
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("there is no CUDA device")
        largest = difference(ttt_linear, name, cells=2, tokens=101, head=HEAD, device=device, seed=seed)
        nanoseconds = _speed(name, device, seed)
    except Exception as error:  # any failure of a kernel is reported, not raised
        return {**row, "works": "no", "difference": None, "ns per token-head": None, "note": str(error).split("\n")[0]}
    works = "yes" if largest <= TOLERANCE else "no"
    return {**row, "works": works, "difference": f"{largest:.1e}", "ns per token-head": round(nanoseconds), "note": ""}


def _speed(name: str, device: str, seed: int) -> float:
    """Return the time of a forward and backward pass, in nanoseconds per token and head, in the second of two runs."""
    case = make_case(cells=16, tokens=1600, head=HEAD, device=device, seed=seed)
    clock = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(2):
        start = clock()
        results(ttt_linear, case, backend=name)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - start
    return seconds / case["lr"].numel() * 1e9
