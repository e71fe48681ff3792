import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.data.split import (
    label_columns,
    random_split,
    split_by_key,
    stratified_split,
    train_and_held_out,
    usable_labels,
)
from scfusionttt.errors import InputDataError, LabelError, SettingError

OBS = pd.DataFrame(
    {
        "cell_type": pd.Categorical(["T", "B", "T", "unknown", None, "B"]),
        "batch": ["1", "1", "1", "2", "2", "2"],
        "n_counts": np.arange(6.0),
        "one": "x",
        "lonely": ["a", "a", "b", "b", "c", "d"],
    }
)


def fails(obs, key, *words):
    with pytest.raises(LabelError) as caught:
        usable_labels(obs, key)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_usable_labels():
    codes, classes = usable_labels(OBS, "cell_type")
    assert classes == ["B", "T"]
    assert codes.tolist() == [1, 0, 1, -1, -1, 0]
    assert codes.dtype == np.int64


def test_a_class_of_one_cell_can_be_shown_but_not_learned():
    assert usable_labels(OBS, "lonely", learn=False)[1] == ["a", "b", "c", "d"]
    fails(OBS, "lonely", "one cell only: c, d")


@pytest.mark.parametrize("value", ["Unknown", " NA ", "nan", "", "UNASSIGNED", None, np.nan, pd.NA])
def test_unlabelled_in_any_case(value):
    codes, classes = usable_labels(pd.DataFrame({"k": ["a", "b", value, "a", "b"]}), "k")
    assert codes.tolist() == [0, 1, -1, 0, 1]
    assert classes == ["a", "b"]


@pytest.mark.parametrize("values", [[1, 2, 1, 2], [1.0, 2.0, 1.0, 2.0], [True, False, True, False]])
def test_labels_that_are_no_text(values):
    classes = usable_labels(pd.DataFrame({"k": values}), "k")[1]
    assert classes == (["False", "True"] if values[0] is True else ["1", "2"])


def test_whole_numbers_with_gaps():
    codes, classes = usable_labels(pd.DataFrame({"k": [1.0, 2.0, np.nan, 2.0, 1.0]}), "k")
    assert codes.tolist() == [0, 1, -1, 1, 0]
    assert classes == ["1", "2"]


def test_unknown_key_offers_the_closest_and_all_that_could_be_meant():
    fails(OBS, "celltype", "no obs['celltype']", "did you mean 'cell_type'?", "batch", "lonely")
    fails(OBS, "zzz", "columns that could be labels: cell_type, batch, lonely")
    fails(pd.DataFrame(index=["a"]), "zzz", "labels: none")


def test_labels_are_a_columns_name():
    """Values in its place, and two columns of one name, were errors of pandas."""
    for values in (["T", "B"] * 3, OBS["batch"], OBS["batch"].to_numpy()):
        fails(OBS, values, "named by an obs column", type(values).__name__, "data.obs['cell_type']")
    twice = pd.concat([OBS, OBS[["cell_type"]]], axis=1)
    fails(twice, "cell_type", "2 columns obs['cell_type']", "rename or drop")


def test_single_class():
    fails(OBS, "one", "single class (x)", "at least two")
    fails(pd.DataFrame({"k": ["unknown", None]}), "k", "no labelled cell")


def test_class_with_one_cell_is_named():
    fails(OBS, "lonely", "one cell only: c, d", "merge", "drop")


def test_a_measurement_is_no_label():
    rng = np.random.default_rng(0)
    fails(pd.DataFrame({"k": rng.normal(size=500)}), "k", "looks continuous (500 different numbers)")
    fails(pd.DataFrame({"k": np.arange(900)}), "k", "looks continuous")


def test_label_columns():
    assert label_columns(OBS) == {
        "cell_type": {"T": 2, "B": 2},
        "batch": {"1": 3, "2": 3},
        "lonely": {"a": 2, "b": 2, "c": 1, "d": 1},
    }
    assert label_columns(pd.DataFrame({"barcode": [f"c{i}" for i in range(300)]})) == {}


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


def test_stratified_split_of_names():
    train, test = stratified_split(np.array(["a", "b", "a", "b"]), fraction=0.5, seed=0)
    assert sorted(np.r_[train, test]) == [0, 1, 2, 3]
    assert len(train) == 2


def test_random_split():
    train, test = random_split(101, fraction=0.75, seed=0)
    assert len(train) == 76
    np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(101))
    np.testing.assert_array_equal(train, random_split(101, fraction=0.75, seed=0)[0])
    assert [len(part) for part in random_split(2, fraction=0.99, seed=0)] == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 75, float("nan"), "0.5", None, [0.5]])
def test_impossible_fraction(fraction):
    for split in (
        lambda: random_split(9, fraction=fraction, seed=0),
        lambda: stratified_split([0, 1], fraction=fraction, seed=0),
    ):
        with pytest.raises(SettingError, match="between 0 and 1"):
            split()


def test_too_few_cells():
    with pytest.raises(InputDataError, match="1 cell cannot be split"):
        random_split(1, fraction=0.5, seed=0)
    with pytest.raises(LabelError, match="1 labelled cell cannot be split"):
        stratified_split(np.array([0, -1]), fraction=0.5, seed=0)


def test_split_by_key():
    obs = pd.DataFrame(
        {"split": ["train", "Test", None, "TRAIN"], "other": ["train", "test", "val", "x"], "t": "train"}
    )
    train, test = split_by_key(obs, "split")
    assert (train.tolist(), test.tolist()) == ([0, 3], [1])
    with pytest.raises(LabelError, match="must say train or test; it also has val, x"):
        split_by_key(obs, "other")
    with pytest.raises(LabelError, match="no cell that says test"):
        split_by_key(obs, "t")
    with pytest.raises(LabelError, match="did you mean 'split'"):
        split_by_key(obs, "splits")


def test_a_class_of_test_cells_alone_is_told(caplog):
    """It was learned as a class of which there is no example, without a word."""
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
