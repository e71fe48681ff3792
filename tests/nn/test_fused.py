"""The fused RMSNorm is torch's; dropout with its sum is its plain definition, drops enough, and anew each time."""

import pytest
import torch
from torch import nn

from scfusionttt.nn import fused
from scfusionttt.nn.fused import RMSNorm, add_dropped, kept_elements

SHAPES = [(1, 2), (7, 3), (2, 37, 24), (3, 1, 5, 65)]


def norm_results(norm, x):
    out = norm(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), *torch.autograd.grad((weights * out.sin()).sum(), [x, norm.weight])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])  # the first is of the size of eps
def test_values_and_gradients_are_those_of_torch(shape, scale):
    draw = torch.Generator().manual_seed(0)
    ours, torchs = RMSNorm(shape[-1]).double(), nn.RMSNorm(shape[-1], eps=1e-6).double()
    nn.init.normal_(ours.weight, generator=draw)
    torchs.load_state_dict(ours.state_dict())
    x = (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).requires_grad_()
    for actual, expected in zip(norm_results(ours, x), norm_results(torchs, x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


def test_rows_of_any_layout():
    norm, x = RMSNorm(6).double(), torch.randn(5, 6, 3, dtype=torch.float64)
    across, packed = x.mT.requires_grad_(), x.mT.contiguous().requires_grad_()
    for actual, expected in zip(norm_results(norm, across), norm_results(norm, packed), strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_backward_within_autocast_keeps_the_precision():
    norm, x = RMSNorm(48), torch.randn(5, 48, requires_grad=True)
    expected = norm_results(norm, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = norm_results(norm, x)
    for actual_value, expected_value in zip(actual, expected, strict=True):
        assert torch.equal(actual_value, expected_value)


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # torch's own, of its slower path
def test_half_precision_rows_with_a_weight_of_full_precision():
    norm, x = RMSNorm(48), torch.randn(5, 48)
    half = x.bfloat16().requires_grad_()
    out, dx, dweight = norm_results(norm, half)
    assert (dx.dtype, dweight.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), norm(half.detach().float()), rtol=0.02, atol=0.02)


@pytest.fixture(params=["compiled", "plain"])
def with_or_without_kernels(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(fused, "_kernels", lambda: None)


def sum_and_gradients(x, y, p):
    torch.manual_seed(0)
    out = add_dropped(x, y, p)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), *torch.autograd.grad((weights * out.sin()).sum(), [x, y])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_is_its_plain_definition(shape, p, dtype, monkeypatch):
    x, y = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    compiled = sum_and_gradients(x, y, p)
    monkeypatch.setattr(fused, "_kernels", lambda: None)
    for actual, expected in zip(compiled, sum_and_gradients(x, y, p), strict=True):
        torch.testing.assert_close(actual, expected)


def test_dropout_of_half_precision_takes_the_kernels(monkeypatch):
    """Under autocast the summand is bfloat16: the plain definition took a fifth of such a step."""
    x = torch.randn(5, 9, 48, requires_grad=True)
    y = torch.randn(5, 9, 48).bfloat16().requires_grad_()
    with monkeypatch.context() as patched:
        patched.setattr(fused, "_kernels", lambda: None)
        expected = sum_and_gradients(x, y, 0.1)
    monkeypatch.delattr(fused, "kept_elements")
    for actual, wanted in zip(sum_and_gradients(x, y, 0.1), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.usefixtures("with_or_without_kernels")
def test_dropout_drops_its_share_and_other_elements_the_next_time():
    x, y = torch.zeros(300, 400), torch.ones(400, 300).T  # of another layout than x
    torch.manual_seed(1)
    first, second = add_dropped(x, y, 0.3), add_dropped(x, y, 0.3)
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    for out in (first, second):
        assert (out == 0).double().mean() == pytest.approx(0.3, abs=0.005)  # 4 standard errors
    assert ((first == 0) & (second == 0)).double().mean() == pytest.approx(0.09, abs=0.004)
    torch.manual_seed(1)
    assert torch.equal(first, add_dropped(x, y, 0.3))


def test_neighbours_are_dropped_independently():
    kept = torch.stack([kept_elements(2**16, 0.5, [seed, 3 * seed + 1]) for seed in range(8)]).double() - 0.5
    for lag in (1, 2, 64, 128, 4096):
        assert abs((kept[:, lag:] * kept[:, :-lag]).mean()) < 4 * 0.25 / kept.numel() ** 0.5
    across = kept @ kept.T / 2**16
    assert (across - 0.25 * torch.eye(8)).abs().max() < 4 * 0.25 / 2**8
