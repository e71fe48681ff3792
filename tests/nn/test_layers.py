"""Mixers see every present token and no absent one; bf16 and recomputed blocks agree."""

import pytest
import torch

from scfusionttt.config import NetworkConfig
from scfusionttt.errors import SettingError
from scfusionttt.nn.layers import Block, Stack, make_mixer

MIXERS = ["ttt", "ttt_mlp", "attention"]
EVERY_TOKEN = torch.ones(2, 11, dtype=torch.bool)
PRESENT = torch.rand(3, 37, generator=torch.Generator().manual_seed(1)) > 0.2


def tokens():
    return torch.randn(2, 11, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mixer", MIXERS)
def test_absent_tokens_influence_no_other(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    present = torch.rand(2, 11, generator=torch.Generator().manual_seed(1)) > 0.4
    one, other = tokens(), torch.where(present[..., None], tokens(), 1e9)
    assert torch.equal(mix(one, present)[present], mix(other, present)[present])


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_token_influences_every_other(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    for changed in (0, 5, 10):
        other = tokens()
        other[:, changed] += 1
        difference = (mix(tokens(), EVERY_TOKEN) - mix(other, EVERY_TOKEN)).abs().amax(dim=(0, 2))
        assert (difference > 0).all()


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp"])
def test_a_causal_forward_reader_does_not_see_what_follows(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer, direction="causal"))
    other = tokens()
    other[:, 6:] += 1
    torch.testing.assert_close(mix(tokens(), EVERY_TOKEN)[:, :6], mix(other, EVERY_TOKEN)[:, :6])
    assert not torch.allclose(mix(tokens(), EVERY_TOKEN)[:, 6:], mix(other, EVERY_TOKEN)[:, 6:])


def test_both_directions_share_weights_and_alternate_reads_backwards_in_every_second_block(config):
    directions = {
        direction: [block.mixer.directions for block in Stack(config(direction=direction), 3).blocks]
        for direction in ("both", "alternate", "forward", "causal")
    }
    assert directions == {
        "both": [(False, True)] * 3,
        "alternate": [(False,), (True,), (False,)],
        "forward": [(False,)] * 3,
        "causal": [(False,)] * 3,
    }


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_cell_without_any_token_stays_finite(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    nothing = torch.zeros(2, 11, dtype=torch.bool)
    values = tokens().requires_grad_()
    mix(values, nothing).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mix.parameters() if p.grad is not None)
    assert torch.isfinite(values.grad).all()


def test_an_unknown_mixer_is_refused():
    with pytest.raises(SettingError, match="unknown mixer 'mamba'"):
        make_mixer(NetworkConfig(mixer="mamba"))


def block_tokens():
    return torch.randn(3, 37, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def run(config, seeded):
    """Return a function from settings to a stack's output, its input's gradient, and those of its parameters."""

    def make(**settings):
        stack = seeded(Stack, config(**settings), 2)
        values = block_tokens()
        torch.manual_seed(7)  # dropout
        out = stack(values, PRESENT)
        out.square().sum().backward()
        return [out.detach(), values.grad, *(p.grad for p in stack.parameters())]

    return make


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
def test_recomputed_blocks_give_the_same_values_and_gradients(run, mixer):
    kept, again = (run(mixer=mixer, dropout=0.1, checkpoint_blocks=recomputed) for recomputed in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
def test_half_precision_is_close_and_the_residual_stream_stays_float32(run, mixer):
    exact, rounded = (run(mixer=mixer, precision=precision) for precision in ("float32", "bf16"))
    assert all(x.dtype == torch.float32 for x in rounded)
    assert not torch.equal(exact[0], rounded[0])
    torch.testing.assert_close(rounded[0], exact[0], rtol=0, atol=0.01 * float(exact[0].std()))
    one, other = (torch.cat([x.flatten() for x in actual[1:]]) for actual in (exact, rounded))
    assert (one - other).norm() <= 0.01 * one.norm()


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp"])
def test_the_operator_receives_float32_whatever_the_precision(config, seeded, mixer):
    stack = seeded(Stack, config(mixer=mixer, precision="bf16"), 1)
    mix, seen = stack.blocks[0].mixer, []
    operator, project = mix.operator, mix.qkv.forward
    mix.operator = lambda *tensors, **how: (seen.extend(x.dtype for x in tensors), operator(*tensors, **how))[1]
    mix.qkv.forward = lambda x: (y := project(x), seen.append(y.dtype))[0]
    stack(block_tokens(), PRESENT)
    assert seen[0] == torch.bfloat16
    assert set(seen[1:]) == {torch.float32}


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp", "attention", "none"])
@pytest.mark.parametrize("first", [0, 5, 36])
def test_tokens_before_first_are_mixed_in_but_not_returned(config, seeded, mixer, first):
    block = seeded(Block, config(mixer=mixer)).double()
    values = block_tokens().detach().double().requires_grad_()
    results = []
    for out in (block(values, PRESENT, first), block(values, PRESENT)[:, first:]):
        results.append((out, *torch.autograd.grad(out.sin().sum(), [values, *block.parameters()])))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
