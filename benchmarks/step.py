"""A pretraining step against the arithmetic that it needs, against steps with other mixers, and in half precision.

python benchmarks/step.py
python benchmarks/step.py --presets paper --cells 16 --repeats 3 --json step.json

FLOP are counted from the shapes: matrix products by torch, the TTT operator by formula. Its rate is compared with that
of a large matrix product in the same run. The steps of all rows take turns; each row gives its fastest step, in process
time, on random values. With ``--profile``, a second table has the time of the first preset's TTT step by kind of
operation, from torch's profiler.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import scfusionttt  # noqa: F401  before torch, which reads once how long its idle threads spin

# isort: split
import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.epoch import OPERATORS, PRODUCTS
from benchmarks.measure import least_process_time, print_table, write_json
from scfusionttt.config import PRESETS, Config, Sizes, preset
from scfusionttt.data.loader import CellBatch
from scfusionttt.nn.layers import TTTMixer
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.training.machine import freed_memory_kept
from scfusionttt.training.pretrain import PretrainModule

VARIANTS = {
    "TTT": {},
    "TTT in bfloat16": {"network.precision": "bf16"},
    "attention": {"network.mixer": "attention", "network.fusion": "attention"},
    "none": {"network.mixer": "none", "network.fusion": "add"},
}
#: Kinds of operations by their names in the profiler.
KINDS = {
    "operator": OPERATORS,
    "matrix products": PRODUCTS,
    "norms and dropout": {
        f"{name}{end}" for name in ("_RMSNorm", "_AddDropped") for end in ("", "Backward")
    } | {"aten::native_layer_norm", "aten::native_layer_norm_backward", "aten::native_dropout", "aten::bernoulli_"},
    "GELU": {"aten::gelu", "aten::gelu_backward"},
    "optimiser": {"aten::_fused_adamw_", "Optimizer.step#AdamW.step"},
    "copies and selections": {
        "aten::copy_", "aten::where", "aten::fill_", "aten::index_select", "aten::cat", "aten::sort", "aten::gather",
        "aten::scatter_add_", "aten::embedding_dense_backward",
    },
    "sums and elementwise": {
        f"aten::{name}" for name in ("add", "add_", "sub", "mul", "mul_", "div", "div_", "pow", "sum", "mean", "rsqrt")
    },
}  # fmt: skip
#: Genes of the preset `whole`, and side of the square matrices whose product gives the machine's rate.
WHOLE_GENES, SIDE = 13_733, 1024


class Step:
    """A step of pretraining on random cells, without data loading."""

    def __init__(self, config: Config, n_cells: int, n_proteins: int) -> None:
        n_genes = config.data.n_genes or WHOLE_GENES
        torch.manual_seed(0)
        network = PretrainNetwork(n_genes, n_proteins, config.network, Sizes())
        self.module = PretrainModule(network, config.pretrain, seed=0)
        self.module.cells_at_once = n_cells
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        self.batch = CellBatch(
            rna=torch.randn(n_cells, n_genes), rna_present=torch.ones(n_cells, n_genes, dtype=torch.bool),
            protein=torch.randn(n_cells, n_proteins), protein_present=torch.ones(n_cells, n_proteins, dtype=torch.bool),
            label=torch.full((n_cells,), -1), row=torch.arange(n_cells),
            batch=torch.empty(n_cells, 0, dtype=torch.int64),
        )  # fmt: skip

    def __call__(self) -> None:
        """Make the step; the same tokens are hidden each time."""
        self.optimizer.zero_grad()
        self.module.losses(self.batch, self.module.hide(self.batch, 0), learn=True)
        self.optimizer.step()

    def flop(self) -> float:
        """Return the floating-point operations of the step."""
        operators: list[float] = []
        layers = [layer for layer in self.module.modules() if isinstance(layer, TTTMixer)]
        originals = [layer.operator for layer in layers]
        for layer, original in zip(layers, originals, strict=True):
            layer.operator = _counting(layer, original, operators)
        with FlopCounterMode(display=False) as counter:
            self()
        for layer, original in zip(layers, originals, strict=True):
            layer.operator = original
        return counter.get_total_flops() + sum(operators)


def _counting(layer: TTTMixer, operator: Callable, flop: list[float]) -> Callable:
    """Return the operator, which also notes the FLOP of its forward and backward pass.

    Per token, head and direction, with f units and mini-batches of K tokens: products with an f x f matrix (2 f^2
    each), 3 forward, 6 backward and 1 to restore the state; and products with the mini-batch (2 K f each), 2 and 5.
    """

    def counted(q: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        f, tokens = q.shape[-1], q.shape[:-1].numel() * len(layer.directions)
        flop.append(tokens * (10 * 2 * f**2 + 7 * 2 * layer.mini_batch * f))
        return operator(q, *arguments, **options)

    return counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["default"])
    parser.add_argument("--cells", type=int, default=64, help="cells per step")
    parser.add_argument("--proteins", type=int, default=14)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="also print the time by kind of operation")
    parser.add_argument("--json", type=Path, help="write the table there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    table = measure(options.presets, options.cells, options.proteins, options.repeats)
    print_table(table, f"A pretraining step of {options.cells} cells, {options.threads} threads")
    write_json(options.json, rows=table.reset_index())
    if options.profile:
        kinds = profiled(Step(preset(options.presets[0]), options.cells, options.proteins), options.repeats)
        print_table(kinds, f"The step of {options.presets[0]} by kind of operation")
    return 0


def measure(presets: Sequence[str], n_cells: int, n_proteins: int, repeats: int) -> pd.DataFrame:
    """Return a row per preset and variant: FLOP, seconds, and the rate relative to that of a large product."""
    rows = [(name, variant) for name in presets for variant in VARIANTS]
    steps = {row: Step(preset(row[0]).with_settings(VARIANTS[row[1]]), n_cells, n_proteins) for row in rows}
    flop = {row: step.flop() for row, step in steps.items()}
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    with freed_memory_kept():
        seconds = least_process_time({"product": lambda: a @ b, **steps}, repeats=repeats + 1)
    rate = 2 * SIDE**3 / seconds.pop("product")
    index = pd.Index([f"{name}, {variant}" for name, variant in rows], name="step")
    table = pd.DataFrame(
        {"GFLOP": [flop[row] / 1e9 for row in rows], "ms": [1e3 * seconds[row] for row in rows]}, index
    )
    table["of the product's rate"] = table["GFLOP"] / table["ms"] * 1e12 / rate
    table["time / none"] = [seconds[name, variant] / seconds[name, "none"] for name, variant in rows]
    return table


def profiled(step: Step, repeats: int) -> pd.DataFrame:
    """Return the milliseconds per step of each kind of operation, without those of the operations that it calls."""
    with freed_memory_kept():
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(repeats):
                step()
    kind_of = {operation: kind for kind, names in KINDS.items() for operation in names}
    ms = dict.fromkeys([*KINDS, "others"], 0.0)
    for event in profile.key_averages():
        ms[kind_of.get(event.key, "others")] += event.self_cpu_time_total / 1e3 / repeats
    table = pd.DataFrame({"ms": ms}).rename_axis("kind")
    return table.assign(fraction=table["ms"] / table["ms"].sum())


if __name__ == "__main__":
    sys.exit(main())
