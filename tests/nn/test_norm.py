"""The norm with its own backward is torch's."""

import pytest
import torch
from torch import nn

from scfusionttt.nn.norm import RMSNorm


def results(norm, x):
    out = norm(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), *torch.autograd.grad((weights * out.sin()).sum(), [x, norm.weight])


@pytest.mark.parametrize("shape", [(1, 2), (7, 3), (2, 37, 24), (3, 1, 5, 65)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])  # the first is of the size of eps
def test_values_and_gradients_are_those_of_torch(shape, scale):
    draw = torch.Generator().manual_seed(0)
    ours, torchs = RMSNorm(shape[-1]).double(), nn.RMSNorm(shape[-1], eps=1e-6).double()
    nn.init.normal_(ours.weight, generator=draw)
    torchs.load_state_dict(ours.state_dict())
    x = (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).requires_grad_()
    for found, expected in zip(results(ours, x), results(torchs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


def test_rows_of_any_layout():
    norm, x = RMSNorm(6).double(), torch.randn(5, 6, 3, dtype=torch.float64)
    across, packed = x.mT.requires_grad_(), x.mT.contiguous().requires_grad_()
    for found, expected in zip(results(norm, across), results(norm, packed), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_backward_within_autocast_keeps_the_precision():
    norm, x = RMSNorm(48), torch.randn(5, 48, requires_grad=True)
    expected = results(norm, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(norm, x)
    for here, there in zip(found, expected, strict=True):
        assert torch.equal(here, there)


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # torch's own, of its slower path
def test_half_precision_rows_with_a_weight_of_full_precision():
    norm, x = RMSNorm(48), torch.randn(5, 48)
    half = x.bfloat16().requires_grad_()
    out, dx, dweight = results(norm, half)
    assert (dx.dtype, dweight.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), norm(half.detach().float()), rtol=0.02, atol=0.02)
