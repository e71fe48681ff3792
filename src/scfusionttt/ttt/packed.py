"""Queries, keys and values packed in one tensor, as one projection returns them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v [b, h, t, f], views of a projection [b, t, 3 h f].

    Equals ``qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)``, whose backward copies the three gradients
    twice; this one copies them once, or not at all if they are packed as `empty_heads` returns them.
    """
    return _SplitHeads.apply(qkv, heads)  # type: ignore[no-any-return]


def empty_heads(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three empty tensors like this one [b, h, t, f], packed as in a projection."""
    b, h, t, f = like.shape
    return _views(like.new_empty(b, t, 3 * h * f), h)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
        return _views(qkv, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _joined(*gradients), None


def _views(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _joined(*gradients: Tensor) -> Tensor:
    first, (b, h, t, f) = gradients[0], gradients[0].shape
    memory = first.untyped_storage().data_ptr()
    packed = all(
        g.untyped_storage().data_ptr() == memory
        and g.storage_offset() == first.storage_offset() + i * h * f
        and g.stride() == (t * 3 * h * f, f, 3 * h * f, 1)
        for i, g in enumerate(gradients)
    )
    if packed:
        return first.as_strided((b, t, 3 * h * f), (t * 3 * h * f, 3 * h * f, 1))
    return torch.stack([g.transpose(1, 2) for g in gradients], 2).flatten(2)
