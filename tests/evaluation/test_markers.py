import numpy as np
import pytest
from scipy import sparse

from scfusionttt.evaluation import top_features


@pytest.mark.parametrize("pack", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_the_feature_raised_in_a_group_is_its_first(pack):
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, size=(60, 11)).astype(np.float32)
    groups = np.repeat(["a", "b", "c"], 20)
    values[:20, 3] += 5
    values[20:40, 7] += 5
    top = top_features(pack(values), [f"g{i}" for i in range(11)], groups, most=2)
    assert (top["a"][0], top["b"][0]) == ("g3", "g7")
    assert all(len(names) <= 2 for names in top.values())


def test_missing_values_and_single_cells_are_left_out():
    values = np.array([[5.0, np.nan], [6.0, np.nan], [1.0, np.nan], [0.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    top = top_features(values, ["CD3", "CD4"], ["a", "a", "b", "b", "b", "alone"])
    assert top == {"a": ["CD3"], "b": [], "alone": []}


def test_features_of_two_panels_are_compared_in_the_cells_that_have_them():
    """No cell has all proteins if two donors lack one each: the report listed no protein for any cluster."""
    values = np.tile([[5.0, 0.0, 0.0], [6.0, 0.0, 1.0], [0.0, 4.0, 0.0], [1.0, 5.0, 1.0]], (10, 1))
    values[:20, 0] = values[20:, 1] = np.nan
    top = top_features(values, ["CD3", "CD19", "CD45"], ["T", "T", "B", "B"] * 10)
    assert top == {"T": ["CD3"], "B": ["CD19"]}


def test_genes_of_two_inputs_are_compared_in_the_cells_that_have_them():
    """Where inputs were joined, a gene that one of them lacks was compared as if none of its cells expressed it."""
    groups = np.repeat(["T", "B", "T"], [4, 16, 20])
    values = sparse.csr_matrix(np.select([groups == "T"], [5.5], 3.5)[:, None] + np.arange(40)[:, None] % 2)
    values[20:] = 0
    panels = np.repeat([0, 1], 20), np.array([[True], [False]])
    assert top_features(values, ["CD3E"], groups) == {"T": [], "B": ["CD3E"]}
    assert top_features(values, ["CD3E"], groups, panels=panels) == {"T": ["CD3E"], "B": []}


def test_a_single_group_has_no_markers():
    assert top_features(np.ones((4, 2)), ["x", "y"], ["0"] * 4) == {"0": []}
