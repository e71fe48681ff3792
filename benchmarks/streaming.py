"""Training and embedding from a store: resident memory for ten times as many cells, and throughput.

``python -m benchmarks.streaming --cells 30000 300000`` writes simulated stores of 20,000 genes and 100 proteins, 5 % of
the RNA entries nonzero, and runs each measurement in a fresh process.
"""

import argparse
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from benchmarks.measure import peak_memory, print_table, resident, run_module, write_json
from scfusionttt.config import Config, Sizes, preset
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.loader import CellDataset, cell_dataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.store.sources import Source
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.store.write import write_store
from scfusionttt.genome.tables import load_genes
from scfusionttt.inference import embed
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.training.pretrain import PretrainModule
from scfusionttt.training.run import Run
from scfusionttt.training.trainer import fit

GENES, PROTEINS, DENSITY, TYPES = 20_000, 100, 0.05, 8
LIMIT = 3 * 2**30  # most resident memory of pretraining and embedding, in bytes
SHARE = 0.8  # least throughput relative to the same cells in memory


class Simulated:
    """Cells of several types, simulated when they are read, so that any number of them takes no memory."""

    def __init__(self, n_genes: int, n_proteins: int, density: float) -> None:
        rng = np.random.default_rng(0)
        names = load_genes("GRCh38")["symbol"].dropna().drop_duplicates()
        self.genes = pd.DataFrame(index=pd.Index(names.iloc[:n_genes].to_numpy(), dtype=object))
        self.proteins = pd.DataFrame(index=pd.Index([f"antigen-{i}" for i in range(n_proteins)], dtype=object))
        rate = rng.gamma(0.5, 1.0, (TYPES, n_genes))
        self.shown = np.minimum(rate * (density / rate.mean()), 0.9).astype(np.float32)
        self.shown *= density / self.shown.mean()
        self.level = rng.gamma(2.0, 20.0, (TYPES, n_proteins))

    def read(self, rows: slice) -> CiteSeq:
        """Return the cells of a block; the same block always has the same cells."""
        rng, n = np.random.default_rng(rows.start), rows.stop - rows.start
        kind = rng.integers(TYPES, size=n)
        counts = sparse.csr_matrix(
            rng.random((n, len(self.genes)), dtype=np.float32) < self.shown[kind], dtype=np.float32
        )
        counts.data = rng.geometric(0.6, counts.nnz).astype(np.float32)
        obs = pd.DataFrame({"type": kind.astype(str)}, index=[f"cell-{i:08d}" for i in range(rows.start, rows.stop)])
        bare = pd.DataFrame(index=obs.index)
        protein = rng.poisson(self.level[kind]).astype(np.float32)
        return CiteSeq(AnnData(counts, bare, self.genes), AnnData(protein, bare, self.proteins), obs)


def write(path: Path, n_cells: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Write a store, unless it exists; return seconds of process time and bytes per value."""
    made = Simulated(arguments.genes, arguments.proteins, DENSITY)
    start = time.process_time()
    write_store([Source(path.with_suffix(""), n_cells, made.read)], path)
    size = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return {"cells": n_cells, "GB on disk": size / 1e9, "cells/s written": n_cells / (time.process_time() - start)}


def config(arguments: argparse.Namespace) -> Config:
    """Return the preset with one epoch, so that every cell is read once."""
    return preset(arguments.preset).with_settings({"pretrain.epochs": 1})


def measure(task: str, path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Pretrain or embed in this process; return peak resident GB and cells per second of process time."""
    torch.set_num_threads(1)
    stored = open_store(path)
    n_cells, model_path = stored.rna.n_obs, path.with_suffix(".model")
    model = FusionTTT(progress=False) if task == "pretrain" else FusionTTT.load(model_path, progress=False)
    start = time.process_time()

    def work() -> None:
        if task == "pretrain":
            model.config = config(arguments)
            model.pretrain(stored).save(model_path, overwrite=True)
        else:
            model.embed(stored)

    grown = peak_memory(work)
    return {
        "cells": n_cells, "GB": resident("VmHWM") / 1e9, "GB grown": (grown or 0) / 1e3,
        "cells/s": n_cells / (time.process_time() - start),
    }  # fmt: skip


def compare(path: Path, arguments: argparse.Namespace) -> pd.DataFrame:
    """Return cells per second of process time, for the same cells from the store and from memory, in turns."""
    torch.set_num_threads(1)
    stored = open_store(path)
    part = np.sort(np.argsort(stored.places)[: arguments.part])
    whole = stored.read(part)
    features, _ = choose_features(whole, config(arguments).data)
    match = match_features(whole, features)
    values = Preprocessing.fit(whole, match, config(arguments).data)
    datasets = {
        "store": cell_dataset(stored, match, values).subset(part), "memory": CellDataset(whole, match, values),
    }  # fmt: skip
    least: dict[tuple[str, str], float] = {}
    for _ in range(arguments.repeats):
        for name, cells in datasets.items():
            for task in ("pretrain", "embed"):
                seconds = _seconds(task, cells, features, arguments)
                least[task, name] = min(seconds, least.get((task, name), np.inf))
    rows = {
        task: {name: len(part) / least[task, name] for name in datasets}
        | {"share": least[task, "memory"] / least[task, "store"]}
        for task in ("pretrain", "embed")
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cells/s")


def _seconds(task: str, cells: CellDataset, features: Any, arguments: argparse.Namespace) -> float:
    settings = config(arguments)
    torch.manual_seed(0)
    network = PretrainNetwork(len(features.genes), len(features.proteins), settings.network, Sizes())
    start = time.process_time()
    if task == "embed":
        embed(network, cells, torch.device("cpu"))
    else:
        run = Run(device=torch.device("cpu"), seed=0, progress=False)
        fit(PretrainModule(network, settings.pretrain, seed=0), cells, None, settings.pretrain, run, name="pretrain")
    return time.process_time() - start


def main() -> int:
    """Run everything; return exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[30_000, 300_000])
    parser.add_argument("--genes", type=int, default=GENES)
    parser.add_argument("--proteins", type=int, default=PROTEINS)
    parser.add_argument("--part", type=int, default=30_000, help="cells for the comparison with memory")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder for the stores (default: temporary)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--task", choices=["pretrain", "embed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable()
    if arguments.task:
        print(json.dumps(measure(arguments.task, arguments.folder, arguments)))
        return 0
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="streaming-"))
    try:
        return _report(folder, arguments)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def _report(folder: Path, arguments: argparse.Namespace) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {n: folder / f"cells-{n}-{arguments.genes}.zarr" for n in sorted(arguments.cells)}
    written = [write(path, n, arguments) for n, path in paths.items() if not path.exists()]
    if written:
        print_table(pd.DataFrame(written).set_index("cells"), "Writing")
    options = ["--preset", arguments.preset]
    rows = [
        {"task": task, **run_module("benchmarks.streaming", "--task", task, "--folder", path, *options)}
        for path in paths.values() for task in ("pretrain", "embed")
    ]  # fmt: skip
    resident = pd.DataFrame(rows).set_index("task")
    print_table(resident, "From a store, one epoch: most resident memory, and cells per second of process time")
    speed = compare(next(iter(paths.values())), arguments)
    print_table(speed, "The same cells from the store and from memory")
    write_json(arguments.json, resident=resident.reset_index(), speed=speed.reset_index())
    in_limit = (resident["GB"] * 1e9 < LIMIT).all()
    return int(not (in_limit and (speed["share"] >= SHARE).all()))


if __name__ == "__main__":
    raise SystemExit(main())
