"""The backends of the operator by name: load one and run it."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from scfusionttt.ttt.chunked.linear import ttt_linear_chunked
from scfusionttt.ttt.chunked.mlp import ttt_mlp_chunked
from scfusionttt.ttt.definition import State, linear, mlp, ttt_definition

BACKENDS = ("definition", "chunked", "cpu", "gpu")


def run_backend(name: str, inner: str, state: State, *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor, State]:
    """Return output, inner loss and final state as a backend computes them, whatever autocast is in force.

    Parameters
    ----------
    name
        One of `BACKENDS`.
    inner : {"linear", "mlp"}
    state
        Initial state of each cell.
    tensors
        q, k, v, lr, tau, gamma, beta in the state's precision.
    options
        mask, causal, directions and rope.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        return _operator(name, inner)(state, *tensors, **options)


def _operator(name: str, inner: str) -> Callable:
    if name == "gpu":
        return import_module("scfusionttt.ttt.gpu.layer").ttt_linear_gpu
    if name == "cpu":
        return import_module("scfusionttt.ttt.cpu.layer").ttt_linear_cpu
    if name == "definition":
        return partial(_forwards, partial(ttt_definition, {"linear": linear, "mlp": mlp}[inner]))
    return partial(_forwards, {"linear": ttt_linear_chunked, "mlp": ttt_mlp_chunked}[inner])


def _forwards(
    run: Callable,
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    *shared: Tensor,
    mask: Tensor | None,
    causal: bool,
    directions: tuple[bool, ...],
    rope: bool,
) -> tuple[Tensor, Tensor, State]:
    """Run a backend without masks or directions: zero the absent tokens, flip the sequence and flip back."""
    if mask is not None:
        q, k, v, lr = (_blank(x, mask) for x in (q, k, v, lr))
    results = []
    for reverse in directions:
        tokens = [x.flip(2) for x in (q, k, v, lr)] if reverse else [q, k, v, lr]
        out, loss, final = run(state, *tokens, *shared, causal=causal, rope=rope)
        results.append((out.flip(2), loss.flip(2)) if reverse else (out, loss))
    out, loss = (x[0] if len(x) == 1 else x[0] + x[1] for x in zip(*results))
    if mask is not None:
        out, loss = _blank(out, mask), _blank(loss, mask)
    return out, loss, final


def _blank(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with zeros at absent tokens: x [b, h, t] or [b, h, t, f], mask [b, t]."""
    absent = ~mask[:, None]
    return x.masked_fill(absent[..., None] if x.ndim == 4 else absent, 0)
