import pytest
import torch

from scfusionttt.config import NetworkConfig
from scfusionttt.errors import SettingError
from scfusionttt.nn.block import Stack
from scfusionttt.nn.mixer import make_mixer

MIXERS = ["ttt", "ttt_mlp", "attention"]
HERE = torch.ones(2, 11, dtype=torch.bool)


def tokens(seed=0):
    return torch.randn(2, 11, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mixer", MIXERS)
def test_absent_tokens_influence_no_other(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    present = torch.rand(2, 11, generator=torch.Generator().manual_seed(1)) > 0.4
    one, other = tokens(), torch.where(present[..., None], tokens(), 1e9)
    assert torch.equal(mix(one, present)[present], mix(other, present)[present])


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_other_token_is_seen(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    for changed in (0, 5, 10):
        other = tokens()
        other[:, changed] += 1
        difference = (mix(tokens(), HERE) - mix(other, HERE)).abs().amax(dim=(0, 2))
        assert (difference > 0).all()


@pytest.mark.parametrize("mixer", ["ttt", "ttt_mlp"])
def test_a_causal_forward_reader_does_not_see_what_follows(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer, direction="forward", causal=True))
    other = tokens()
    other[:, 6:] += 1
    torch.testing.assert_close(mix(tokens(), HERE)[:, :6], mix(other, HERE)[:, :6])
    assert not torch.allclose(mix(tokens(), HERE)[:, 6:], mix(other, HERE)[:, 6:])


def test_both_directions_share_weights_and_alternate_reads_backwards_in_every_second_block(config):
    directions = {
        direction: [block.mixer.directions for block in Stack(config(direction=direction), 3).blocks]
        for direction in ("both", "alternate", "forward")
    }
    assert directions == {
        "both": [(False, True)] * 3,
        "alternate": [(False,), (True,), (False,)],
        "forward": [(False,)] * 3,
    }


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_cell_without_any_token_stays_finite(config, seeded, mixer):
    mix = seeded(make_mixer, config(mixer=mixer))
    nothing = torch.zeros(2, 11, dtype=torch.bool)
    values = tokens().requires_grad_()
    mix(values, nothing).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mix.parameters() if p.grad is not None)
    assert torch.isfinite(values.grad).all()


def test_a_mixer_that_does_not_exist_is_refused():
    with pytest.raises(SettingError, match="no mixer 'mamba'"):
        make_mixer(NetworkConfig(mixer="mamba"))
