"""Rotary positions inside a mini-batch."""

import torch
from torch import Tensor


def rotations(mini_batch: int, head: int, like: Tensor, theta: float = 10000.0) -> Tensor:
    """Return the unit complex numbers ``exp(i * position * theta**(-2m/head))``, [mini_batch, head / 2]."""
    position = torch.arange(mini_batch, dtype=torch.float64)
    frequency = theta ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = position[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle).to(device=like.device, dtype=like.dtype.to_complex())


def apply_rope(x: Tensor, mini_batch: int) -> Tensor:
    """Rotate interleaved pairs of the last axis by the token's position in its mini-batch.

    Parameters
    ----------
    x : Tensor [..., t, f]
        Queries or keys, f even.
    mini_batch : int
        Positions are counted modulo this.

    Returns
    -------
    Tensor [..., t, f]

    References
    ----------
    Su et al., RoFormer, arXiv 2104.09864, with theta = 10000.
    """
    t, head = x.shape[-2:]
    rotation = rotations(mini_batch, head, x).repeat(-(-t // mini_batch), 1)[:t]
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)
