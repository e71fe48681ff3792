import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.data.split import (
    random_split,
    split_by_key,
    stratified_split,
    train_and_held_out,
)
from scfusionttt.errors import InputDataError, LabelError, SettingError


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.floats(0.05, 0.95), st.integers(0, 3))
def test_stratified_split_keeps_every_class_in_both_parts(sizes, fraction, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if len(labels) < 2:
        return
    train, test = stratified_split(labels, fraction=fraction, seed=seed)
    np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(len(labels)))
    for code, size in enumerate(sizes):
        in_train, in_test = (labels[train] == code).sum(), (labels[test] == code).sum()
        if size == 1:
            assert (in_train, in_test) == (1, 0)
        else:
            assert in_train >= 1
            assert in_test >= 1
            assert abs(in_train - fraction * size) <= 1
    again = stratified_split(labels, fraction=fraction, seed=seed)
    np.testing.assert_array_equal(train, again[0])


def test_stratified_split_has_the_size_asked_for_and_leaves_the_unlabelled():
    labels = np.random.default_rng(0).integers(-1, 7, 1000)
    train, test = stratified_split(labels, fraction=0.75, seed=1)
    labelled = (labels >= 0).sum()
    assert len(train) == round(0.75 * labelled)
    assert len(train) + len(test) == labelled
    assert (labels[np.r_[train, test]] >= 0).all()
    other = stratified_split(labels, fraction=0.75, seed=2)[0]
    assert not np.array_equal(train, other)


def test_a_stratified_split_takes_names_of_classes():
    train, test = stratified_split(np.array(["a", "b", "a", "b"]), fraction=0.5, seed=0)
    assert sorted(np.r_[train, test]) == [0, 1, 2, 3]
    assert len(train) == 2


def test_a_random_split_has_the_size_asked_for_and_repeats():
    train, test = random_split(101, fraction=0.75, seed=0)
    assert len(train) == 76
    np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(101))
    np.testing.assert_array_equal(train, random_split(101, fraction=0.75, seed=0)[0])
    assert [len(part) for part in random_split(2, fraction=0.99, seed=0)] == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 75, float("nan"), "0.5", None, [0.5]])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    for split in (
        lambda: random_split(9, fraction=fraction, seed=0),
        lambda: stratified_split([0, 1], fraction=fraction, seed=0),
    ):
        with pytest.raises(SettingError, match="between 0 and 1"):
            split()


def test_too_few_cells_to_split_are_refused():
    with pytest.raises(InputDataError, match="cannot split 1 cell"):
        random_split(1, fraction=0.5, seed=0)
    with pytest.raises(LabelError, match="cannot split 1 labelled cell"):
        stratified_split(np.array([0, -1]), fraction=0.5, seed=0)


def test_a_column_splits_into_train_and_test():
    obs = pd.DataFrame(
        {"split": ["train", "Test", None, "TRAIN"], "other": ["train", "test", "val", "x"], "t": "train"}
    )
    train, test = split_by_key(obs, "split")
    assert (train.tolist(), test.tolist()) == ([0, 3], [1])
    with pytest.raises(LabelError, match="must be 'train' or 'test' in every cell; it also has val, x"):
        split_by_key(obs, "other")
    with pytest.raises(LabelError, match="is 'test' in no cell"):
        split_by_key(obs, "t")
    with pytest.raises(LabelError, match="did you mean 'split'"):
        split_by_key(obs, "splits")


def test_a_class_without_training_cells_is_logged(caplog):
    """Such a class was learned without a single example and without a warning."""
    obs = pd.DataFrame({"split": ["train"] * 4 + ["test"] * 4}, index=[f"c{i}" for i in range(8)])
    codes, options = np.array([0, 1, 0, 1, 0, 2, 3, -1]), {"train_fraction": None, "split": "split", "seed": 0}
    options["classes"] = ["B", "T", "NK", "DC"]
    train, held_out = train_and_held_out(obs, codes, **options)
    assert (train.tolist(), held_out.tolist()) == ([0, 1, 2, 3], [4, 5, 6])
    (record,) = caplog.records
    assert "learned: NK, DC;" in record.getMessage()
    caplog.clear()
    train_and_held_out(obs, np.array([0, 1] * 4), **options)
    assert not caplog.records
