"""Shared by the benchmarks: process time, peak memory, the machine, inputs, tables and JSON."""

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from scfusionttt.comparison.cells import Cells
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.read import read
from scfusionttt.report.tables import Table

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("scfusionttt", "torch", "numba", "numpy", "lightning", "scvi-tools")
#: Instructions that determine the speed of matrix products, in float32 and in bfloat16.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_MB = 1e6

Name = TypeVar("Name")


def least_process_time(calls: Mapping[Name, Callable[[], object]], *, repeats: int) -> dict[Name, float]:
    """Return the least process time of each call, in seconds.

    The calls take turns, so that a busy moment of the machine affects all of them; the first turn also warms up.
    """
    least = dict.fromkeys(calls, math.inf)
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


def peak_memory(call: Callable[[], object]) -> float | None:
    """Return the peak increase of the process's resident memory during a call, in MB; None if not on Linux.

    Measure in a fresh process: an older one may reuse memory that earlier work left behind.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM, to what is resident now
    before = resident("VmRSS")
    call()
    return (resident("VmHWM") - before) / _MB


def resident(which: str) -> int:
    """Return the resident memory of this process, in bytes: ``VmRSS``, now, or ``VmHWM``, at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024


def run_module(name: str, *arguments: object) -> Any:
    """Run a module in a fresh process, with the same path, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def environment() -> dict[str, Any]:
    """Return date, processor, threads and versions of a measurement."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "instructions": [x for x in _cpuinfo("flags").split() if x in _INSTRUCTIONS],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _cpuinfo(key: str) -> str:
    """Return an entry of the first processor in /proc/cpuinfo; empty on other systems than Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def over_seeds(rows: pd.DataFrame, by: str, *, digits: int = 3) -> pd.DataFrame:
    """Return the mean and standard deviation of each column over the seeds, by method."""
    summary = rows.drop(columns="seed").groupby(by, sort=False).agg(["mean", "std"]).round(digits)
    return summary.set_axis(summary.columns.map(" ".join), axis="columns")


def some_cells(cite: CiteSeq, n: int | None, *, seed: int = 0) -> CiteSeq:
    """Return `n` cells drawn at random, in their order; all if there are no more, or if `n` is None."""
    if n is None or n >= cite.rna.n_obs:
        return cite
    return cite[np.sort(np.random.default_rng(seed).choice(cite.rna.n_obs, n, replace=False))]


def labelled_inputs(parser: argparse.ArgumentParser, options: argparse.Namespace, n: int | None = None) -> list[Cells]:
    """Return at most `n` cells of each of ``options.inputs``; ``options.labels_key`` has one key, or one per input."""
    inputs, keys = options.inputs, options.labels_key
    if len(keys) not in {1, len(inputs)}:
        parser.error(f"{len(keys)} label keys for {len(inputs)} inputs")
    return [
        Cells(path.stem, some_cells(as_citeseq(read(path), cells="overlap"), n), key)
        for path, key in zip(inputs, keys if len(keys) > 1 else keys * len(inputs), strict=True)
    ]  # fmt: skip


def print_table(rows: pd.DataFrame, caption: str, notes: Iterable[str] = ()) -> None:
    """Print a Markdown table with the index as row names."""
    table = Table(rows, f"**{caption}**", notes="\n".join(notes))
    print("", table.markdown(), sep="\n", flush=True)


def write_json(path: Path | None, **parts: Any) -> None:
    """Write results together with the environment; tables become lists of rows."""
    if path is None:
        return
    plain = {name: _records(x) if isinstance(x, pd.DataFrame) else x for name, x in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), **plain}, indent=1) + "\n", encoding="utf-8")


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    plain = rows.astype(object).where(rows.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
