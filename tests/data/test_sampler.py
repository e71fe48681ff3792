from itertools import chain

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


@given(st.integers(1, 5), st.integers(0, 3), st.sampled_from([None, 0, 7]))
def test_the_ranks_share_the_cells_and_none_is_read_twice(world_size, epoch, seed):
    shares = [sampler(epoch, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    read = [list(share) for share in shares]
    together = list(chain.from_iterable(read))
    assert [len(share) for share in shares] == [len(own) for own in read]
    assert len(together) == len(set(together))
    if seed is None:
        assert together == np.argsort(PLACES).tolist()
    else:
        assert {len(own) for own in read} == {1003 // world_size}


def test_a_window_is_made_of_few_blocks_and_shuffled():
    for cells in sampler(seed=1).windows():
        assert len(set(PLACES[cells] // 16)) <= 64 // 16 + 2  # the last block of all is cut, and moves the others
        assert (np.diff(PLACES[cells]) < 0).any()


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_the_order_depends_on_seed_and_epoch_alone(change):
    assert list(sampler(seed=1)) == list(sampler(seed=1))
    assert list(sampler(**{"seed": 1, **change})) != list(sampler(seed=1))


def test_cells_left_over_by_the_ranks_are_others_in_each_epoch():
    def left_over(epoch):
        read = (list(sampler(epoch, seed=0, rank=rank, world_size=5)) for rank in range(5))
        return set(range(1003)) - set(chain.from_iterable(read))

    assert len(left_over(0)) == 3
    assert left_over(0) != left_over(1)
