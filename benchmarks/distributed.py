"""Throughput of pretraining with one process and with two, one thread each, extrapolated to an atlas.

python benchmarks/distributed.py --json distributed.json
python benchmarks/distributed.py --cells 1000 --genes 15000 --preset whole

The processes run at the same time and wall time is measured, so two cores must be free.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import argparse
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, print_table, write_json

#: Least speed-up by two processes; largest relative difference of their losses, which is due to rounding.
FASTER, SAME_LOSS = 1.6, 1e-3
#: An atlas: cells, epochs and processes.
ATLAS, EPOCHS, PROCESSES = (10_000_000, 100_000_000), 5, (1, 8, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=4000, help="genes to simulate, as many as the preset uses")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the median epoch counts")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args(arguments)
    rates, losses = measure(given.cells, given.genes, given.preset, given.repeats)
    agree = bool(np.allclose(losses[1], losses[2], rtol=SAME_LOSS))
    if not agree:
        print("the losses of one process and of two differ, so no speed-up is reported")
        return 1
    speedup = rates[2] / rates[1]
    table = pd.DataFrame({"cells per second": rates}).rename_axis("processes")
    print_table(table, "Pretraining, one thread per process")
    print(f"two processes are {speedup:.2f} times as fast as one (target: {FASTER})")
    projected = project(rates[1], speedup)
    print_table(projected, f"An atlas, {EPOCHS} epochs, extrapolated")
    write_json(given.json, rates=table.reset_index(), speedup=speedup, projected=projected.reset_index())
    return 0 if speedup >= FASTER else 1


def measure(cells: int, genes: int, preset: str, repeats: int) -> tuple[dict[int, float], dict[int, np.ndarray]]:
    """Return cells per second, from the second epoch on, and losses, by number of processes."""
    from scfusionttt.simulation.simulate import simulate

    seconds, losses = dict[int, list[float]]({1: [], 2: []}), {}
    with tempfile.TemporaryDirectory() as folder:
        simulate(cells, genes, 20, 6).write_h5mu(f"{folder}/cells.h5mu")
        for turn in range(repeats):
            for n in seconds:
                history = pretrained(folder, n, preset, f"model-{turn}-{n}")
                seconds[n] += history["seconds"].iloc[1:].tolist()  # the first epoch compiles
                losses[n] = history["train_loss"].to_numpy()
    return {n: cells / float(np.median(epochs)) for n, epochs in seconds.items()}, losses


def pretrained(folder: str, n: int, preset: str, out: str) -> pd.DataFrame:
    """Return the training history of a run with n processes."""
    command = [
        sys.executable, "-m", "scfusionttt.cli", "pretrain", "cells.h5mu", "--out", out,
        "--preset", preset, "--epochs", "3", "--device", "cpu", "--devices", str(n), "--set", "network.dropout=0",
    ]  # fmt: skip
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    environ["PYTHONPATH"] = os.pathsep.join([f"{ROOT}/src", os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, cwd=folder, env=environ, check=True)
    return pd.read_csv(f"{folder}/{out}/history.csv")


def project(rate: float, speedup: float) -> pd.DataFrame:
    """Return the hours for an atlas, if each further process adds as much as the second one did."""
    rows = []
    for cells in ATLAS:
        seconds = [EPOCHS * cells / (rate * (1 + (n - 1) * (speedup - 1))) for n in PROCESSES]
        rows.append({"cells": cells} | {f"{n} processes, hours": s / 3600 for n, s in zip(PROCESSES, seconds)})
    return pd.DataFrame(rows).set_index("cells")


if __name__ == "__main__":
    sys.exit(main())
