"""Rotary positions inside a mini-batch (Su et al., RoFormer, arXiv 2104.09864), on interleaved pairs."""

import torch
from torch import Tensor

THETA = 10000.0


def rotations(positions: int, head: int) -> Tensor:
    """Return the unit complex numbers ``exp(i * position * theta**(-2m/head))``, complex128 [positions, head / 2]."""
    frequency = THETA ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle)


def rotations_like(x: Tensor, mini_batch: int) -> Tensor:
    """Return the rotation of each token of x [..., t, f], its position counted modulo the mini-batch."""
    t, head = x.shape[-2:]
    table = rotations(mini_batch, head).to(device=x.device, dtype=x.dtype.to_complex())
    return table.repeat(-(-t // mini_batch), 1)[:t]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs of x [..., t, f] by `rotation` [t, f / 2]; the conjugate rotates back."""
    if x.stride(-1) != 1 or x.storage_offset() % 2 or any(stride % 2 for stride in x.stride()[:-1]):
        x = x.clone(memory_format=torch.contiguous_format)  # only whole pairs can be read as complex numbers in place
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * rotation).flatten(-2)


def apply_rope(x: Tensor, mini_batch: int) -> Tensor:
    """Rotate queries or keys x [..., t, f], f even, by their token's position in its mini-batch."""
    return rotate(x, rotations_like(x, mini_batch))
