"""A block in half precision, and one that is computed again in the backward, are the block."""

import pytest
import torch

from scfusionttt.nn.block import Block, Stack

PRESENT = torch.rand(3, 37, generator=torch.Generator().manual_seed(1)) > 0.2


def tokens():
    return torch.randn(3, 37, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def run(config, seeded):
    """Return a function from settings to a stack's output, its input's gradient, and those of its parameters."""

    def make(**settings):
        stack = seeded(Stack, config(**settings), 2)
        values = tokens()
        torch.manual_seed(7)  # dropout
        out = stack(values, PRESENT)
        out.square().sum().backward()
        return [out.detach(), values.grad, *(p.grad for p in stack.parameters())]

    return make


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
def test_blocks_computed_again_give_the_same_values_and_gradients(run, mixer):
    kept, again = (run(mixer=mixer, dropout=0.1, checkpoint_blocks=recomputed) for recomputed in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
def test_half_precision_is_close_and_the_residual_stream_stays_float32(run, mixer):
    exact, rounded = (run(mixer=mixer, precision=precision) for precision in ("float32", "bf16"))
    assert all(x.dtype == torch.float32 for x in rounded)
    assert not torch.equal(exact[0], rounded[0])
    torch.testing.assert_close(rounded[0], exact[0], rtol=0, atol=0.01 * float(exact[0].std()))
    one, other = (torch.cat([x.flatten() for x in found[1:]]) for found in (exact, rounded))
    assert (one - other).norm() <= 0.01 * one.norm()


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp"])
def test_the_operator_is_given_float32_whatever_the_precision(config, seeded, mixer):
    stack = seeded(Stack, config(mixer=mixer, precision="bf16"), 1)
    mix, seen = stack.blocks[0].mixer, []
    operator, project = mix.operator, mix.qkv.forward
    mix.operator = lambda *tensors, **how: (seen.extend(x.dtype for x in tensors), operator(*tensors, **how))[1]
    mix.qkv.forward = lambda x: (y := project(x), seen.append(y.dtype))[0]
    stack(tokens(), PRESENT)
    assert seen[0] == torch.bfloat16
    assert set(seen[1:]) == {torch.float32}


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
@pytest.mark.parametrize("first", [0, 5, 36])
def test_what_is_not_wanted_is_left_out_and_still_mixed_in(config, seeded, mixer, first):
    block = seeded(Block, config(mixer=mixer)).double()
    values = tokens().detach().double().requires_grad_()
    results = []
    for out in (block(values, PRESENT, first), block(values, PRESENT)[:, first:]):
        results.append((out, *torch.autograd.grad(out.sin().sum(), [values, *block.parameters()])))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
