"""Cells with proteins alone: not trained on, and placed among the others by their proteins."""

from copy import deepcopy

import numpy as np
import pytest
from mudata import MuData

from scfusionttt.errors import InputDataError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate
from support import copied


@pytest.fixture(scope="module")
def whole():
    return simulate(240, 300, 12, 3, n_batches=3)


@pytest.fixture(scope="module")
def hidden(whole):
    """Which cells have proteins alone: some of two batches, and the third."""
    third = (whole.obs["batch"] == "batch 3").to_numpy()
    return third | (np.random.default_rng(0).random(whole.n_obs) < 0.2)


def without_rna(mdata, hidden):
    """Return a MuData in which the cells at `hidden` have no RNA."""
    with quiet():
        partial = MuData({"prot": mdata["prot"].copy(), "rna": mdata["rna"][~hidden].copy()})
        partial.obs = mdata.obs.loc[partial.obs_names]
    return partial


@pytest.fixture(scope="module")
def mosaic(whole, hidden):
    return without_rna(whole, hidden)


@pytest.fixture(scope="module")
def model(mosaic, tiny):
    return FusionTTT("fast", progress=False, **tiny).pretrain(mosaic, cells="all", batch_key="batch")


def test_the_others_are_as_without_them(model, mosaic, hidden, tiny):
    other = FusionTTT("fast", progress=False, **tiny).pretrain(mosaic, cells="rna", batch_key="batch")
    expected = other.embed(mosaic, cells="rna")
    np.testing.assert_array_equal(model.embed(mosaic, cells="rna"), expected)
    # Where a cell stands in a batch changes the last bit on some processors.
    np.testing.assert_allclose(model.embed(mosaic, cells="all")[~hidden], expected, rtol=1e-4, atol=1e-6)


def test_they_lie_where_their_rna_would_place_them(model, mosaic, whole, hidden):
    z, both = model.embed(mosaic, cells="all")[hidden], model.embed(whole)[hidden]
    spread = np.linalg.norm(both - both.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(z - both, axis=1).mean() < 0.6 * spread


def test_their_batch_is_corrected_and_needs_no_rna_later(model, mosaic, whole):
    assert model.network.backbone.correction.shifts[2].abs().sum() > 0
    third = (whole.obs["batch"] == "batch 3").to_numpy()
    alone = copied(mosaic[third])
    assert alone["rna"].n_obs == 0
    z = model.embed(mosaic, cells="all")[third]
    np.testing.assert_allclose(model.embed(alone, cells="all"), z, atol=1e-4)
    np.testing.assert_allclose(model.map(alone, cells="all").embedding, z, atol=1e-4)


def test_any_panel_of_five_proteins_places_a_cell(model, mosaic):
    partial = copied(mosaic)
    partial["prot"].X[:, :7] = np.nan
    assert np.isfinite(model.embed(partial, cells="all")).all()
    partial["prot"].X[:, :8] = np.nan
    with pytest.raises(InputDataError, match="fewer than 5 of the model's 12 proteins"):
        model.embed(partial, cells="all")


def test_what_other_methods_say_of_them(model, mosaic, whole, hidden, tmp_path):
    imputed = model.impute(mosaic, cells="all")
    np.testing.assert_array_equal(imputed.isna().all(axis=1), hidden)
    genes = model.denoise(mosaic, cells="all")[hidden].X
    measured = np.log1p(whole["rna"][hidden][:, model.features.genes["name"]].X.toarray())
    assert np.corrcoef(genes.mean(axis=0), measured.mean(axis=0))[0, 1] > 0.9
    _, track = model.embed(mosaic, cells="all", surprise=True)
    np.testing.assert_array_equal(np.isnan(track.X).any(axis=1), hidden)
    model.save(tmp_path / "model")
    typed = FusionTTT.load(tmp_path / "model").finetune(mosaic, cells="all", labels_key="cell_type")
    for refine in (False, True):
        label = typed.predict(mosaic, cells="all", refine=refine)["label"].astype(str).to_numpy()
        assert (label == whole.obs["cell_type"].astype(str).to_numpy())[hidden].mean() > 0.9


def test_what_cannot_place_them(model, mosaic, whole, trained, tiny):
    nobody, few = without_rna(whole, np.arange(240) >= 0), without_rna(whole, np.arange(240) >= 10)
    for cells, reason in (
        (nobody, "no cell has RNA, and proteins alone cannot be trained on"),
        (few, "10 cells have both RNA and proteins, too few to place the 230"),
    ):
        with pytest.raises(InputDataError, match=reason):
            FusionTTT("fast", **tiny).pretrain(cells, cells="all")
    with pytest.raises(InputDataError, match="a student of transfer reads RNA alone"):
        trained.student.embed(mosaic, cells="all")
    earlier = deepcopy(model)
    earlier.network.backbone.placement = None
    with pytest.raises(InputDataError, match="like all of earlier versions"):
        earlier.embed(mosaic, cells="all")
    learned, rna = deepcopy(model), whole["rna"].copy()
    rna.obs = whole.obs
    learned.config = learned.config.with_settings({"finetune": {"classifier": "finetune", "epochs": 1}})
    with pytest.raises(InputDataError, match="learned labels of fewer than 20 cells with proteins"):
        learned.finetune(rna, labels_key="cell_type").embed(mosaic, cells="all")
    by_rna = FusionTTT("fast", **tiny).build(whole["rna"])
    with pytest.raises(
        InputDataError, match="this model was trained without proteins; leave them out with cells='rna'"
    ):
        by_rna.embed(mosaic, cells="all")
