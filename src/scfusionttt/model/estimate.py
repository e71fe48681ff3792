"""Estimate the memory, disk space and time of a run: sizes from a sample of the cells, time from a few steps."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from scfusionttt import inference
from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import sample_size
from scfusionttt.data.store.sources import Source
from scfusionttt.data.store.stored import BLOCK, WINDOW, StoredCiteSeq
from scfusionttt.data.store.write import STORED_BYTES
from scfusionttt.data.validate import drop_empty
from scfusionttt.model.dataset import learn_features, make_dataset
from scfusionttt.model.initial_networks import pretrain_network
from scfusionttt.model.inputs import check_cells
from scfusionttt.model.stages import has_fits
from scfusionttt.training import machine, memory
from scfusionttt.training.pretrain import PretrainModule

#: Blocks of cells that are looked at, and training steps that are timed, after one that warms up.
BLOCKS, STEPS = 6, 3
#: Bytes of a stored value in memory: a float32 and its column.
VALUE = 8
#: Bytes per cell, and per gene value, of what is fitted after training; measured with 2,000 to 4,000 genes.
FIT_CELL, FIT_VALUE = 96_000, 8
#: Windows of a store in memory: in use, read ahead, and what reading takes.
WINDOWS = 4


@dataclass(frozen=True)
class Plan:
    """Estimates, in bytes and seconds.

    Attributes
    ----------
    cells, genes, proteins
        Of the input; `genes_used` of them become features.
    memory, memory_streamed
        Of pretraining with all cells in memory, and from a store.
    disk_store, disk_model
        Of a store of the input, and of a model with the states that are kept while it is trained.
    epochs, seconds_per_epoch, seconds_embed
        Of pretraining, and of embedding every cell.
    """

    cells: int
    genes: int
    genes_used: int
    proteins: int
    memory: int
    memory_streamed: int
    disk_store: int
    disk_model: int
    epochs: int
    seconds_per_epoch: float
    seconds_embed: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the estimates as lines of text."""
        return [
            f"{self.cells} cells, {self.genes} genes ({self.genes_used} used), {self.proteins} proteins",
            f"memory: about {_size(self.memory)} with all cells in memory, {_size(self.memory_streamed)} from a store",
            f"disk: about {_size(self.disk_store)} for a store, {_size(self.disk_model)} for a model and its training",
            f"time: about {_time(self.seconds_per_epoch)} an epoch, {_time(self.epochs * self.seconds_per_epoch)} "
            f"for {self.epochs} epochs of pretraining, {_time(self.seconds_embed)} to embed every cell",
        ]


def estimate(
    source: Source | StoredCiteSeq, config: Config, *, device: str = "auto", species: str | None = None
) -> Plan:
    """Estimate what pretraining on an input takes.

    Raises
    ------
    UserError
        When the input cannot be used.
    """
    n_cells, some = _some_cells(source)
    some = some.with_rna()
    where = machine.choose_device(device)
    features, preprocessing = learn_features(check_cells(some, training=True), config, species)
    network = pretrain_network(features, config)
    cells = make_dataset(some, features, preprocessing)
    module = PretrainModule(network, config.pretrain, seed=config.seed)
    held = machine.in_use(where)
    step = memory.measure(module, cells, where)
    batch = min(config.pretrain.batch_size, len(cells))
    module.cells_at_once = min(batch, machine.cells_at_once(network, where))
    in_step, in_forward = _seconds(module, cells, where, batch)
    values = some.rna.X.nnz / some.rna.n_obs
    proteins = 0 if some.protein is None else some.protein.n_vars
    of_cell = VALUE * (values + cells.rna.nnz / len(cells)) + 2 * 4 * proteins
    base = held + step.of(module.cells_at_once)
    if has_fits(network):  # freed memory of the steps is not always given back
        base += min(n_cells, sample_size(len(features.genes))) * (FIT_CELL + FIT_VALUE * len(features.genes))
    learn = max(1, round(n_cells * (1 - config.pretrain.validation_fraction)))
    weights = 4 * sum(p.numel() for p in network.parameters())
    return Plan(
        cells=n_cells, genes=some.rna.n_vars, genes_used=len(features.genes), proteins=proteins,
        memory=round(base + n_cells * of_cell),
        memory_streamed=round(base + WINDOWS * min(n_cells, WINDOW) * of_cell),
        disk_store=round(n_cells * STORED_BYTES * (values + proteins)),
        disk_model=7 * weights,  # the model, and two states of weights and two moments each
        epochs=config.pretrain.n_epochs(learn),
        seconds_per_epoch=learn / batch * in_step + (n_cells - learn) * in_forward,
        seconds_embed=n_cells * in_forward,
    )  # fmt: skip


def _some_cells(source: Source | StoredCiteSeq) -> tuple[int, CiteSeq]:
    """Return the number of cells, and some of them in memory."""
    if isinstance(source, StoredCiteSeq):
        return len(source.places), source.read(np.argsort(source.places)[: BLOCKS * BLOCK])
    return source.n_cells, drop_empty(source.read(slice(0, min(source.n_cells, BLOCKS * BLOCK))))[0]


def _seconds(module: PretrainModule, cells: CellDataset, device: torch.device, batch: int) -> tuple[float, float]:
    """Return the seconds of a training step, and of embedding a cell."""

    def step() -> None:
        some = cells.__getitems__(list(range(batch))).to(device)
        module.losses(some, module.hide(some, step=0), learn=True)
        module.zero_grad()

    part = cells.subset(cells.rows[:batch])
    module.to(device).train()
    in_step = _least(step)
    return in_step, _least(lambda: inference.embed(module.network, part, device)) / batch


def _least(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
