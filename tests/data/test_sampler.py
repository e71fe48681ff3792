import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.data.sampler import BlockSampler

PLACES = np.random.default_rng(0).permutation(1003)


def sampler(epoch=0, **options):
    made = BlockSampler(PLACES, block=16, window=64, **options)
    made.set_epoch(epoch)
    return made


@given(st.integers(0, 3), st.sampled_from([None, 0, 7]))
def test_every_cell_is_read_once(epoch, seed):
    read = list(sampler(epoch, seed=seed))
    assert len(sampler(epoch, seed=seed)) == len(read)
    assert sorted(read) == list(range(1003))
    if seed is None:
        assert read == np.argsort(PLACES).tolist()


def test_a_window_is_made_of_few_blocks_and_shuffled():
    for cells in sampler(seed=1).windows():
        assert len(set(PLACES[cells] // 16)) <= 64 // 16 + 2  # the last block of all is cut, and moves the others
        assert (np.diff(PLACES[cells]) < 0).any()


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_the_order_depends_on_seed_and_epoch_alone(change):
    assert list(sampler(seed=1)) == list(sampler(seed=1))
    assert list(sampler(**{"seed": 1, **change})) != list(sampler(seed=1))
