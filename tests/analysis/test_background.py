"""Positive and negative calls of proteins whose background and expression are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from mudata import MuData

from scfusionttt import background
from scfusionttt.analysis.protein_mixture import ProteinMixture
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet

NAMES = ["CD3", "CD4", "CD19", "CD14", "CD56", "CD45", "CD34", "Mouse IgG1 isotype", "Hashtag 1"]
LEVELS = np.array([3.0, 10.0, 0.5, 25.0, 2.0, 30.0, 4.0, 1.0, 50.0])


@pytest.fixture(scope="module")
def known():
    """400 cells with a depth each, 300 empty droplets; all cells have CD45, none has CD34."""
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.1, 0.15, 0.05, 1.0, 0.0, 0.0, 0.5])
    has = rng.random((400, len(NAMES))) < share
    depth = rng.lognormal(0, 0.3, (400, 1))
    fold = np.where(has, rng.lognormal(np.log(12), 0.4, has.shape), 1.0)
    cells = rng.negative_binomial(10, 10 / (10 + depth * LEVELS * fold))
    droplets = rng.negative_binomial(20, 20 / (20 + np.tile(LEVELS, (300, 1))))
    with quiet():
        return SimpleNamespace(cells=_proteins(cells, "c"), empty=_proteins(droplets, "e"), has=has[:, :7])


def _proteins(counts, prefix):
    names = [f"{prefix}{i}" for i in range(len(counts))]
    return AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=NAMES))


def test_calls_agree_with_what_cells_have(known):
    calls = background(known.cells, empty=known.empty)
    assert list(calls.positive) == NAMES[:7]  # neither control nor hashtag
    found = calls.positive.to_numpy()
    assert found[known.has].mean() > 0.93
    assert found[~known.has].mean() < 0.01
    assert (calls.proteins["positive_droplets"] < 0.01).all()
    np.testing.assert_allclose(calls.proteins["background"], LEVELS[:7], rtol=0.15)
    np.testing.assert_array_equal(found, calls.probability >= 0.9)


def test_what_all_cells_have_is_seen_from_empty_droplets_alone(known):
    alone = background(known.cells)
    assert alone.proteins.loc["CD45", "positive"] < 0.2
    assert background(known.cells, empty=known.empty).proteins.loc["CD45", "positive"] > 0.95
    others = [name for name in NAMES[:7] if name != "CD45"]
    differ = alone.positive[others].to_numpy() != known.has[:, [NAMES.index(name) for name in others]]
    assert differ.mean() < 0.02
    assert "positive_droplets" not in alone.proteins


def test_a_higher_count_is_never_less_probable(known):
    mixture = ProteinMixture.fit(known.cells.X, np.arange(9) == 7)
    counts = np.tile(np.median(known.cells.X, axis=0), (60, 1))
    counts[:, 0] = np.arange(60) * 5
    assert (np.diff(mixture.probability(counts)[:, 0]) >= -1e-9).all()


def test_what_was_not_measured_is_neither_positive_nor_probable(known):
    cells = known.cells.copy()
    cells.X[:50, 0] = np.nan
    cells.X[:, 6] = np.nan
    calls = background(cells, empty=known.empty)
    assert calls.probability.iloc[:50, 0].isna().all()
    assert calls.probability["CD34"].isna().all()
    assert not calls.positive.iloc[:50, 0].any()
    share = calls.positive.iloc[50:, 0].mean()
    assert calls.proteins.loc["CD3", "positive"] == pytest.approx(share)
    assert calls.proteins.loc["CD34", ["background", "positive"]].isna().tolist() == [False, True]
    assert background(cells).proteins.loc["CD34"].isna().all()  # without droplets nothing is known of it


def test_cells_without_proteins_have_no_part_in_what_an_empty_droplet_is(known):
    """Their sum counted as 0 in the median of the cells, so that where most lack them, no droplet was empty."""
    lacking = known.cells.copy()
    lacking.obs_names = [f"rna{i}" for i in range(400)]
    lacking.X[:] = np.nan
    with quiet():
        calls = background(concat([known.cells, lacking, lacking[:40]], index_unique="-"), empty=known.empty)
    pd.testing.assert_frame_equal(calls.proteins, background(known.cells, empty=known.empty).proteins, rtol=1e-6)
    with pytest.raises(InputDataError, match="40 cells with proteins are too few"):
        background(concat([known.cells[:40], lacking]))


def test_the_background_is_that_of_cells_with_proteins(known):
    """The cells to fit to were drawn among all: of 400 with proteins among 30,000, it was fitted to 70 or so."""
    counts = np.full((30_000, len(NAMES)), np.nan)
    counts[::75] = known.cells.X
    controls = np.arange(len(NAMES)) == 7
    found, expected = (ProteinMixture.fit(each, controls).background for each in (counts, known.cells.X))
    np.testing.assert_array_equal(found, expected)


def test_cells_are_left_out_of_a_raw_matrix(known):
    nothing = _proteins(np.zeros((500, 9)), "n")
    calls = background(known.cells, empty=concat([known.cells, known.empty, nothing]))
    pd.testing.assert_frame_equal(calls.probability, background(known.cells, empty=known.empty).probability)


def test_proteins_of_a_mudata_and_tables_in_obsm(known):
    rna = AnnData(np.ones((400, 3), np.float32), obs=known.cells.obs, var=pd.DataFrame(index=["A", "B", "C"]))
    with quiet():
        mdata = MuData({"rna": rna, "prot": known.cells[:300].copy()})
    calls = background(mdata, inplace=True)
    assert len(calls.positive) == 300
    written = mdata.obsm["protein_positive"]
    assert list(written.index) == list(mdata.obs_names)
    assert all(pd.api.types.is_bool_dtype(kind) for kind in written.dtypes)
    assert not written.loc["c399"].any()
    assert mdata.obsm["protein_positive_probability"].loc["c399"].isna().all()


@pytest.mark.parametrize("with_rna", [True, False])
def test_a_warning_names_antibodies_of_unknown_type(with_rna, known):
    cells = known.cells.copy()
    cells.var["feature_types"] = ["Antibody Capture"] * 8 + ["Custom"]
    if with_rna:
        genes = AnnData(np.ones((400, 3), np.float32), obs=cells.obs, var=pd.DataFrame(index=["A", "B", "C"]))
        cells = concat([genes, cells], axis="var")
        cells.var["feature_types"] = ["Gene Expression"] * 3 + ["Antibody Capture"] * 8 + ["Custom"]
    with pytest.warns(UserWarning, match=r"left out: 1 of type 'Custom' \(Hashtag 1\)"):
        background(cells, empty=known.empty)


def test_calls_are_not_written_under_names_that_other_cells_have(known):
    """A MuData that was not updated got False in all cells."""
    rna = AnnData(np.ones((400, 3), np.float32), obs=known.cells.obs, var=pd.DataFrame(index=["A", "B", "C"]))
    with quiet():
        mdata = MuData({"rna": rna, "prot": known.cells.copy()})
    mdata["prot"].obs_names = "run1_" + mdata["prot"].obs_names
    with pytest.raises(InputDataError, match=r"was not updated .* call data\.update\(\)"):
        background(mdata, inplace=True)
    assert "protein_positive" not in mdata.obsm


def test_impossible_levels_are_no_error_where_numpy_raises_them(known):
    with np.errstate(all="raise"):
        calls = background(known.cells)
    pd.testing.assert_frame_equal(calls.probability, background(known.cells).probability)


def test_two_antibodies_of_one_name_have_a_column_each(known, tmp_path):
    """Their table could not be written."""
    with quiet():
        cells, empty = (part[:, [0, 0, 1, 2, 7]].copy() for part in (known.cells, known.empty))
    calls = background(cells, empty=empty, inplace=True)
    assert list(calls.positive) == ["CD3", "CD3-1", "CD4", "CD19"]
    assert calls.positive["CD3"].equals(calls.positive["CD3-1"].rename("CD3"))
    with quiet():
        cells.write_h5ad(tmp_path / "calls.h5ad")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 1.5}, SettingError, "threshold must be between 0 and 1"),
        ({"empty": slice(0, 20)}, InputDataError, "20 empty droplets have between 8 and"),
        ({"cells": slice(0, 20)}, InputDataError, "20 cells with proteins are too few"),
        ({"empty_proteins": 5}, InputDataError, "the empty droplets lack 3 of the proteins, such as CD34"),
        ({"proteins": [7]}, InputDataError, "no proteins other than isotype controls"),
    ],
)
def test_mistakes_are_named(options, error, message, known):
    cells = known.cells[options.pop("cells", slice(None)), options.pop("proteins", slice(None))].copy()
    if "empty" in options:
        options["empty"] = known.empty[options["empty"]].copy()
    if "empty_proteins" in options:
        options["empty"] = known.empty[:, : options.pop("empty_proteins")].copy()
    with pytest.raises(error, match=message):
        background(cells, **options)


@pytest.mark.slow
def test_known_types_have_their_proteins(real_data):
    """Of 2,872 blood cells: T and B cells exclude each other's proteins, and empty droplets are negative."""
    import anndata

    data = anndata.read_h5ad(real_data / "pbmc_87adt_droplets.h5ad")
    cell = data.obs["droplet"] == "cell"
    calls = background(data[cell].copy(), empty=data[~cell][:1000].copy())
    positive = calls.positive.rename(columns=lambda name: name.removesuffix("_PROT"))
    t, b = positive["CD3"] & positive["CD5"], positive["CD19"] & positive["CD20"]
    assert t.mean() > 0.45 and b.mean() > 0.1
    assert positive.loc[t, "CD19"].mean() < 0.02 and positive.loc[b, "CD3"].mean() < 0.02
    assert positive["HLA-ABC"].mean() > 0.99
    assert calls.proteins["positive_droplets"].mean() <= 0.01
