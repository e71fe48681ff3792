import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.data.store.sampler import BlockSampler, drawn

PLACES = np.random.default_rng(0).permutation(1003)


def order(epoch=0, places=PLACES, **options):
    sampler = BlockSampler(places, block=16, window=64, **options)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(places)
    return list(sampler)


@given(st.integers(1, 90), st.integers(0, 3), st.sampled_from([0, 7]))
def test_every_cell_comes_exactly_once_in_an_epoch(n, epoch, seed):
    assert sorted(order(epoch, PLACES[:n], seed=seed)) == list(range(n))


def test_without_a_seed_cells_come_as_they_lie():
    assert order() == np.argsort(PLACES).tolist()


def test_a_window_is_made_of_few_blocks_and_shuffled():
    came = PLACES[order(seed=1)]
    for start in range(0, 1003, 64):
        window = came[start : start + 64]
        assert len(set(window // 16)) <= 64 // 16 + 2  # the last block of all is cut, and moves the others
        assert (np.diff(window) < 0).any()


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_the_order_depends_on_seed_and_epoch_alone(change):
    assert order(seed=1) == order(seed=1)
    assert order(**{"seed": 1, **change}) != order(seed=1)


@given(st.lists(st.floats(0.01, 4), min_size=1, max_size=90), st.integers(0, 5))
def test_positions_are_drawn_as_often_as_expected(expected, seed):
    expected = np.array(expected)
    positions = drawn(expected, np.random.default_rng(seed))
    total = round(expected.sum())
    assert len(positions) == total
    assert (np.diff(positions) >= 0).all()
    scaled = expected * total / expected.sum()
    assert (np.abs(np.bincount(positions, minlength=len(expected)) - scaled) < 1 + 1e-9).all()


def test_blocks_stay_together_when_some_cells_come_more_often():
    expected = np.where(PLACES < 100, 4.0, 603 / 903)
    came = PLACES[order(seed=1, expected=expected)]
    assert (came < 100).sum() == pytest.approx(400, abs=2)
    for start in range(0, 1003, 64):
        assert len(set(came[start : start + 64] // 16)) <= 64 // 10 + 2
