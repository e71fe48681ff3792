"""Several processes that run one model: who they are, and how they add up what each has computed.

Each rank computes a share of every batch; counts, losses and gradients are sums over the ranks, so that the numbers are
those of one process with the whole batch, to rounding. A process by itself adds up nothing.
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
class Ranks:
    """The place of this process among `size`, `local_size` of them on this machine."""

    rank: int = 0
    size: int = 1
    local_size: int = 1


_here = Ranks()


def here() -> Ranks:
    """Return the place of this process."""
    return _here


def join(devices: int, nodes: int, device: torch.device) -> None:
    """Join the processes of a run of `devices` processes on each of `nodes` machines, once.

    Each was started by ``torchrun``, or has the variables that it sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
    MASTER_PORT.

    Raises
    ------
    SettingError
        When another number of processes was started, or a machine has fewer GPUs.
    """
    global _here
    if devices * nodes == 1 or _here.size > 1:
        return
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != devices * nodes:
        raise SettingError(
            f"{devices} devices on {nodes} nodes are {devices * nodes} processes, and {started} was started: start "
            "them with torchrun, or use the command line"
        )
    if device.type == "mps":
        raise SettingError("several processes cannot share the device 'mps'; use --devices 1 or --device cpu")
    if device.type == "cuda":
        if torch.cuda.device_count() < devices:
            raise SettingError(f"this machine has {torch.cuda.device_count()} GPUs; use --devices for as many or fewer")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        with telling_of_a_lost_rank():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    _here = Ranks(distributed.get_rank(), started, devices)


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute by itself, as for a measurement."""
    global _here
    before, _here = _here, Ranks()
    try:
        yield
    finally:
        _here = before


@contextmanager
def telling_of_a_lost_rank() -> Iterator[None]:
    """Turn what torch raises where another process of the run is gone into one line for the user."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "Gloo", "NCCL", "TCPStore", "onnection")):
            raise
        raise LostRankError("another process of this run was lost; a training run goes on with --resume") from error


def trainer_options(device: torch.device) -> dict[str, Any]:
    """Return what Lightning's trainer must know of the ranks: Lightning alone on rank 0 writes."""
    accelerator = {"cuda": "gpu"}.get(device.type, device.type)
    if _here.size == 1:
        return {"accelerator": accelerator, "devices": 1, "plugins": []}
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    return {
        "accelerator": accelerator, "devices": _here.local_size, "num_nodes": _here.size // _here.local_size,
        "strategy": DDPStrategy(), "plugins": [TorchElasticEnvironment()],
    }  # fmt: skip


def wait() -> None:
    """Wait until every rank is here."""
    if _here.size > 1:
        distributed.barrier()


def from_first(value: str) -> str:
    """Return rank 0's text."""
    if _here.size == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def place(n: int) -> tuple[int, int]:
    """Return where the n rows of this rank start among those of all ranks, and how many all are."""
    counts = _counts(n)
    return sum(counts[: _here.rank]), sum(counts)


def least(value: int) -> int:
    """Return the least that a rank gives."""
    return min(_counts(value))


def add_up(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum over the ranks of each scalar."""
    if _here.size == 1 or not values:
        return dict(values)
    device = next(iter(values.values())).device
    summed = torch.stack([value.detach().to(device, torch.float64) for value in values.values()])
    distributed.all_reduce(summed)
    return {name: total.to(value) for (name, value), total in zip(values.items(), summed, strict=True)}


def add_up_gradients(module: nn.Module) -> None:
    """Make each gradient the sum over the ranks, in one message."""
    learning = [p for p in module.parameters() if p.grad is not None]
    if _here.size == 1 or not learning:
        return
    flat = torch.cat([p.grad.reshape(-1) for p in learning])  # type: ignore[union-attr]
    distributed.all_reduce(flat)
    for parameter, summed in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
        parameter.grad = summed.view_as(parameter)


def join_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in the order of the ranks."""
    if _here.size == 1:
        return rows
    counts = _counts(len(rows))
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])  # messages of one size
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _counts(n: int) -> list[int]:
    if _here.size == 1:
        return [n]
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(_here.size)]
    distributed.all_gather(counts, torch.tensor([n]))
    return [int(count) for count in counts]


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
