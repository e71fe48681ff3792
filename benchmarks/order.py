"""Positive control of the ablations: whether they find an effect of the order of genes that was put into the data.

python benchmarks/order.py --seeds 5 --out order-control

Cells are simulated in which neighbours in the genome vary together beyond cell types, by a factor per stretch of about
ten genes whose standard deviation (natural log) is the strength; 0 is none. The published objective (masked tokens,
every gene a token) is trained on few of them, with genes in genome order and shuffled, and by TTT and by attention,
which knows no order beyond what it learns of each position. Scores are those of ``scfusionttt ablate``: explained
variance of hidden genes in cells that were not trained on, paired by seed; each seed has its own simulation, shuffle
and cells held out. Rows are files in the folder, so that an interrupted run continues.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.measure import print_table, write_json
from scfusionttt.comparison import tasks
from scfusionttt.comparison.ablations import Variants
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import Method
from scfusionttt.comparison.pairs import paired
from scfusionttt.comparison.results import summarise
from scfusionttt.comparison.rows import Job, Row, read_rows, run_all, scores
from scfusionttt.comparison.tasks import Task
from scfusionttt.config import preset
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.simulation import simulate

#: Few cells, deep enough that noise does not hide the factor of a gene's stretch.
SIMULATION: dict[str, Any] = {"n_cells": 300, "n_genes": 150, "n_proteins": 6, "n_types": 3, "depth": 5.0}
#: The published objective on a small network; everything after training is off.
SETTINGS = {
    "network": {
        "patch": 1, "width": 32, "heads": 1, "decoder_blocks": 1, "fusion": "add",
        "latent": 0, "components": 0, "whitening": 0.0,
    },
    "pretrain": {
        "objective": "masked", "epochs": 60, "batch_size": 32, "lr": 3e-3, "mask_ratio": 0.15,
        "protein_mask_ratio": 0.15, "hide_protein": 0.0, "alpha": 0.9,
    },
}  # fmt: skip
MIXERS, ORDERS = ("ttt", "attention"), ("genome", "shuffled")
METRIC = "hidden_gene_r2"


def main() -> None:
    """Print the scores, the differences of a shuffled order from the genome's, and draw both against the strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strengths", default="0,0.4,0.8,1.6", help="standard deviations of the shared factor")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("order-control"), metavar="DIR")
    options = parser.parse_args()
    strengths = [float(text) for text in options.strengths.split(",")]
    run_all(jobs(strengths, range(options.seeds), options.out), options.out / "rows", show=print)
    rows = read_rows(options.out / "rows")
    print_table(table(rows), "Explained variance of hidden genes by strength of co-regulation, mean and 95 % interval")
    print_table(differences(rows), "Shuffled order minus genome order, paired by seed")
    write_json(options.out / "order.json", scores=table(rows).reset_index(), differences=differences(rows))
    draw(rows, options.out / "order_control.png")


def jobs(strengths: list[float], seeds: range, out: Path) -> list[Job]:
    """Return the runs, all of one seed first."""
    made = methods(out)
    return [
        job
        for seed in seeds
        for strength in strengths
        for job in tasks.jobs([simulated(strength, seed)], made, [Task("ablation", 0.2)], [seed])
    ]


def methods(out: Path) -> list[Method]:
    """Return a variant for each mixer and order."""
    base = preset("default").with_settings(SETTINGS)
    return [
        method
        for mixer in MIXERS
        for method in Variants(base.with_settings({"network.mixer": mixer}), out, "cpu").of_setting(
            f"data.order={','.join(ORDERS)}", title=mixer
        )
    ]


def simulated(strength: float, seed: int) -> Cells:
    """Return the cells of a simulation; the same seed gives the same genes and types at every strength."""
    mdata = simulate(**SIMULATION, coregulation=strength, seed=seed)
    return Cells(f"strength {strength:g}", as_citeseq(mdata), "cell_type")


def table(rows: list[Row]) -> pd.DataFrame:
    """Return mean and interval of each method and strength, and the number of seeds."""
    lines = _with_strength(summarise(rows))
    return lines[["strength", "method", "mean", "low", "high", "n"]].round(3).set_index("strength")


def differences(rows: list[Row]) -> pd.DataFrame:
    """Return the differences between the orders of each mixer, by strength."""
    parts = []
    for mixer in MIXERS:
        names = [_name(mixer, order) for order in ORDERS]
        own = [row for row in rows if row["method"] in names]
        parts.append(_with_strength(paired(own, names[0])).assign(mixer=mixer))
    columns = ["mixer", "strength", "difference", "low", "high", "effect", "n"]
    return pd.concat(parts)[columns].round(3).reset_index(drop=True)


def draw(rows: list[Row], path: Path) -> None:
    """Draw the scores, and what a genome order gains over a shuffled one, against the strength; small: each seed."""
    lines = _with_strength(scores(rows))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for mixer, color in zip(MIXERS, ("C0", "C1"), strict=True):
        names = [_name(mixer, order) for order in ORDERS]
        wide = lines.pivot_table(index=["strength", "seed"], columns="method", values="value").reindex(columns=names)
        for name, order, style in zip(names, ORDERS, ("o-", "s--"), strict=True):
            _line(left, wide[name].dropna(), style, color, f"{mixer}, {order}")
        _line(right, (wide[names[0]] - wide[names[1]]).dropna(), "o-", color, mixer)
    left.set(xlabel="strength of co-regulation", ylabel="hidden genes, explained variance")
    right.set(xlabel="strength of co-regulation", ylabel="genome order minus shuffled")
    right.axhline(0, color="grey", linewidth=0.8)
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _line(ax: Axes, values: pd.Series, style: str, color: str, label: str) -> None:
    """Draw values by (strength, seed): their means as a line, and each as a small dot."""
    means = values.groupby("strength").mean()
    ax.plot(means.index, means, style, color=color, label=label)
    ax.plot(values.index.get_level_values("strength"), values, ".", color=color, alpha=0.5, markersize=4)


def _name(mixer: str, order: str) -> str:
    return f"{mixer} (data.order={order})"


def _with_strength(lines: pd.DataFrame) -> pd.DataFrame:
    lines = lines[lines["metric"] == METRIC]
    return lines.assign(strength=lines["dataset"].str.removeprefix("strength ").astype(float)).sort_values("strength")


if __name__ == "__main__":
    main()
