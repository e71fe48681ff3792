"""Cells per second of pretraining with one process and with two, one thread each, and what that means for an atlas.

python benchmarks/distributed.py --json distributed.json
python benchmarks/distributed.py --cells 1000 --genes 15000 --preset whole

Keep two cores free: the processes run side by side, so the time is that of the clock.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` in this folder is not the standard library's

import argparse
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, print_table, write_json

#: Two processes should do so many times as much as one, and their losses differ by rounding alone, relative.
FASTER, SAME_LOSS = 1.6, 1e-3
#: An atlas: cells, passes over them, and processes.
ATLAS, EPOCHS, PROCESSES = (10_000_000, 100_000_000), 5, (1, 8, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=4000, help="as many as the preset reads")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn; the median epoch counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    rates, losses = measure(given.cells, given.genes, given.preset, given.repeats)
    agree = bool(np.allclose(losses[1], losses[2], rtol=SAME_LOSS))
    if not agree:
        print("the losses of one process and of two differ: no speed is told")
        return 1
    faster = rates[2] / rates[1]
    table = pd.DataFrame({"cells per second": rates}).rename_axis("processes")
    print_table(table, "Pretraining, one thread for each process")
    print(f"two processes do {faster:.2f} times as much as one (wanted: {FASTER})")
    projected = project(rates[1], faster)
    print_table(projected, f"An atlas, {EPOCHS} epochs, at this rate")
    write_json(given.json, rates=table.reset_index(), faster=faster, projected=projected.reset_index())
    return 0 if faster >= FASTER else 1


def measure(cells: int, genes: int, preset: str, repeats: int) -> tuple[dict[int, float], dict[int, np.ndarray]]:
    """Return cells per second, and the losses, of the second epoch on by the number of processes."""
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
    """Return what a run of n processes told of its epochs."""
    command = [
        sys.executable, "-m", "scfusionttt.cli", "pretrain", "cells.h5mu", "--out", out,
        "--preset", preset, "--epochs", "3", "--device", "cpu", "--devices", str(n), "--set", "network.dropout=0",
    ]  # fmt: skip
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    environ["PYTHONPATH"] = os.pathsep.join([f"{ROOT}/src", os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, cwd=folder, env=environ, check=True)
    return pd.read_csv(f"{folder}/{out}/history.csv")


def project(rate: float, faster: float) -> pd.DataFrame:
    """Return the hours that an atlas takes, each further process adding what the second one did."""
    rows = []
    for cells in ATLAS:
        seconds = [EPOCHS * cells / (rate * (1 + (n - 1) * (faster - 1))) for n in PROCESSES]
        rows.append({"cells": cells} | {f"{n} processes, hours": s / 3600 for n, s in zip(PROCESSES, seconds)})
    return pd.DataFrame(rows).set_index("cells")


if __name__ == "__main__":
    sys.exit(main())
