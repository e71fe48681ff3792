"""What the filter of counting noise gains: embeddings with it, and of the same networks without it.

python benchmarks/noise_filter.py                                             # three simulations
python benchmarks/noise_filter.py malt_subset.h5mu pbmc10k.h5mu --labels-key wnn_cluster cell_type --cells 2000

Each pair of models has the same cells and seed, so that the network is the same and only its metric differs
(:mod:`scfusionttt.fitting.whitening`). Scores are those of ``scfusionttt benchmark --protocols
unsupervised,count-splitting``: by the labels, by what else the same counts say, and by the other half of the counts.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd

from benchmarks.measure import labelled_inputs, print_table, write_json
from scfusionttt.cli.common import as_settings
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import choose
from scfusionttt.comparison.rows import half_interval
from scfusionttt.comparison.tasks import tasks
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.fitting import whitening
from scfusionttt.simulation.simulate import simulate

SCORES = ("split_gene_r", "split_protein_r", "kNN", "probe_f1", "ARI", "NMI", "gene_r", "protein_r")
#: The simulations of docs/results.md, by seed.
SIMULATIONS: dict[int, dict[str, Any]] = {1: {}, 2: {"depth": 0.08}, 3: {"coregulation": 1.2, "protein_dropout": 0.1}}


def main() -> None:
    """Print the mean differences over all pairs, and write the scores of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="*", help="default: simulated cells")
    parser.add_argument("--labels-key", nargs="+", default=["cell_type"], metavar="KEY", help="one, or one per input")
    parser.add_argument("--cells", type=int, help="draw so many cells of each input")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", metavar="SECTION.KEY=VALUE", help="settings of both models")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    data = labelled_inputs(parser, options, options.cells) or list(map(_simulated, SIMULATIONS))
    settings, rows = as_settings(options.set), []
    for cells in data:
        for seed in range(options.seeds):
            rows += pair(cells, seed, settings)
            print(cells.name, f"seed {seed}", flush=True)
    table = pd.DataFrame(rows)
    print_table(differences(table), "With the filter minus without it")
    write_json(options.json, rows=table)


def _simulated(seed: int) -> Cells:
    mdata = simulate(800, 2000, 20, 8, seed=seed, **SIMULATIONS[seed])
    return Cells(f"simulation_{seed}", as_citeseq(mdata), "cell_type")


def pair(cells: Cells, seed: int, settings: dict[str, Any]) -> list[dict[str, object]]:
    """Return the scores of the model with the filter, and without it."""
    return [
        {"cells": cells.name, "seed": seed, "filter": filtered, **_scores(cells, seed, settings, filtered)}
        for filtered in (True, False)
    ]


def _scores(cells: Cells, seed: int, settings: dict[str, Any], filtered: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    least = whitening.LEAST_SIGNAL if filtered else 1.0  # without the filter, every direction counts as signal
    with TemporaryDirectory() as folder, patch.object(whitening, "LEAST_SIGNAL", least):
        [method] = choose(["fusionttt"], models=Path(folder), settings=settings)
        for task in tasks(["unsupervised", "count-splitting"], [0.5]):
            found |= task.score(method, cells, seed)[0]["metrics"]
    return {name: found[name] for name in SCORES if name in found}


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean, half of the 95 % interval (Student) and numbers of pairs that the filter makes better and worse."""
    scores = rows.set_index(["cells", "seed"])
    gain = scores[scores["filter"]].drop(columns="filter") - scores[~scores["filter"]].drop(columns="filter")
    half = half_interval(gain.std(), gain.count())
    return pd.DataFrame(
        {"difference": gain.mean().round(4), "±": half.round(4), "better": (gain > 0).sum(), "worse": (gain < 0).sum()}
    )


if __name__ == "__main__":
    main()
