"""TTT-Linear on the CPU: hands tensors to the compiled kernels in place, and shares cells out over torch's threads."""

import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scfusionttt.loops.share import share
from scfusionttt.ttt.cpu import kernels
from scfusionttt.ttt.cpu.memory import SEGMENT, Gradients, Layer, Tokens, Trace, aligned_zeros, make_scratch
from scfusionttt.ttt.cpu.vector import VECTOR_BYTES, padded
from scfusionttt.ttt.definition import State
from scfusionttt.ttt.packed import empty_heads
from scfusionttt.ttt.rope import rotations


def misfit(head: int, mini_batch: int, dtype: torch.dtype) -> str | None:
    """Return why the kernels cannot do this work, or None."""
    return f"the head size {head} is odd" if head % 2 else None


def ttt_linear_cpu(
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    tau: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    directions: tuple[bool, ...],
    rope: bool,
) -> tuple[Tensor, Tensor, State]:
    """Return outputs and inner losses, summed over the directions, and the last one's state; differentiable once."""
    if mask is None:
        mask = torch.ones((), dtype=torch.bool).expand(len(q), q.shape[2])
    inputs = q, k, v, lr, tau, *state, gamma, beta
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, loss, w, b = _TTTLinear.apply(*inputs, mask, causal, directions, rope, keep)
    return out, loss, (w, b)


class _TTTLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, k, v, lr, tau, w0, b0, gamma, beta, mask, causal, directions, rope, keep):
        b, h, t, f = q.shape
        out, loss = _tokens_like(q), lr.new_empty(lr.shape)
        layer = _layer(tau, gamma, beta, causal, rope)
        shared = w0.stride(0) == 0 and b0.stride(0) == 0
        first = _joined(w0[:1], b0[:1]) if shared else _joined(w0, b0)
        final = first.new_empty(b * h, *first.shape[1:])
        traces = [_trace(first, b * h, t if keep else 0, len(tau)) for _ in directions]
        for i, reverse in enumerate(directions):
            tokens = _tokens(q, k, v, lr, mask, out, loss, out, reverse, i > 0)
            arrays = [x.numpy() for x in (first, _flat(out), _flat(loss), final)]
            _share(kernels.forward, b * h, tokens, layer, _as_trace(traces[i]), *arrays)
        ctx.save_for_backward(q, k, v, lr, tau, gamma, beta, mask, *chain(*traces))
        ctx.how = causal, directions, rope
        return out, loss, *_split(final, b, f)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout, dloss, dw, db):
        q, k, v, lr, tau, gamma, beta, mask, *kept = ctx.saved_tensors
        traces = [kept[i : i + 3] for i in range(0, len(kept), 3)]
        causal, directions, rope = ctx.how
        b, h, _, f = q.shape
        dq, dk, dv = empty_heads(q)
        dout, dloss = _heads_last(dout), dloss.contiguous()
        dlr, dfirst = torch.empty_like(dloss), torch.zeros_like(kept[0][:, 0])
        dtau, dnorm = q.new_zeros(b * h, 1, padded(len(tau))), q.new_zeros(*kept[0][:, 1:].shape[:2], 2, padded(f))
        layer = _layer(tau, gamma, beta, causal, rope)
        for i, reverse in enumerate(directions):
            tokens = _tokens(q, k, v, lr, mask, dout, dloss, dq, reverse, i > 0)
            dstate = torch.zeros_like(dfirst)
            if reverse == directions[-1]:  # whose final state was returned
                _put(_split(dstate, b, f), dw, db)
            gradients = Gradients(*(_flat(x).numpy() for x in (dout, dloss, dq, dk, dv, dlr)))
            arrays = [x.numpy() for x in (dstate, dtau, dnorm)]
            _share(kernels.backward, b * h, tokens, layer, _as_trace(traces[i]), gradients, *arrays)
            dfirst += dstate
        dgamma, dbeta = dnorm[..., :f].sum(1).unflatten(0, (b, h)).sum(0).unbind(1)
        dtau = dtau[:, 0, : len(tau)].sum(0)
        return dq, dk, dv, dlr, dtau, *_split(dfirst, b, f), dgamma, dbeta, *[None] * 5


def _trace(first: Tensor, heads: int, length: int, mini_batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty tensors for a `Trace`, of size 0 if there are no tokens to keep."""
    chunks, f = -(-length // mini_batch), first.shape[2]
    segments, rows = (-(-chunks // SEGMENT) + 1, (chunks - 1) * mini_batch + padded(mini_batch)) if length else (0, 0)
    states = first.new_empty(heads, segments, *first.shape[1:])
    return states, first.new_empty(2, heads, rows, f), first.new_empty(2, heads, rows)


def _as_trace(tensors: Sequence[Tensor]) -> Trace:
    return Trace(*(x.numpy() for x in tensors))


def _share(kernel: Callable, cells: int, tokens: Tokens, layer: Layer, *arguments: Any) -> None:
    """Run a kernel over all cells x heads, a part on each of the threads that torch may use."""
    share(partial(_run, kernel, tokens, layer), cells, *arguments)


def _run(kernel: Callable, tokens: Tokens, layer: Layer, *arguments: Any) -> None:
    """Run a kernel in this thread's scratch memory, which is kept: new pages cost more than a short sequence."""
    sizes = layer.mini_batch, layer.channels, layer.tau.dtype
    if getattr(_own, "sizes", None) != sizes:
        _own.sizes, _own.scratch = sizes, make_scratch(*sizes)
    kernel(tokens, layer, _own.scratch, *arguments)


_own = threading.local()


def _tokens(q, k, v, lr, mask, out, loss, dq, reverse, add) -> Tokens:
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    strides = [x.stride()[:3] for x in (q, k, v, lr)] + [(mask.stride(0), 0, mask.stride(1))]
    strides += [out.stride()[:3], loss.stride(), dq.stride()[:3]]
    arrays = [_flat(x).numpy() for x in (q, k, v, lr, mask)]
    streams = not add and all(map(_in_vectors, (out, dq)))
    return Tokens(*arrays, np.array(strides), q.shape[2], q.shape[1], reverse, add, streams)  # type: ignore


def _in_vectors(x: Tensor) -> bool:
    """Return whether each token's head is made of whole, aligned vectors of the kernel."""
    whole = padded(x.shape[-1]) == x.shape[-1]
    places = x.data_ptr(), *(stride * x.itemsize for stride in x.stride()[:-1])
    return whole and not any(place % VECTOR_BYTES for place in places)


def _layer(tau, gamma, beta, causal, rope) -> Layer:
    n, f = len(tau), gamma.shape[1]
    tau, gamma, beta = (_filled_up(x.detach().numpy()) for x in (tau[None], gamma, beta))
    earlier, ones, cos, sin = _tables(n, f, tau.dtype, rope)
    return Layer(tau, gamma, beta, earlier, ones, cos, sin, n, f, causal)


@cache
def _tables(n: int, f: int, dtype: np.dtype, rope: bool) -> tuple[np.ndarray, ...]:
    """Return the tables of `Layer`: ``x * cos + swapped pairs of x * sin`` rotates."""
    turn = rotations(n, f).numpy() if rope else np.ones((n, f // 2), complex)
    cos, sin = turn.real.repeat(2, 1), turn.imag.repeat(2, 1)
    sin[:, ::2] *= -1
    return tuple(_filled_up(x.astype(dtype)) for x in (np.triu(np.ones((n, n))), np.ones((1, f)), cos, sin))


def _filled_up(matrix: np.ndarray) -> np.ndarray:
    rows, columns = matrix.shape
    full = aligned_zeros((padded(rows), padded(columns)), matrix.dtype)
    full[:rows, :columns] = matrix
    return full


def _flat(x: Tensor) -> Tensor:
    """Return x's memory as a flat tensor, from its first element to its last."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))
    return x.detach().as_strided((extent,), (1,))


def _heads_last(x: Tensor) -> Tensor:
    """Return x [b, h, t, f] such that the heads of a token lie side by side."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _tokens_like(x: Tensor) -> Tensor:
    b, h, t, f = x.shape
    return x.new_empty(b, t, h, f).transpose(1, 2)


def _joined(w: Tensor, b: Tensor) -> Tensor:
    """[b, h, f, f] and [b, h, f] -> [b * h, f + 1, f], filled up with zeros to the kernel's sizes."""
    (cells, heads, f), size = b.shape, padded(b.shape[-1])
    joined = w.new_zeros(cells * heads, size + 1, size)
    _put(_split(joined, cells, f), w, b)
    return joined


def _put(parts: tuple[Tensor, Tensor], *given: Tensor) -> None:
    for there, x in zip(parts, given, strict=True):
        there.copy_(x)


def _split(joined: Tensor, cells: int, f: int) -> tuple[Tensor, Tensor]:
    joined = joined.unflatten(0, (cells, -1))
    return joined[:, :, :f, :f], joined[:, :, -1, :f]
