"""Time of a pretraining epoch by phase, with TTT and with alternatives.

python benchmarks/training.py pbmc10k.h5mu --json training.json
python benchmarks/training.py pbmc10k.h5mu --cells 1000

An epoch is that of `scfusionttt pretrain`, including validation; phases are measured in process time. The fractions of
matrix products and of the operator (or attention) are measured for some steps under torch's profiler, whose own cost
lowers them.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import scfusionttt  # noqa: F401  before torch, which reads once how long its idle threads spin

# isort: split
import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from benchmarks.epoch import Epoch
from benchmarks.measure import environment, print_table, some_cells, write_json
from benchmarks.reference import ttt_linear_reference
from scfusionttt.config import PRESETS, Config, preset
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.read import read
from scfusionttt.ttt import ttt_linear

TTT, CHUNKED, REFERENCE = "mixer=ttt", "mixer=ttt, chunked torch", "mixer=ttt, reference loop"
#: Settings that differ from the preset, and another implementation of the operator, if any.
NETWORKS: dict[str, tuple[dict[str, str], Callable | None]] = {
    TTT: ({}, None),
    "mixer=ttt, bf16 products": ({"network.precision": "bf16"}, None),
    CHUNKED: ({}, partial(ttt_linear, backend="chunked")),
    REFERENCE: ({}, ttt_linear_reference),
    "mixer=attention": ({"network.mixer": "attention", "network.fusion": "attention"}, None),
    "mixer=none": ({"network.mixer": "none", "network.fusion": "add"}, None),
}
#: Largest relative difference between the losses of the implementations of TTT after an epoch (rounding).
SAME_LOSS = 1e-3
#: Targets: fraction of products and operator; speed-up over chunked torch.
SHARE, FASTER = 0.6, 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="CITE-seq with raw counts")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--cells", type=int, help="use a random subset of this size")
    parser.add_argument("--epochs", type=int, default=1, help="epochs; results are per epoch")
    parser.add_argument("--threads", type=int, help="threads for torch (default: torch's own)")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    cite = some_cells(as_citeseq(read(given.input)), given.cells)
    rows, notes = measure(cite, preset(given.preset), given.epochs)
    agree = report(rows, notes, cells=cite.rna.n_obs)
    write_json(given.json, cells=cite.rna.n_obs, epochs=rows.reset_index(), losses_agree=agree, notes=notes)
    return 0 if agree else 1


def measure(cite: CiteSeq, config: Config, epochs: int) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per network (seconds per epoch by phase, cores, fractions, loss), and notes on missing rows."""
    epoch = Epoch(cite, config)
    epoch.share(*NETWORKS[TTT], batches=1)  # compiles the kernels
    rows = {}
    for name, (settings, operator) in NETWORKS.items():
        rows[name] = epoch.run(settings, operator, epochs)
        if operator is not ttt_linear_reference:  # autograd splits its operator into many nodes
            rows[name] |= epoch.share(settings, operator)
        print(f"{name}: {rows[name]['wall']:.1f} s per epoch", file=sys.stderr, flush=True)
    notes = []
    if find_spec("scvi") and cite.protein is not None:
        rows["totalVI"] = measure_totalvi(cite, epoch, epochs)
    else:
        notes.append("totalVI was not measured: it needs scvi-tools (pip install 'scfusionttt[bench]') and proteins")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network"), notes


def measure_totalvi(cite: CiteSeq, epoch: Epoch, epochs: int) -> dict[str, float]:
    """Return the seconds per epoch of totalVI with its defaults, on the same cells and features."""
    import scvi

    assert cite.protein is not None
    cells = cite.rna[:, epoch.match.genes].copy()
    cells.obsm["protein"] = pd.DataFrame(cite.protein.X[:, epoch.match.proteins], cells.obs_names).fillna(0)
    scvi.model.TOTALVI.setup_anndata(cells, protein_expression_obsm_key="protein")
    model = scvi.model.TOTALVI(cells)
    wall, process = time.perf_counter(), time.process_time()
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False)
    wall, process = (time.perf_counter() - wall) / epochs, (time.process_time() - process) / epochs
    return {"wall": wall, "cores": process / wall, "process": process}


def report(rows: pd.DataFrame, notes: Sequence[str], *, cells: int) -> bool:
    """Print the rows, and the targets if the implementations of TTT agree; return whether they do."""
    where = environment()
    threads = f"{where['threads']} thread{'s' if where['threads'] > 1 else ''}"
    print(f"\n{cells:,} cells, {where['cpu']}, {threads}, torch {where['versions']['torch']}, {where['date']}")
    print_table(rows, "one epoch: seconds of wall and process time, fractions of the steps", notes)
    losses = rows.loc[[TTT, CHUNKED, REFERENCE], "training loss"]
    if not (losses / losses[REFERENCE] - 1).abs().max() <= SAME_LOSS:
        print(f"\nno speed-up is reported, because the losses of the implementations of TTT differ: {losses.to_dict()}")
        return False
    slower = (rows[["process", "wall"]] / rows.loc[TTT, ["process", "wall"]]).drop(index=TTT)
    print_table(slower, "times slower than TTT")
    share, ratio = float(rows["both"][TTT]), float(slower["process"][CHUNKED])
    targets = {
        "fraction of matrix products and operator": (share, f"≥ {SHARE:g}", share >= SHARE),
        "faster than chunked torch": (ratio, f"≥ {FASTER:g}", ratio >= FASTER),
        "cores kept busy": (rows["cores"][TTT], f"{where['threads']} threads", None),
    }
    print_table(pd.DataFrame.from_dict(targets, orient="index", columns=["measured", "target", "met"]), "targets")
    return True


if __name__ == "__main__":
    sys.exit(main())
