import numpy as np
import pandas as pd
import pytest

from scfusionttt.errors import LabelError
from scfusionttt.labels import class_names, is_labelled, label_columns, label_names, usable_labels
from support import raises_one_line

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
    with raises_one_line(LabelError, *words):
        usable_labels(obs, key)


def test_classes_are_sorted_and_unlabelled_cells_have_none():
    codes, classes = usable_labels(OBS, "cell_type")
    assert classes == ["B", "T"]
    assert codes.tolist() == [1, 0, 1, -1, -1, 0]
    assert codes.dtype == np.int64


def test_a_class_of_one_cell_can_be_shown_but_not_learned():
    assert usable_labels(OBS, "lonely", learn=False)[1] == ["a", "b", "c", "d"]
    fails(OBS, "lonely", "only one cell: c, d")


@pytest.mark.parametrize("value", ["Unknown", " NA ", "nan", "", "UNASSIGNED", None, np.nan, pd.NA])
def test_cells_are_unlabelled_by_any_word_for_it(value):
    codes, classes = usable_labels(pd.DataFrame({"k": ["a", "b", value, "a", "b"]}), "k")
    assert codes.tolist() == [0, 1, -1, 0, 1]
    assert classes == ["a", "b"]


@pytest.mark.parametrize("values", [[1, 2, 1, 2], [1.0, 2.0, 1.0, 2.0], [True, False, True, False]])
def test_numbers_and_booleans_are_labels(values):
    classes = usable_labels(pd.DataFrame({"k": values}), "k")[1]
    assert classes == (["False", "True"] if values[0] is True else ["1", "2"])


def test_whole_numbers_with_gaps_are_labels():
    codes, classes = usable_labels(pd.DataFrame({"k": [1.0, 2.0, np.nan, 2.0, 1.0]}), "k")
    assert codes.tolist() == [0, 1, -1, 1, 0]
    assert classes == ["1", "2"]


def test_an_unknown_key_suggests_the_closest_and_lists_the_candidates():
    fails(OBS, "celltype", "no obs['celltype']", "did you mean 'cell_type'?", "batch", "lonely")
    fails(OBS, "zzz", "columns that could be labels: cell_type, batch, lonely")
    of_mudata = pd.DataFrame({"prot:leiden": ["1", "2"], "leiden": ["1", "2"]})
    fails(of_mudata, "rna:leiden", "did you mean 'leiden'?")  # not the protein's, which is spelt more like it
    fails(pd.DataFrame(index=["a"]), "zzz", "labels: none")


def test_labels_are_chosen_by_column_name():
    """Values instead of a name, and two columns of the same name, raised errors of pandas."""
    for values in (["T", "B"] * 3, OBS["batch"], OBS["batch"].to_numpy()):
        fails(OBS, values, "chosen by the name of an obs column", type(values).__name__, "data.obs['cell_type']")
    twice = pd.concat([OBS, OBS[["cell_type"]]], axis=1)
    fails(twice, "cell_type", "2 columns obs['cell_type']", "rename or drop")


def test_a_single_class_or_none_is_refused():
    fails(OBS, "one", "single class (x)", "at least two")
    fails(pd.DataFrame({"k": ["unknown", None]}), "k", "no labelled cell")


def test_a_class_with_one_cell_is_named():
    fails(OBS, "lonely", "only one cell: c, d", "merge", "label its cell 'unknown'")


def test_measurements_are_refused():
    rng = np.random.default_rng(0)
    fails(pd.DataFrame({"k": rng.normal(size=500)}), "k", "looks continuous (500 distinct numbers)")
    fails(pd.DataFrame({"k": np.arange(900)}), "k", "looks continuous")


def test_columns_that_could_be_labels_are_listed_with_their_classes():
    assert label_columns(OBS) == {
        "cell_type": {"T": 2, "B": 2},
        "batch": {"1": 3, "2": 3},
        "lonely": {"a": 2, "b": 2, "c": 1, "d": 1},
    }
    assert label_columns(pd.DataFrame({"barcode": [f"c{i}" for i in range(300)]})) == {}


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, np.nan],
        np.array([1.0, 2.0, np.nan], dtype=np.float32),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Categorical([1.0, 2.0, np.nan]),
        ["1", " 2 ", None],
        np.array([1, 2.0, ""], dtype=object),
        pd.Series(["1", "2", None], dtype="string", index=["x", "x", "y"]),
    ],
)
def test_one_text_for_a_class_whatever_the_dtype(values):
    """Training, scoring and plotting each had a rule of their own: 1.0 was "1" in training and "1.0" in scores."""
    assert class_names(values).tolist() == label_names(values).tolist() == ["1", "2", ""]
    assert is_labelled(values).tolist() == [True, True, False]


def test_a_label_does_not_depend_on_the_other_labels():
    """2.0 was "2" among whole numbers and "2.0" beside 1.5, so a subset of the cells had other classes."""
    assert class_names([1.5, 2.0]).tolist() == ["1.5", "2"]
    assert class_names([2.0]).tolist() == ["2"]


def test_predictions_of_unknown_keep_their_name():
    assert class_names(["Unknown", " T "]).tolist() == ["Unknown", "T"]
    assert label_names(["Unknown", " T "]).tolist() == ["", "T"]
