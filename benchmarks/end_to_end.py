"""From a file to an embedding: `pretrain` and `embed` from a shell, against weighted nearest neighbours (muon).

python benchmarks/end_to_end.py pbmc10k.h5mu --rounds 3

Whole processes take turns, imports included; the first round, which compiles the kernels, does not count. Prints the
least wall time of each and their ratio. `--python` names an interpreter with muon; without it the present one is used.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.measure import print_table, write_json

WNN = """
import sys, warnings
warnings.simplefilter("ignore")
import mudata, muon, scanpy
data = mudata.read_h5mu(sys.argv[1])
rna, protein = data["rna"], data[next(name for name in data.mod if name != "rna")]
scanpy.pp.normalize_total(rna, target_sum=1e4)
scanpy.pp.log1p(rna)
if rna.n_vars > 4000:
    scanpy.pp.highly_variable_genes(rna, n_top_genes=4000, subset=True)
muon.prot.pp.clr(protein)
for part in (rna, protein):
    scanpy.pp.scale(part, max_value=10)
    scanpy.tl.pca(part)
    scanpy.pp.neighbors(part)
muon.pp.neighbors(data, key_added="wnn")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="CITE-seq with raw counts, .h5mu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="interpreter with muon")
    parser.add_argument("--json", type=Path, help="write the table there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        own, data, model = [sys.executable, "-m", "scfusionttt"], str(options.input), f"{folder}/model"
        programs = {
            "pretrain": [*own, "pretrain", data, "--out", model, "--overwrite"],
            "embed": [*own, "embed", data, "--model", model, "--out", f"{folder}/z.npy"],
            "WNN": [options.python, "-c", WNN, data],
        }
        seconds = pd.DataFrame([timed(programs, options.threads) for _ in range(options.rounds + 1)])[1:].min()
    ours = seconds["pretrain"] + seconds["embed"]
    table = pd.DataFrame({"seconds": seconds, "of WNN's": seconds / seconds["WNN"]}).rename_axis("program")
    table.loc["pretrain + embed"] = ours, ours / seconds["WNN"]
    print_table(table, f"From file to embedding, {options.threads} threads")
    write_json(options.json, rows=table.reset_index())
    return 0


def timed(programs: dict[str, list[str]], threads: int) -> dict[str, float]:
    """Return the seconds of wall time of each program."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    seconds = {}
    for name, command in programs.items():
        start = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, **limits}, stderr=subprocess.DEVNULL)
        seconds[name] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    sys.exit(main())
