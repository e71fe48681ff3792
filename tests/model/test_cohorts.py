"""Cohorts: the embedding is free of the batches and keeps the cell types."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cohort import Cohort
from scfusionttt.errors import SettingError
from scfusionttt.model.dataset import learn_features, log_staining
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.imputation import require_imputable
from scfusionttt.simulation.simulate import simulate
from support import copied, without_column

ONLY = "CD14 monocyte"


@pytest.fixture(scope="module")
def cohort():
    """Two batches with a strong effect, other compositions, and a type that is in the second alone."""
    return simulate(500, 300, 12, 4, n_batches=2, batch_effect=0.8, composition_shift=0.7, batch_only=ONLY)


@pytest.fixture(scope="module")
def models(cohort):
    """Models without and with the batches."""

    def trained(batch_key):
        model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 4})
        return model.pretrain(cohort, batch_key=batch_key)

    return {"": trained([]), "batch": trained("batch")}


def shares(z, names):
    """Return the share of each cell's 15 neighbours that has the same name as the cell, [n]."""
    neighbours = NearestNeighbors(n_neighbors=15).fit(z).kneighbors(return_distance=False)
    names = np.asarray(names)
    return (names[neighbours] == names[:, None]).mean(axis=1)


def test_types_of_several_batches_are_mixed(models, cohort):
    types = cohort.obs["cell_type"].astype(str)
    shared = (types != ONLY).to_numpy()
    obs = cohort.obs[shared]
    chance = obs.groupby("cell_type", observed=True)["batch"].transform(lambda b: b.map(b.value_counts(normalize=True)))
    own = {
        key: shares(model.embed(cohort)[shared], obs["batch"]).mean() / chance.astype(float).mean()
        for key, model in models.items()
    }
    assert own[""] > 1.3
    assert own["batch"] < 1.15


def test_cells_of_a_batch_of_rna_alone_mix_with_others(cohort):
    """Their proteins are predicted and vary less, so that almost all of their neighbours were of their own batch."""
    cite = as_citeseq(cohort)
    alone = (cite.obs["batch"] == "batch 2").to_numpy()
    proteins = cite.protein.copy()
    proteins.X = np.where(alone[:, None], np.nan, np.asarray(proteins.X, dtype=np.float32))
    cite = replace(cite, protein=proteins)
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 4})
    model.pretrain(cite, batch_key="batch")
    unmatched = deepcopy(model)
    unmatched.network.backbone.correction.rna_only.zero_()
    shared = (cite.obs["cell_type"] != ONLY).to_numpy()
    own = [shares(each.embed(cite)[shared], alone[shared])[alone[shared]].mean() for each in (unmatched, model)]
    chance = alone[shared].mean()
    assert own[1] - chance < 0.7 * (own[0] - chance)
    measured = cite[~alone]
    np.testing.assert_array_equal(model.embed(measured), unmatched.embed(measured))
    model.finetune(cite, labels_key="cell_type")
    unmatched.finetune(cite, labels_key="cell_type")
    pd.testing.assert_frame_equal(model.predict(cite), unmatched.predict(cite))  # heads read values without this noise


def test_batches_are_removed_from_the_published_readout(cohort):
    """The preset paper took batch_key and left the effects in its embedding, since it has no bottleneck to scale.

    Without the type of one batch alone, which two epochs do not tell from the others.
    """
    shared = copied(cohort[(cohort.obs["cell_type"] != ONLY).to_numpy()])
    small = {"width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
    model = FusionTTT("paper", progress=False, network=small, pretrain={"epochs": 2, "lr": 3e-3})
    corrected = model.pretrain(shared, batch_key="batch").embed(shared)
    model.network.backbone.correction.shifts.zero_()
    batch = shared.obs["batch"].to_numpy(str)
    with_effects, without = (shares(z, batch).mean() for z in (model.embed(shared), corrected))
    assert without < with_effects - 0.06


def test_a_type_of_one_batch_is_not_merged_with_others(models, cohort):
    only = (cohort.obs["cell_type"] == ONLY).to_numpy()
    assert shares(models["batch"].embed(cohort), only)[only].mean() > 0.95


def test_types_are_kept(models, cohort):
    kept = {key: shares(model.embed(cohort), cohort.obs["cell_type"]).mean() for key, model in models.items()}
    assert kept["batch"] > kept[""] - 0.02


def test_cells_of_any_batch_are_denoised(models, cohort):
    """The decoders do not read batches, but cells of a new donor were refused."""
    new, none = copied(cohort[:40]), without_column(cohort[:40], "batch")
    new.obs["batch"] = "new"
    first, second = (models["batch"].denoise(cells) for cells in (new, none))
    np.testing.assert_array_equal(first.X, second.X)
    first, second = (models["batch"].explain(cells, "CD3", n_cells=20, steps=2, masked=2) for cells in (new, none))
    pd.testing.assert_frame_equal(first, second)


def test_a_batch_that_stains_otherwise_is_denoised_and_explained_in_the_scale_of_the_model(models, cohort):
    """Cells were read as if all batches stained like the mean cell, in a scale that the network never saw."""
    cells, model = copied(cohort[:40]), deepcopy(models["batch"])
    rows, state = (cells.obs["batch"] == "batch 2").to_numpy(), model._state
    expected = model.denoise(cells, units="counts"), model.explain(cells, "CD3", n_cells=40, steps=2, masked=2)
    factors = np.where(rows, 8, 1)[:, None]
    cells["prot"].X *= factors
    staining = state.preprocessing.staining + np.log([[1], [8]])
    model._state = replace(state, preprocessing=replace(state.preprocessing, staining=staining))
    denoised = model.denoise(cells, units="counts")
    np.testing.assert_allclose(denoised.X, expected[0].X, rtol=1e-4, atol=1e-4)
    protein = "protein_denoised"
    np.testing.assert_allclose(denoised.obsm[protein], expected[0].obsm[protein] * factors, rtol=1e-3, atol=1e-3)
    explained = model.explain(cells, "CD3", n_cells=40, steps=2, masked=2)
    pd.testing.assert_frame_equal(explained, expected[1], rtol=1e-3)


def test_a_cell_and_its_batch_decide_the_embedding(models, cohort):
    some = copied(cohort[::7])
    np.testing.assert_allclose(models["batch"].embed(some), models["batch"].embed(cohort)[::7], atol=1e-4)


def test_the_classifier_reads_the_corrected_latent(models, cohort, tmp_path):
    models["batch"].save(tmp_path / "model")
    model = FusionTTT.load(tmp_path / "model").finetune(cohort, labels_key="cell_type", train_fraction=0.5)
    assert model.metrics["finetune"]["metrics"]["macro_f1"] > 0.9
    np.testing.assert_array_equal(model.embed(cohort), models["batch"].embed(cohort))


def test_proteins_of_any_batch_are_imputed(models, cohort):
    """Imputation reads RNA alone, but asked for `map` if it did not know the batch."""
    other, none = copied(cohort), without_column(cohort, "batch")
    other.obs["batch"] = "batch 3"
    expected = models["batch"].impute(cohort)
    for cells in (other, none):
        pd.testing.assert_frame_equal(models["batch"].impute(cells), expected)


def test_a_protein_that_a_batch_lacks_does_not_tell_it(cohort):
    partial = copied(cohort)
    partial["prot"].X[np.ix_((cohort.obs["batch"] == "batch 1").to_numpy(), [0, 3])] = np.nan
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 2})
    model.pretrain(partial, batch_key="batch")
    kept = model.network.backbone.correction.kept.numpy()[-12:]
    names = model.features.proteins["name"].to_numpy()
    assert set(names[kept == 0]) == set(partial["prot"].var_names[[0, 3]])


def test_a_protein_that_some_batch_lacks_is_imputed_with_the_staining_of_a_batch_alone(models, cohort, caplog):
    """Its values changed, and a line said that they had not."""
    model = deepcopy(models["batch"])
    model.network.backbone.correction.kept[-1] = 0
    staining = np.where(np.arange(12) == 11, [[-1], [1]], 0)
    model._state = replace(model._state, preprocessing=replace(model.preprocessing, staining=staining))
    with caplog.at_level("INFO", logger="scfusionttt"):
        average, second = (model.impute(cohort, transform_batch=batch) for batch in (None, "batch 2"))
    name = average.columns[-1]
    assert f"imputed with the staining of the batch alone, since some batch lacks them: {name}" in caplog.messages
    np.testing.assert_allclose(np.expm1(second[name]), np.e * np.expm1(average[name]).clip(lower=0), atol=1e-4)


def test_proteins_are_imputed_as_measured_in_a_batch(models, cohort):
    """Types of one batch, imputed for the other, are nearer to those measured there."""
    model, types = models["batch"], cohort.obs["cell_type"].astype(str)
    counts = cohort["prot"].to_df()[model.features.proteins["name"]]
    measured = np.log1p(counts / np.exp(model.preprocessing.log_geometric_mean))
    first = (cohort.obs["batch"] == "batch 1").to_numpy()
    common = types.isin(
        [name for name, n in types.groupby(first).value_counts().unstack(0).min(axis=1).items() if n > 9]
    )
    wanted = measured[~first & common].groupby(types[~first & common]).mean()

    def error(imputed):
        means = imputed[first & common].groupby(types[first & common]).mean()
        return float(((means - wanted.loc[means.index]) ** 2).mean(axis=None))

    average, other = model.impute(cohort), model.impute(cohort, transform_batch="batch 2", intervals=True)
    assert error(other.mean) < 0.8 * error(average)
    stains = np.exp(model.preprocessing.staining[1])
    np.testing.assert_allclose(
        np.expm1(other.mean[~first]), np.expm1(average[~first]).clip(lower=0) * stains, atol=1e-4
    )  # fmt: skip
    counted = model.impute(cohort, transform_batch="batch 2", intervals=True, units="counts")
    constants = np.exp(model.preprocessing.log_geometric_mean)
    np.testing.assert_allclose(counted.mean, np.expm1(other.mean) * constants, rtol=1e-4, atol=1e-3)
    step = 1e-3 * other.sd  # a deviation is what a small step of the mean becomes, in both units
    slope = (np.expm1(other.mean + step) - np.expm1(other.mean)) * constants / 1e-3
    some = other.mean.to_numpy() > 0.05
    np.testing.assert_allclose(counted.sd.to_numpy()[some], slope.to_numpy()[some], rtol=0.02)
    assert (other.low <= other.mean).to_numpy().all() and (other.low < other.mean).to_numpy().mean() > 0.95
    with pytest.raises(SettingError, match=r"transform_batch='x' is no batch .* choose one of batch 1, batch 2"):
        model.impute(cohort, transform_batch="x")
    with pytest.raises(SettingError, match="this one has no batches"):
        models[""].impute(cohort, transform_batch="batch 1")


def test_a_batch_is_known_by_its_number(models):
    """The batches of a column of numbers are named "1" and "2"; 1 was none of them."""
    state = replace(models["batch"]._trained(), cohort=Cohort({"batch": ("1", "2")}))
    require_imputable(state, intervals=False, units="counts", transform_batch=1)
    with pytest.raises(SettingError, match=r"transform_batch=3 is no batch .* choose one of 1, 2"):
        require_imputable(state, intervals=False, units="counts", transform_batch=3)


def test_too_few_cells_with_proteins_are_the_reason_why_no_batch_is_imputed(models):
    """The name of the batch was called wrong, and the list of those to choose from was empty."""
    state = replace(models["batch"]._trained(), network=deepcopy(models["batch"].network))
    state.network.backbone.protein_head.margins.fill_(np.inf)
    with pytest.raises(SettingError, match=r"cannot impute for a batch: .* too few training cells had proteins"):
        require_imputable(state, intervals=False, units="counts", transform_batch="batch 1")


def test_batches_may_have_several_keys(cohort):
    both = copied(cohort)
    both.obs["lane"] = np.where(np.arange(500) % 3, "a", "b")
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 1})
    z = model.pretrain(both, batch_key=["batch", "lane"]).embed(both)
    assert np.isfinite(z).all()
    shifts = model.network.backbone.correction.shifts
    assert len(shifts) == 4
    some, lane_b = copied(both[:60]), both.obs["lane"][:60] == "b"
    before = model.map(some).cells["p_value"]
    shifts[3] += 10  # p-values did not know the lane
    after = model.map(some).cells["p_value"]
    assert (after[lane_b] == 0).all() and after[~lane_b].equals(before[~lane_b]) and before.mean() > 0.3


def test_balanced_batches_need_batches(cohort):
    model = FusionTTT("fast", progress=False, pretrain={"balance_batches": True})
    with pytest.raises(SettingError, match="balance_batches needs batches: give batch_key"):
        model.pretrain(cohort, batch_key=[])


@pytest.fixture(scope="module")
def studies():
    """Two batches; every antibody stains the second otherwise, up to 30 times."""
    cells = simulate(700, 400, 16, 5, n_batches=2, batch_effect=0.3, composition_shift=0.5, seed=2)
    rows = (cells.obs["batch"] == "batch 2").to_numpy()
    stained = cells["prot"].X[rows] * np.exp(np.random.default_rng(0).normal(0, 1.5, 16))
    cells["prot"].X[rows] = np.random.default_rng(1).poisson(stained)
    return cells, rows


def test_proteins_that_are_zero_in_a_batch_are_warned_of(models, cohort, caplog):
    """The FAQ promised it: zeros filled in for another panel were taken for weak staining without a word."""
    cells, model = copied(cohort), models["batch"]
    first = (cells.obs["batch"] == "batch 1").to_numpy()
    cells["prot"].X[np.ix_(first, [0, 1])] = 0
    cells["prot"].X[np.ix_(~first, [2])] = np.nan
    learn_features(as_citeseq(cells), model.config, None, model.cohort)
    names = cells["prot"].var_names
    assert f"treated as measured: 'batch 1' ({names[0]}, {names[1]}); use NaN" in caplog.text
    caplog.clear()
    model.embed(cells)
    assert "treated as measured" not in caplog.text
    model.map(copied(cells[first]))
    assert f"all counts are zero for 2 proteins ({names[0]}, {names[1]}), treated as measured" in caplog.text
    caplog.clear()
    cells.obs["batch"] = np.where(first, "new 1", "new 2")
    model.map(cells)
    assert f"treated as measured: 'new 1' ({names[0]}, {names[1]}); use NaN" in caplog.text


def test_the_line_on_staining_is_of_the_proteins_that_were_compared(caplog):
    """With 14 of 224 proteins, they stained differently "by a factor of 1.0 in the median and of at most 36"."""
    with caplog.at_level("INFO", logger="scfusionttt"):
        log_staining(np.array([[1.0, -0.5, 0.0, 0.0, 0.0, 0.0], [-1.0, 0.5, 0.0, 0.0, 0.0, 0.0]]))
    assert "by a factor of 4.5 in the median and of at most 7;" in caplog.text


def own_share(z, rows):
    """Return the share of neighbours from the own batch, of the second batch, relative to its share of the cells."""
    nearest = NearestNeighbors(n_neighbors=15).fit(z).kneighbors(z[rows], return_distance=False)[:, 1:]
    return rows[nearest].mean() / rows.mean()


def test_studies_whose_antibodies_stain_differently_mix(studies, monkeypatch):
    """In a PBMC10K and a mosaic 83 % of a mosaic's neighbours were of the mosaic, where 29 % were expected."""
    cells, rows = studies
    settings = {"progress": False, "network": {"width": 16}, "pretrain": {"epochs": 8}}
    models = [FusionTTT("fast", **settings).pretrain(cells, batch_key="batch")]
    monkeypatch.setattr("scfusionttt.data.staining.ERROR", 100.0)  # no difference is believed
    models.append(FusionTTT("fast", **settings).pretrain(cells, batch_key="batch"))
    one_scale, own_scale = (own_share(model.embed(cells), rows) for model in reversed(models))
    assert own_scale < 1.15 < one_scale
    assert np.abs(models[0].preprocessing.staining).max() > 1 and not models[1].preprocessing.staining.any()


def test_a_query_whose_antibodies_stain_differently_lies_among_the_reference(studies, monkeypatch):
    cells, rows = studies
    first, second = copied(cells[~rows]), copied(cells[rows])
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 8}).pretrain(first)
    known, shares = model.embed(first), []
    for error in (0.7, 100.0):
        monkeypatch.setattr("scfusionttt.fitting.new_staining.ERROR", error)
        mapped = model.map(second, batch_key="batch")
        shares.append(own_share(np.vstack([known, mapped.embedding]), np.arange(len(rows)) >= len(known)))
    assert shares[0] < 1.3 < shares[1]
    np.testing.assert_array_equal(mapped.model.embed(first), known)
    again = mapped.model
    np.testing.assert_array_equal(again.embed(second), mapped.embedding)
