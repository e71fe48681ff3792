"""Plan the memory of training: measure a step on one cell and on two, and choose how many cells pass at a time."""

import logging
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scfusionttt.data.loader import CellDataset
from scfusionttt.errors import SettingError
from scfusionttt.training import distributed, machine
from scfusionttt.training.step import StageModule

log = logging.getLogger("scfusionttt")

#: Fraction of the free memory that training may take by default.
SHARE = 0.8
#: Growth of the process per byte of tensors, 1.1 to 1.8: freed blocks do not always fit the next tensor.
OVERHEAD = 1.6


class StepMemory(NamedTuple):
    """Bytes of a training step."""

    fixed: int
    per_cell: int

    def of(self, cells: int) -> int:
        """Return the bytes of a step with this many cells at a time."""
        return round(OVERHEAD * (self.fixed + cells * self.per_cell))

    def fitting(self, available: int) -> int:
        """Return how many cells at a time fit into the available bytes; below 1 if none."""
        return int((available / OVERHEAD - self.fixed) // self.per_cell)


def measure(module: StageModule, cells: CellDataset, device: torch.device) -> StepMemory:
    """Measure a training step: the tensors alive at its peak, with gradients and the state of the optimiser.

    Runs the step on one cell and on two, whose difference is the part of a cell, and leaves no gradients.
    """
    learning = [p for p in module.to(device).train().parameters() if p.requires_grad]
    # Gradients are dropped at once and counted below, so that the peak is that of the cells, however few.
    hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in learning]
    cut, module.cells_at_once = module.cells_at_once, 2
    try:
        with torch.random.fork_rng(), distributed.single_process():
            one, two = (_peak(module, cells, device, n) for n in (1, 2))
    finally:
        module.cells_at_once = cut
        for hook in hooks:
            hook.remove()
    weights = sum(p.numel() * p.element_size() for p in learning)
    return StepMemory(fixed=max(0, 2 * one - two) + 3 * weights, per_cell=max(1, two - one))


def plan(module: StageModule, cells: CellDataset, device: torch.device, *, limit: int | None) -> None:
    """Set how many cells pass through the network at a time, and log the memory that this takes.

    Parameters
    ----------
    limit
        Most bytes that the process may use; None: what it uses already and 80 % of the free memory.

    Raises
    ------
    SettingError
        Not even one cell fits.
    """
    step, base = measure(module, cells, device), machine.in_use(device)
    if limit is None and (free := machine.free(device)) is not None:
        limit = base + round(SHARE * free / (distributed.current().local_size if device.type == "cpu" else 1))
    batch = -(-min(module.stage.batch_size, len(cells)) // distributed.current().size)
    most = min(batch, machine.cells_at_once(module.network, device))
    if limit is not None:
        fitting = min(most, step.fitting(limit - base))
        most = distributed.minimum(fitting)  # the same for all processes; one without enough memory stops them all
        if fitting > most == 0:
            raise SettingError(
                "another process of this run has not enough memory for one cell at a time; see its message"
            )
        if most < 1:
            raise SettingError(
                f"training needs about {_gib(base + step.of(1))} with one cell at a time, but may use {_gib(limit)}; "
                "increase memory, or pretrain with network.checkpoint_blocks=true, fewer genes or a larger patch"
            )
    module.cells_at_once = -(-batch // -(-batch // most))  # parts of one size
    needed, allowed = _gib(base + step.of(module.cells_at_once)), "" if limit is None else f" of {_gib(limit)}"
    log.info("memory: about %s%s; batches of %d cells, %d at a time", needed, allowed, batch, module.cells_at_once)


def _peak(module: StageModule, cells: CellDataset, device: torch.device, n: int) -> int:
    """Return the peak of live bytes in a step on n cells."""
    batch = cells.__getitems__([0] * n).to(device)
    with _AliveBytes() as alive:
        module.losses(batch, module.hide(batch, step=0), learn=True)
    return alive.peak


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


class _AliveBytes(TorchDispatchMode):
    """Counts the bytes of tensors created within it, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
