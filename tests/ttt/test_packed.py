"""Queries, keys and values in one tensor: the same numbers as by torch's own views, with fewer copies."""

import pytest
import torch

from scfusionttt.ttt import split_heads, step_sizes, ttt_linear
from scfusionttt.ttt.packed import empty_heads

SIZES = [(1, 1, 1, 2), (2, 3, 7, 10), (3, 2, 37, 16), (1, 5, 100, 24)]  # b, h, t, f


def plainly(qkv, heads):
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def projection(b, h, t, f, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(b, t, 3 * h * f, generator=draw, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("b", "h", "t", "f"), SIZES)
def test_parts_and_their_gradients_are_those_of_plain_views(b, h, t, f):
    qkv = projection(b, h, t, f)
    found, expected = split_heads(qkv, h), plainly(qkv, h)
    assert all(torch.equal(x, y) and x.data_ptr() == y.data_ptr() for x, y in zip(found, expected, strict=True))
    gradients = [torch.autograd.grad((q * k).sum() + v.sin().sum(), qkv)[0] for q, k, v in (found, expected)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
@pytest.mark.parametrize("options", [{"both": True}, {"reverse": True, "causal": False}])
@pytest.mark.parametrize(("b", "h", "t", "f"), SIZES)
def test_through_a_backend_as_through_the_definition(b, h, t, f, options, backend):
    qkv, layer = projection(b, h, t, f), projection(1, h, f, f, seed=1).unflatten(-1, (3, h, f))[0]
    w0, (gamma, beta, b0) = layer[:, 0].transpose(0, 1), layer[0]
    lr, mask = torch.rand(b, h, t, dtype=torch.float64) / f, torch.arange(b * t).view(b, t) % 6 > 0
    results = []
    for way, split in ((backend, split_heads), ("definition", plainly)):
        tensors = *split(qkv, h), lr, step_sizes(torch.zeros(16).double()), w0, b0, gamma, beta
        out = ttt_linear(*tensors, mask=mask, backend=way, **options).out
        results.append((out, *torch.autograd.grad(out.sin().sum(), qkv)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max() + 1e-9))


def handed_back(qkv, heads, gradients):
    return torch.autograd.grad(split_heads(qkv, heads), qkv, gradients)[0]


def test_packed_gradients_are_handed_on_without_a_copy():
    qkv = projection(2, 3, 7, 10)
    packed = empty_heads(split_heads(qkv, 3)[0].detach())
    for i, x in enumerate(packed):
        x.fill_(i)
    found = handed_back(qkv, 3, packed)
    assert found.data_ptr() == packed[0].data_ptr()
    assert torch.equal(found, torch.arange(3.0).double().repeat_interleave(30).expand(2, 7, 90))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 0, 0), (0, 2, 1)])
def test_gradients_in_one_memory_but_in_another_order_are_put_in_theirs(order):
    qkv = projection(2, 3, 7, 10)
    given = plainly(projection(2, 3, 7, 10, seed=2).detach(), 3)
    found = handed_back(qkv, 3, [given[i] for i in order])
    assert torch.equal(torch.stack(plainly(found, 3)), torch.stack([given[i] for i in order]))
