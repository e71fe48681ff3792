import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scfusionttt.data.cohort import Cohort, cohort_of, cramers_v, warn_if_confounded
from scfusionttt.errors import InputDataError, LabelError

OBS = pd.DataFrame({
    "donor": np.repeat(["d2", "d1", "d3"], 40), "lane": np.tile([1, 2], 60), "one": "a",
    "type": np.repeat(["T", "B", "T"], 40), "barcode": [f"c{n}" for n in range(120)],
}, index=[f"cell-{n}" for n in range(120)])  # fmt: skip


def test_levels_are_numbered_through_all_keys():
    cohort = Cohort.of(OBS, ["donor", "lane"])
    assert cohort.levels == {"donor": ("d1", "d2", "d3"), "lane": ("1", "2")}
    assert cohort.n_levels == 5
    np.testing.assert_array_equal(cohort.codes(OBS)[[0, 41, 119]], [[1, 3], [0, 4], [2, 4]])
    assert Cohort.from_dict(cohort.to_dict()) == cohort


def test_levels_are_the_same_whatever_the_dtype():
    cohort = Cohort.of(OBS, "lane")
    for dtype in (float, str, "category"):
        np.testing.assert_array_equal(cohort.codes(OBS.astype({"lane": dtype})), cohort.codes(OBS))


def test_without_keys_there_are_no_codes():
    assert Cohort().codes(OBS).shape == (120, 0)


def with_missing(obs):
    return obs.assign(donor=obs["donor"].where(np.arange(len(obs)) > 2))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("doner", None, r"no obs\['doner'\]; did you mean 'donor'\? columns that could be batches: donor"),
        (OBS["donor"], None, r"batches are chosen by the name of an obs column, not passed as a Series"),
        (7, None, r"there is no obs\['7'\]"),
        ("one", None, r"obs\['one'\] has a single batch \(a\); leave batch_key out"),
        ("barcode", None, r"obs\['barcode'\] has 120 batches in 120 cells, 120 of them with fewer than 20"),
        ("donor", with_missing, r"obs\['donor'\] is missing in 3 of 120 cells \(cell-0, cell-1, cell-2\); fill it in"),
    ],
)
def test_a_column_that_cannot_be_batches_is_refused(key, change, message):
    with pytest.raises((InputDataError, LabelError), match=message):
        Cohort.of(change(OBS) if change else OBS, key)


def test_a_small_batch_is_warned_of(caplog):
    donors = ["tiny"] * 7 + ["d1"] * 50 + ["d2"] * 63
    Cohort.of(OBS.assign(donor=donors), "donor")
    assert "obs['donor'] has batches of fewer than 20 cells, whose effect can hardly be estimated: tiny (7)" in (
        caplog.text
    )


def test_a_batch_that_the_model_does_not_know_needs_map():
    cohort = Cohort.of(OBS, "donor")
    with pytest.raises(InputDataError, match=r"not trained on: d4; embed these cells with map"):
        cohort.codes(OBS.replace("d3", "d4"))
    with pytest.raises(InputDataError, match=r"not trained on: missing; "):
        cohort.codes(with_missing(OBS))
    with pytest.raises(InputDataError, match=r"no obs\['donor'\], which names the batch .* \(d1, d2, d3\); add it, or"):
        cohort.codes(OBS[["lane"]])


def test_cells_of_a_mapped_batch_have_no_level_in_the_other_keys():
    """The model that had mapped them asked for these columns, and moved cells of known donors."""
    cohort = Cohort.of(OBS, ["donor", "lane"])
    query = OBS.replace({"donor": {"d3": "d4"}})
    larger, new = cohort.extended(query["donor"].to_numpy(), "unused")
    assert list(new) == [3]
    codes = larger.codes(query, query["donor"].to_numpy())
    np.testing.assert_array_equal(codes[[0, 41, 119]], [[1, 4], [0, 5], [3, -1]])
    np.testing.assert_array_equal(larger.codes(query), codes)
    np.testing.assert_array_equal(larger.codes(query[["donor"]].iloc[80:]), codes[80:])
    assert Cohort.from_dict(larger.to_dict()) == larger


def test_queries_without_a_name_are_numbered():
    """The second was taken for the first."""
    cohort = Cohort.of(OBS, "donor")
    for name in ("query", "query 2"):
        assert cohort.unnamed == name
        cohort, _ = cohort.extended(np.array([name] * 3), "unused")
    np.testing.assert_array_equal(cohort.codes(OBS[["lane"]]), 4)


def test_a_reference_without_batches_stays_one():
    """Its cells were taken for those of a query without a name, or refused for having donors of their own."""
    cohort, _ = Cohort().extended(np.array(["query"] * 3), "donor")
    assert (cohort.codes(OBS) == -1).all()
    assert (cohort.codes(OBS[["lane"]]) == -1).all()
    assert cohort.knows(OBS)
    np.testing.assert_array_equal(cohort.codes(OBS.assign(donor="query")), 0)


def test_inputs_of_a_store_that_were_mapped_are_known():
    """Mapping a store without the model's column worked, but the model that it returned refused the store."""
    larger, _ = Cohort.of(OBS, "donor").extended(np.array(["x.h5ad"] * 3), "unused")
    np.testing.assert_array_equal(larger.codes(OBS[["lane"]].assign(store_input="x.h5ad")), 3)


@pytest.mark.parametrize(
    ("obs", "key", "levels", "line"),
    [
        (OBS, None, {}, "obs['donor'] may hold 3 batches; batch_key='donor' removes their effects"),
        (OBS.assign(store_input=OBS["donor"]), None, {"store_input": ("d1", "d2", "d3")}, "inputs of the store"),
        (OBS.assign(store_input="only"), None, {}, "may hold"),
        (OBS.assign(store_input=OBS["donor"]), "lane", {"lane": ("1", "2")}, "2 levels of obs['lane']: 1, 2"),
        (OBS.assign(store_input=OBS["donor"]), [], {}, ""),
        (OBS[["type", "barcode"]], None, {}, ""),
        (OBS[["donor", "donor", "lane"]], None, {}, "obs['lane'] may hold 2 batches"),  # was ValueError: 2
    ],
)
def test_without_a_key_the_inputs_of_a_store_are_the_batches(obs, key, levels, line, caplog):
    caplog.set_level(logging.INFO)
    assert cohort_of(SimpleNamespace(obs=obs), key).levels == levels
    assert line in caplog.text
    assert bool(line) == bool(caplog.records)


def test_labels_that_are_confounded_with_batches_are_warned_of(caplog):
    obs, cohort = OBS.assign(copy=OBS["donor"]), Cohort.of(OBS, "donor")
    warn_if_confounded(obs, cohort, "lane", obs["lane"].to_numpy())
    assert not caplog.records
    warn_if_confounded(obs, cohort, "copy", pd.factorize(obs["copy"])[0])
    assert "obs['donor'] and obs['copy'] are confounded (Cramer's V 1.00)" in caplog.text


def test_cramers_v_is_one_for_confounded_and_zero_for_crossed_columns():
    assert cramers_v(OBS["donor"], OBS["donor"]) == pytest.approx(1)
    assert cramers_v(OBS["donor"], OBS["lane"]) == pytest.approx(0)
    assert cramers_v(OBS["donor"], OBS["type"]) == pytest.approx(1)  # every donor has one type
    assert cramers_v(OBS["donor"], OBS["one"]) == 0
