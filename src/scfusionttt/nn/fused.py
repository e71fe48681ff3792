"""RMSNorm, and dropout with its residual sum, in one pass over memory each on the CPU.

Each has its plain definition beside it, which other devices use. By torch's own operations they took a fifth of a
training step, most of it for the random numbers of dropout.
"""

import logging
import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scfusionttt.loops.share import share

_log = logging.getLogger(__name__)
#: Parts whose shares of a gradient are added up: a fixed number, so that the sum does not depend on the threads.
_PARTS = 16


class RMSNorm(nn.RMSNorm):
    """RMSNorm (Zhang & Sennrich, arXiv 1910.07467): ``x / sqrt(mean(x^2) + eps) * weight`` over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., d]."""
        return _RMSNorm.apply(x, self.weight, self.eps) if _fits(x, self.weight) else super().forward(x)


def add_dropped(x: Tensor, y: Tensor, p: float) -> Tensor:
    """Return ``x + dropout(y, p)``; on the CPU, which elements are dropped follows from two numbers drawn by torch."""
    if not p:
        return x + y
    if x.device.type != "cpu" or p >= 1:
        return x + nn.functional.dropout(y, p)
    seeds = torch.randint(2**32, (2,)).tolist()
    y = y.to(torch.promote_types(x.dtype, y.dtype))  # under autocast y is bfloat16; the loops read what x is
    if _fits(x, y):
        return _AddDropped.apply(x, y, p, seeds)
    return x + y * kept_elements(y.numel(), p, seeds).view(y.shape) / (1 - p)


def kept_elements(n: int, p: float, seeds: list[int]) -> Tensor:
    """Return which of n elements dropout keeps, bool [n]: those whose position hashes to a number of at least p.

    The hash is "lowbias32" of C. Wellons (https://nullprogram.com/blog/2018/07/31/), into which the seeds are mixed.
    """
    x = torch.arange(n) ^ seeds[0]
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15) ^ seeds[1]) * 0x846CA68B) & 0xFFFFFFFF
    return (x ^ (x >> 16)) >= _threshold(p)


def _threshold(p: float) -> int:
    return math.ceil(p * 2**32)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y, r = torch.empty_like(x), x.new_empty(x.shape[:-1].numel())
        arrays = _rows(x), _array(weight), _array(x).dtype.type(eps), _rows(y), _array(r)
        share(_kernels().norm_forward, len(r), *arrays)
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), x.new_zeros(_PARTS, x.shape[-1])
        arrays = _rows(dy.contiguous()), _rows(x), _array(weight), _array(r), _rows(dx), _array(dweight)
        share(_kernels().norm_backward, _PARTS, *arrays, _PARTS)
        return dx, dweight.sum(0), None


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, p: float, seeds: list[int]) -> Tensor:
        ctx.how = *map(np.uint32, (*seeds, _threshold(p))), _array(x).dtype.type(1 / (1 - p))
        out = torch.empty_like(y, memory_format=torch.contiguous_format)
        arrays = [_array(z.contiguous()).ravel() for z in (x, y)]
        share(_kernels().add_dropped, out.numel(), *arrays, *ctx.how, _array(out).ravel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dy = torch.empty_like(dout, memory_format=torch.contiguous_format)
        share(_kernels().drop, dy.numel(), _array(dout.contiguous()).ravel(), *ctx.how, _array(dy).ravel())
        return dout, dy, None, None


def _fits(x: Tensor, y: Tensor) -> bool:
    """Return whether the compiled loops can be loaded, and can read both tensors."""
    alike = x.device.type == y.device.type == "cpu" and x.dtype == y.dtype in (torch.float32, torch.float64)
    return alike and x.numel() > 0 and _kernels() is not None


@cache
def _kernels() -> Any:
    try:
        return import_module("scfusionttt.nn.fused_kernels")
    except Exception as error:  # a broken Numba can fail in many ways
        _log.info("norms and dropout run in plain torch: their kernels do not load (%s)", error)
        return None


def _array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def _rows(x: Tensor) -> np.ndarray:
    return _array(x).reshape(-1, x.shape[-1])
