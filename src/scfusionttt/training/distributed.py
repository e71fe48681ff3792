"""Data-parallel training in several processes: the rank of this one, and sums over all.

Each process computes a share of every batch; counts, losses and gradients are summed over the processes, so that the
numbers equal those of one process with the whole batch, up to rounding. With one process, all functions are no-ops.
"""

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from scfusionttt.errors import LostRankError, SettingError


@dataclass(frozen=True)
class Process:
    """The rank of this process among `size` processes, `local_size` of them on each machine."""

    rank: int = 0
    size: int = 1
    local_size: int = 1


_current = Process()


def current() -> Process:
    """Return the rank of this process and the number of processes."""
    return _current


def join(devices: int, nodes: int, device: torch.device) -> None:
    """Join the processes of a run of `devices` processes on each of `nodes` machines, once.

    ``torchrun`` starts them, or another launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Raises
    ------
    SettingError
        A different number of processes was started, or the device cannot be shared.
    """
    global _current
    if devices * nodes == 1 or _current.size > 1:
        return
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != devices * nodes:
        raise SettingError(
            f"expected {devices * nodes} processes (devices={devices} x nodes={nodes}), found {started}; start them "
            "with torchrun, or use the command line"
        )
    if device.type == "mps":
        raise SettingError("several processes cannot share the device 'mps'; use devices=1 or device='cpu'")
    if device.type == "cuda" and device.index is not None:
        raise SettingError(f"each process uses a GPU of its own; give device='cuda' instead of {str(device)!r}")
    if device.type == "cuda":
        if torch.cuda.device_count() < devices:
            raise SettingError(f"devices={devices}, but this machine has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        with lost_process_reported():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    _current = Process(distributed.get_rank(), started, devices)


@contextmanager
def single_process() -> Iterator[None]:
    """Compute in this process alone, e.g. for a measurement."""
    global _current
    before, _current = _current, Process()
    try:
        yield
    finally:
        _current = before


@contextmanager
def lost_process_reported() -> Iterator[None]:
    """Raise LostRankError instead of the errors that torch raises when another process has died."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "Gloo", "NCCL", "TCPStore", "onnection", "Broken pipe")):
            raise
        raise LostRankError("another process of this run was lost; continue a training run with resume=True") from error


def trainer_options(device: torch.device) -> dict[str, Any]:
    """Return the options of Lightning's trainer for this device and these processes; only rank 0 writes files."""
    accelerator = {"cuda": "gpu"}.get(device.type, device.type)
    if _current.size == 1:
        is_numbered = device.type == "cuda" and device.index is not None
        return {"accelerator": accelerator, "devices": [device.index] if is_numbered else 1, "plugins": []}
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    return {
        "accelerator": accelerator, "devices": _current.local_size, "num_nodes": _current.size // _current.local_size,
        "strategy": DDPStrategy(), "plugins": [TorchElasticEnvironment()],
    }  # fmt: skip


def barrier() -> None:
    """Wait until every process has reached this line."""
    if _current.size > 1:
        distributed.barrier()


def broadcast(value: str) -> str:
    """Return the text of rank 0."""
    if _current.size == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def offset(n: int) -> tuple[int, int]:
    """Return the position of the first of this process's n rows among the rows of all processes, and their number."""
    counts = _counts(n)
    return sum(counts[: _current.rank]), sum(counts)


def minimum(value: int) -> int:
    """Return the minimum over the processes."""
    return min(_counts(value))


def sum_scalars(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum of each scalar over the processes."""
    if _current.size == 1 or not values:
        return dict(values)
    device = next(iter(values.values())).device
    summed = torch.stack([value.detach().to(device, torch.float64) for value in values.values()])
    distributed.all_reduce(summed)
    return {name: total.to(value) for (name, value), total in zip(values.items(), summed, strict=True)}


def sum_gradients(module: nn.Module) -> None:
    """Replace each gradient by its sum over the processes, in one message."""
    learning = [p for p in module.parameters() if p.grad is not None]
    if _current.size == 1 or not learning:
        return
    flat = torch.cat([p.grad.reshape(-1) for p in learning])  # type: ignore[union-attr]
    distributed.all_reduce(flat)
    for parameter, summed in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
        parameter.grad = summed.view_as(parameter)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks."""
    if _current.size == 1:
        return rows
    counts = _counts(len(rows))
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])  # messages of one size
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _counts(n: int) -> list[int]:
    if _current.size == 1:
        return [n]
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(_current.size)]
    distributed.all_gather(counts, torch.tensor([n]))
    return [int(count) for count in counts]


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
