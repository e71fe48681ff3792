"""TTT-Linear on a GPU: hands tensors to the Triton kernels in place, one program per cell, head and direction."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from scfusionttt.ttt.definition import State
from scfusionttt.ttt.gpu import kernels
from scfusionttt.ttt.rope import rotations

LARGEST_HEAD, LARGEST_MINI_BATCH = 128, 64
WIDE_HEAD, WIDE_HEADS_MINI_BATCH = 64, 16  # tiles of more tokens of a wider head exceed a GPU's shared memory
SMALLEST_TILE = 16  # of a matrix product in Triton

#: Tokens x units up to which a product is made of float32 multiplications. Beyond, they run out of registers, and each
#: becomes three on tensor cores, of float32 numbers split into two parts.
LARGEST_EXACT_TILE = 64 * 32

#: What `torch.set_float32_matmul_precision` means here.
PRECISIONS = {"highest": "ieee", "high": "tf32", "medium": "bf16"}


def misfit(head: int, mini_batch: int, dtype: torch.dtype) -> str | None:
    """Return why the kernels cannot do this work, or None."""
    if head > LARGEST_HEAD:
        return f"the head size {head} is above {LARGEST_HEAD}"
    if mini_batch > LARGEST_MINI_BATCH:
        return f"the mini-batch {mini_batch} is above {LARGEST_MINI_BATCH}"
    if head > WIDE_HEAD and mini_batch > WIDE_HEADS_MINI_BATCH:
        return f"the mini-batch {mini_batch} is above {WIDE_HEADS_MINI_BATCH} with a head size above {WIDE_HEAD}"
    return None if dtype == torch.float32 else f"its kernel is for float32, not {str(dtype).removeprefix('torch.')}"


class _How(NamedTuple):
    causal: bool
    rope: bool
    directions: int  # 1 or 2
    first: int  # 0 forward, 1 reverse


def ttt_linear_gpu(
    state: State, *tensors: Tensor, mask: Tensor | None, causal: bool, directions: tuple[bool, ...], rope: bool
) -> tuple[Tensor, Tensor, State]:
    """Return outputs and inner losses, summed over the directions, and the final state; differentiable once.

    As `ttt_definition`; both directions are one launch. Matrix products have the precision that
    ``torch.get_float32_matmul_precision()`` names, float32 unless changed.
    """
    how = _How(causal, rope, len(directions), int(directions[0]))
    q, k, v, lr, tau, gamma, beta = tensors
    inputs = q, k, v, lr, tau, *state, gamma, beta
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    precision = PRECISIONS[torch.get_float32_matmul_precision()]
    with torch.cuda.device_of(q):  # Triton launches on the current one
        out, loss, w, b = _TTTLinear.apply(*inputs, mask, how, precision, keep)  # each with an axis of directions first
    if how.directions == 1:
        return out[0], loss[0], (w[0], b[0])
    return out.sum(0), loss.sum(0), (w[1], b[1])


class _TTTLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, k, v, lr, tau, w0, b0, gamma, beta, mask, how, precision, keep):
        q, k, v = (_rows_in_place(x) for x in (q, k, v))
        tau, gamma, beta = (x.contiguous() for x in (tau, gamma, beta))
        out, loss = _tokens_like(q, how.directions), lr.new_empty(how.directions, *lr.shape)
        g = _tokens_like(q, how.directions if keep else 0)
        w, b = (x.new_empty(how.directions, *x.shape) for x in (w0, b0))
        shared = w0.stride(0) == 0 and b0.stride(0) == 0
        w0, b0 = (x[:1].contiguous() if shared else x.contiguous() for x in (w0, b0))
        cells = [0, 0] if shared else [w0.stride(0), b0.stride(0)]
        kernels.forward[_grid(q, how)](
            *_arrays(q, k, v, lr, mask, tau, gamma, beta, how.rope),
            *(w0, b0, out, loss, g, w, b),
            *_strides(q, k, v, lr, mask),
            *cells,
            KEEP=keep,
            **_sizes(q, tau, mask, how, precision),
        )
        ctx.save_for_backward(q, k, v, lr, tau, gamma, beta, mask, g, w, b)
        ctx.how = how, precision
        return out, loss, w, b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout, dloss, dw, db):
        q, k, v, lr, tau, gamma, beta, mask, g, w, b = ctx.saved_tensors
        how, precision = ctx.how
        dout, dw, db = _rows_in_place(dout), dw.contiguous(), db.contiguous()
        dq, dk, dv = (_tokens_like(q, how.directions) for _ in range(3))
        dlr, dw0, db0 = lr.new_empty(how.directions, *lr.shape), torch.empty_like(w), torch.empty_like(b)
        dtau, dgamma, dbeta = b.new_empty(*b.shape[:-1], len(tau)), torch.empty_like(b), torch.empty_like(b)
        kernels.backward[_grid(q, how)](
            *_arrays(q, k, v, lr, mask, tau, gamma, beta, how.rope),
            *(g, w, b, dout, dloss, dw, db),
            *(dq, dk, dv, dlr, dtau, dw0, db0, dgamma, dbeta),
            *_strides(q, k, v, lr, mask),
            *(*dout.stride()[:4], *dloss.stride()),
            **_sizes(q, tau, mask, how, precision),
        )
        by_direction = (x[0] if len(x) == 1 else x.sum(0) for x in (dq, dk, dv, dlr))
        dgamma, dbeta, dtau = dgamma.sum((0, 1)), dbeta.sum((0, 1)), dtau.sum((0, 1, 2))
        return *by_direction, dtau, dw0.sum(0), db0.sum(0), dgamma, dbeta, *[None] * 4


def _grid(q: Tensor, how: _How) -> tuple[int, int]:
    return q.shape[0] * q.shape[1], how.directions


def _sizes(q: Tensor, tau: Tensor, mask: Tensor | None, how: _How, precision: str) -> dict[str, Any]:
    _, h, t, f = q.shape
    rows, columns = _tile(len(tau)), _tile(f)
    if rows * columns > LARGEST_EXACT_TILE and precision != "bf16":
        precision = "tf32x3"
    if columns > WIDE_HEAD and precision == "tf32":
        precision = "ieee"  # which needs less shared memory
    return {
        "tokens": t, "first": how.first, "HEADS": h, "n": len(tau), "f": f, "N": rows, "F": columns,
        "CAUSAL": how.causal, "ROPE": how.rope, "MASKED": mask is not None, "PRECISION": precision,
        "num_warps": _warps(rows, columns), "num_stages": 1,
    }  # fmt: skip


def _warps(rows: int, columns: int) -> int:
    """Return the number of warps with which a program spills least."""
    if rows * columns == SMALLEST_TILE**2:
        return 4
    return 8 if columns <= WIDE_HEAD else 16


def _tile(size: int) -> int:
    """Return how many rows or columns a tile has for this many tokens or units."""
    return max(SMALLEST_TILE, triton.next_power_of_2(size))


def _arrays(q, k, v, lr, mask, tau, gamma, beta, rope) -> tuple[Tensor, ...]:
    cos, sin = _rotations(len(tau), q.shape[-1], q.device) if rope else (tau, tau)  # unread
    return q, k, v, lr, lr if mask is None else mask.view(torch.uint8), tau, gamma, beta, cos, sin


def _strides(q, k, v, lr, mask) -> tuple[int, ...]:
    strides = [x.stride()[:3] for x in (q, k, v, lr)] + [(0, 0) if mask is None else mask.stride()]
    return tuple(stride for each in strides for stride in each)


@cache
def _rotations(n: int, f: int, device: torch.device) -> tuple[Tensor, Tensor]:
    turn = rotations(n, f).to(device, torch.complex64)
    return turn.real.contiguous(), turn.imag.contiguous()


def _rows_in_place(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _tokens_like(x: Tensor, directions: int) -> Tensor:
    """Return an empty tensor like x for each direction, [directions, b, h, t, f], the heads of a token side by side."""
    b, h, t, f = x.shape
    return x.new_empty(directions, b, t, h, f).transpose(2, 3)
