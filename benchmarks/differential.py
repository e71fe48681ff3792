"""Calibration of differential tests: p-values where donors differ, but not the two conditions they are divided into.

python benchmarks/differential.py --seeds 5

Eight donors are simulated with a batch effect and divided at random into cases and controls, so that every feature is
tested under the null hypothesis. Columns: fractions of the tested features with a p-value below 0.05 and 0.01 (if
calibrated, 0.05 and 0.01), and called at a false discovery rate of 0.05 (if calibrated, 0).
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from mudata import MuData

from benchmarks.measure import print_table, write_json
from scfusionttt.analysis.differential import differential
from scfusionttt.simulation import simulate

N_DONORS = 8
REPLICATES = {"donors": "batch", "cells": None}


def main() -> None:
    """Print the fractions, means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effect", type=float, default=0.3, help="size of the simulated effect of a donor")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = [row for seed in range(options.seeds) for row in tested(donors(options.effect, seed), seed)]
    table = pd.DataFrame(rows)
    summary = table.drop(columns="seed").groupby(["features", "replicates"]).mean().round(3).reset_index()
    print_table(summary.set_index("features"), f"{N_DONORS} donors, {options.seeds} simulations without a difference")
    write_json(options.json, rows=table)


def donors(effect: float, seed: int) -> MuData:
    """Return simulated cells whose donors are cases or controls at random."""
    mdata = simulate(2400, 400, 20, 3, n_batches=N_DONORS, batch_effect=effect, seed=seed)
    names = np.random.default_rng(seed).permutation(mdata.obs["batch"].unique())
    is_case = mdata.obs["batch"].isin(names[: N_DONORS // 2])
    mdata.obs["condition"] = np.where(is_case, "case", "control")
    return mdata


def tested(mdata: MuData, seed: int) -> list[dict[str, object]]:
    """Return how often features are said to differ, with donors and with cells as replicates."""
    rows: list[dict[str, object]] = []
    for modality in ("rna", "protein"):
        for name, donor_key in REPLICATES.items():
            table = differential(
                mdata, "condition", modality=modality, groups=["case"], reference="control", donor_key=donor_key
            )  # fmt: skip
            p_value = table["pvals"][table["pvals"] < 1]
            rows.append({
                "seed": seed, "features": modality, "replicates": name, "tests": len(p_value),
                "p < 0.05": (p_value < 0.05).mean(), "p < 0.01": (p_value < 0.01).mean(),
                "called": (table["pvals_adj"] < 0.05).mean(),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
