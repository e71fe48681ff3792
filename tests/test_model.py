import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse
from sklearn.metrics import accuracy_score, adjusted_rand_score, f1_score

import scfusionttt
from scfusionttt.data.quiet import quiet
from scfusionttt.data.split import stratified_split, usable_labels
from scfusionttt.errors import LabelError, SettingError
from scfusionttt.model import FusionTTT

METHODS = {
    "finetune": lambda model, data: model.finetune(data, labels="cell_type"),
    "transfer": lambda model, data: model.transfer(data, labels="cell_type"),
    "embed": lambda model, data: model.embed(data),
    "predict": lambda model, data: model.predict(data),
    "impute": lambda model, data: model.impute(data),
    "save": lambda model, data: model.save("never-written"),
}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def assert_untouched(data, before):
    """Hold an AnnData or MuData against a copy of it, down to the counts."""
    assert set(data.obsm) == set(before.obsm)
    assert set(data.uns) == set(before.uns)
    pd.testing.assert_frame_equal(data.obs, before.obs)
    pd.testing.assert_frame_equal(data.var, before.var)
    if isinstance(data, MuData):
        for name in before.mod:
            assert_untouched(data[name], before[name])
        return
    assert list(data.layers) == list(before.layers)
    difference = data.X != before.X
    assert (difference.nnz if sparse.issparse(data.X) else difference.sum()) == 0


def mudata(**modalities):
    with quiet():
        return MuData(modalities)


def copied(data):
    with quiet():
        return data.copy()


def test_the_constructor_only_stores_settings():
    model = FusionTTT("fast", device="cpu", seed=3, network={"width": 128}, pretrain={"epochs": 1})
    assert (model.config.seed, model.config.network.width, model.config.pretrain.epochs) == (3, 128, 1)
    assert model.config.network.latent == FusionTTT("fast").config.network.latent
    assert (model.network, model.features, model.stage, model.classes, model.metrics) == (None, None, None, [], {})
    assert model.history.empty


@pytest.mark.parametrize("method", METHODS)
def test_an_untrained_model_says_what_to_do_first(method, cells):
    with pytest.raises(SettingError, match=r"run pretrain first|pretrained model"):
        METHODS[method](FusionTTT(), cells)


@pytest.mark.parametrize("stage", ["pretrained", "finetuned", "student", "zero_shot"])
def test_every_stage_embeds_each_cell(stage, trained, cells, rna_cells):
    model = getattr(trained, stage)
    for data in (cells, rna_cells):
        z = model.embed(data)
        assert z.shape == (data.n_obs, model.network.backbone.n_latent)
        assert z.dtype == np.float32
        assert np.isfinite(z).all()
        assert len(np.unique(z, axis=0)) == data.n_obs


@pytest.mark.parametrize("stage", ["finetuned", "student", "zero_shot"])
def test_predictions_are_probabilities_and_their_largest(stage, trained, cells, rna_cells):
    model = getattr(trained, stage)
    assert model.classes == sorted(cells.obs["cell_type"].unique())
    for data in (cells, rna_cells):
        table = model.predict(data)
        assert list(table) == ["label", "probability", *model.classes]
        assert list(table.index) == list(data.obs_names)
        close(table[model.classes].sum(axis=1), 1)
        assert (table["label"].astype(str) == table[model.classes].idxmax(axis=1)).all()
        assert (table["probability"] == table[model.classes].max(axis=1)).all()


def test_cells_unlike_any_known_class_are_named_unknown_where_asked_for(trained, cells):
    odd, rng = copied(cells), np.random.default_rng(0)
    for modality in odd.mod.values():  # ten cells whose every gene is swapped for another's
        shuffled = modality.X.toarray() if sparse.issparse(modality.X) else modality.X.copy()
        shuffled[:10] = shuffled[:10][:, rng.permutation(modality.n_vars)]
        modality.X = sparse.csr_matrix(shuffled) if sparse.issparse(modality.X) else shuffled
    table = trained.finetuned.predict(odd, unknown=0.01)
    assert list(table)[:3] == ["label", "probability", "usual"]
    assert (table["label"] == "unknown").equals(table["usual"] <= 0.01)
    assert (table["label"][:10] == "unknown").mean() > 0.5
    assert (table["label"][10:] == "unknown").mean() < 0.2  # told from the few cells held back
    with pytest.raises(SettingError, match=r"give 0\.01"):
        trained.finetuned.predict(odd, unknown=1.5)


def test_the_history_tells_every_stage(trained):
    history = trained.student.history
    assert list(history.groupby("stage", sort=False).size().items()) == [
        ("pretrain", 2),
        ("finetune", 2),
        ("transfer", 2),
    ]
    assert np.isfinite(history["train_loss"]).all()
    assert list(trained.pretrained.history["stage"]) == ["pretrain", "pretrain"]


@pytest.mark.parametrize(
    ("stage", "model", "fraction"), [("finetune", "finetuned", 0.75), ("transfer", "student", 0.3)]
)
def test_held_out_metrics_are_those_of_cells_never_trained_on(stage, model, fraction, trained, cells, rna_cells):
    data, model = (cells if stage == "finetune" else rna_cells), getattr(trained, model)
    codes, classes = usable_labels(data.obs, "cell_type")
    _, held_out = stratified_split(codes, fraction=fraction, seed=model.config.seed)
    truth = np.asarray(classes)[codes[held_out]]
    found = model.predict(data)["label"].astype(str).to_numpy()[held_out]
    told = model.metrics[stage]
    assert (told["protocol"], told["n_cells"]) == ("held-out", len(held_out))
    assert told["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, found))
    assert told["metrics"]["ARI"] == pytest.approx(adjusted_rand_score(truth, found))
    assert told["metrics"]["macro_f1"] == pytest.approx(
        f1_score(truth, found, average="macro", labels=classes, zero_division=0)
    )
    assert {name: row["support"] for name, row in told["per_class"].items()} == dict(
        zip(*np.unique(truth, return_counts=True))
    )


def test_without_held_out_cells_there_are_no_metrics(trained, cells):
    model = deepcopy(trained.finetuned)
    assert "finetune" in model.metrics
    for fraction in (None, 1.0):
        model.finetune(cells, labels="cell_type", train_fraction=fraction)
        assert model.metrics == {}, "the scores of the earlier run are not this one's"


def test_a_student_without_labels_has_no_metrics_of_its_own(trained, rna_cells):
    assert set(trained.student.metrics) == {"finetune", "transfer"}
    assert set(trained.zero_shot.metrics) == {"finetune"}
    assert set(trained.student.transfer(rna_cells).metrics) == {"finetune"}


def test_a_split_by_column_may_leave_a_class_out_of_the_test(trained, cells, tmp_path):
    """No cell of a class held out: nothing to score it by, and nothing that JSON could not hold."""
    data = copied(cells)
    kinds = data.obs["cell_type"].astype(str)
    data.obs["split"] = np.where((np.arange(160) % 2 == 0) & (kinds != kinds.iloc[0]), "test", "train")
    model = deepcopy(trained.pretrained).finetune(data, labels="cell_type", split="split")
    told = model.metrics["finetune"]
    assert set(told["per_class"]) == set(model.classes) - {kinds.iloc[0]}
    assert told["n_cells"] == (data.obs["split"] == "test").sum()
    json.dumps(model.metrics, allow_nan=False)
    model.save(tmp_path / "model")


def test_unlabelled_cells_are_neither_learned_nor_scored(trained, cells):
    data = copied(cells)
    data.obs["part"] = data.obs["cell_type"].astype(str).where(np.arange(160) < 80, "unknown")
    model = deepcopy(trained.pretrained).finetune(data, labels="part", train_fraction=0.5)
    assert "unknown" not in model.classes
    assert model.metrics["finetune"]["n_cells"] == 40
    assert len(model.predict(data)) == 160


@pytest.mark.parametrize(
    ("options", "told", "error"),
    [
        ({"train_fraction": 0.0}, "between 0 and 1", SettingError),
        ({"train_fraction": 1.5}, "between 0 and 1", SettingError),
        ({"train_fraction": 0.5, "split": "split"}, "not both", SettingError),
        ({"split": "one_class"}, "fewer than two classes", LabelError),
        ({"split": "nowhere"}, "no obs\\['nowhere'\\]", LabelError),
    ],
)
def test_a_split_that_cannot_be_learned_from_is_refused(options, told, error, trained, cells):
    data = copied(cells)
    kinds = data.obs["cell_type"].astype(str)
    data.obs["one_class"] = np.where(kinds == kinds.iloc[0], "train", "test")
    with pytest.raises(error, match=told):
        deepcopy(trained.pretrained).finetune(data, labels="cell_type", **options)


def test_the_smallest_training_share_has_a_cell_of_each_class(trained, cells):
    model = deepcopy(trained.pretrained).finetune(cells, labels="cell_type", train_fraction=0.001)
    assert model.metrics["finetune"]["n_cells"] == 157


def test_a_fine_tuned_model_learns_other_labels(trained, cells):
    data = copied(cells)
    data.obs["coarse"] = np.where(data.obs["cell_type"].astype(str).str.contains("T"), "T cell", "other")
    model = deepcopy(trained.finetuned).finetune(data, labels="coarse", train_fraction=0.5)
    assert model.classes == sorted(data.obs["coarse"].unique())
    assert set(model.metrics["finetune"]["per_class"]) == set(model.classes)
    assert list(model.predict(data)) == ["label", "probability", *model.classes]


def test_transfer_returns_a_student_and_leaves_the_teacher(trained, rna_cells, cells):
    teacher = deepcopy(trained.finetuned)
    before = teacher.embed(cells), teacher.predict(cells)
    teacher.transfer(rna_cells, labels="cell_type")
    teacher.transfer(rna_cells)
    np.testing.assert_array_equal(teacher.embed(cells), before[0])
    pd.testing.assert_frame_equal(teacher.predict(cells), before[1])
    assert teacher.stage == "finetune"


def test_zero_shot_needs_classes(trained, rna_cells):
    with pytest.raises(SettingError, match="run finetune first"):
        trained.pretrained.transfer(rna_cells)
    with pytest.raises(SettingError, match="run finetune first"):
        trained.pretrained.predict(rna_cells)


def test_the_callers_object_is_left_alone_unless_asked(trained, cells, rna_cells):
    for data in (copied(cells), copied(rna_cells)):
        before = copied(data)
        trained.finetuned.embed(data)
        trained.finetuned.predict(data)
        deepcopy(trained.pretrained).finetune(data, labels="cell_type")
        trained.finetuned.transfer(data, labels="cell_type")
        FusionTTT("fast", progress=False, **{"pretrain.epochs": 1, "network.width": 16}).pretrain(data)
        assert_untouched(data, before)
        z, table = trained.finetuned.embed(data, inplace=True), trained.finetuned.predict(data, inplace=True)
        np.testing.assert_array_equal(data.obsm["X_fusionttt"], z)
        assert list(data.obs["fusionttt_label"]) == list(table["label"])
        assert list(data.obs["fusionttt_probability"]) == list(table["probability"])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 159))
def test_a_cells_vector_is_its_own(trained, cells, seed, cut):
    """Whatever the order of the cells, the company they come in, and the genes that the model does not know."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(160)
    with quiet():
        rna, protein = cells["rna"][order].copy(), cells["prot"][order].copy()
        strange = pd.DataFrame(index=[f"strange-{i}" for i in range(50)])
        more = AnnData(sparse.csr_matrix(rng.poisson(2.0, (160, 50)).astype(np.float32)), obs=rna.obs, var=strange)
        both = AnnData(sparse.hstack([more.X, rna.X]).tocsr(), obs=rna.obs, var=pd.concat([more.var, rna.var[[]]]))
    data = mudata(rna=both, prot=protein)
    with quiet():
        parts = [data[:cut].copy(), data[cut:].copy()]
    expected = trained.pretrained.embed(cells)[order]
    close(trained.pretrained.embed(data), expected)
    close(np.concatenate([trained.pretrained.embed(part) for part in parts]), expected)


@pytest.mark.parametrize("first", ["rna", "prot"])
def test_modalities_may_have_their_cells_in_different_orders(first, trained, cells):
    """Rows are those of mdata.obs, so that ``mdata.obsm[key] = model.embed(mdata)`` is right."""
    with quiet():
        modalities = {"rna": cells["rna"].copy(), "prot": cells["prot"][::-1].copy()}
    data = mudata(**{name: modalities[name] for name in sorted(modalities, key=lambda name: name != first)})
    expected = pd.DataFrame(trained.pretrained.embed(cells), index=cells.obs_names).loc[data.obs_names]
    close(trained.pretrained.embed(data, inplace=True), expected)
    close(data.obsm["X_fusionttt"], expected)


def test_genes_the_input_lacks_count_as_not_measured(trained, cells):
    """Their values are unknown, which is not zero: half of the cells' counts are gone, and z hardly moves."""
    kept = np.arange(300) % 10 != 0
    with quiet():
        fewer = mudata(rna=cells["rna"][:, kept].copy(), prot=cells["prot"].copy())
    z, found = trained.pretrained.embed(cells), trained.pretrained.embed(fewer)
    assert not np.allclose(z, found)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(z.T, found.T)]) > 0.9


def test_rna_alone_is_enough_for_every_stage(tiny, rna_cells, tmp_path):
    model = FusionTTT("fast", progress=False, **tiny).pretrain(rna_cells)
    assert len(model.features.proteins) == 0
    model.finetune(rna_cells, labels="cell_type", train_fraction=0.5)
    student = model.transfer(rna_cells, labels="cell_type", train_fraction=0.5)
    student.save(tmp_path / "model")
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "model").embed(rna_cells), student.embed(rna_cells))


def test_a_protein_that_no_cell_measures_is_no_obstacle(tiny, cells, tmp_path):
    data = copied(cells)
    data["prot"].X[:, 2] = np.nan
    model = FusionTTT("fast", progress=False, **tiny).pretrain(data)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "model").embed(data), model.embed(data))


def test_imputed_proteins_are_log_ratios(tiny, cells, rna_cells):
    """After some training they lie where ``log1p(count / geometric mean)`` of the training cells lies."""
    model = FusionTTT("fast", progress=False, **tiny | {"pretrain": {"epochs": 8, "lr": 1e-2}}).pretrain(cells)
    table = model.impute(cells)
    assert list(table.index) == list(cells.obs_names)
    assert set(table) == set(cells["prot"].var_names) - {"IgG1_control"}
    counts = pd.DataFrame(cells["prot"].X, cells.obs_names, cells["prot"].var_names)[list(table)]
    ratios = np.log1p(counts / np.exp(np.log1p(counts).mean()))
    assert (table.mean() - ratios.mean()).abs().max() < 0.3
    assert table.corrwith(ratios).mean() > 0.5
    without = model.impute(rna_cells)
    assert without.shape == (90, 8)
    assert np.isfinite(without).all(axis=None)


def test_imputing_needs_decoders_that_know_proteins(trained, tiny, cells, rna_cells):
    with pytest.raises(SettingError, match="fine-tuning drops them"):
        trained.finetuned.impute(cells)
    brief = tiny | {"pretrain": {"epochs": 1}}
    with pytest.raises(SettingError, match="without proteins"):
        FusionTTT("fast", progress=False, **brief).pretrain(rna_cells).impute(cells)
    brief["pretrain"]["bottleneck_weight"] = 0
    with pytest.raises(SettingError, match="bottleneck_weight"):
        FusionTTT("fast", progress=False, **brief).pretrain(cells).impute(cells)


def test_one_seed_decides_everything(tiny, trained, cells):
    def run(seed):
        torch.rand(3)  # the caller's random state has no say
        model = FusionTTT("fast", progress=False, seed=seed, **tiny).pretrain(cells)
        model.finetune(cells, labels="cell_type", train_fraction=0.75)
        return model.predict(cells)

    pd.testing.assert_frame_equal(run(0), trained.finetuned.predict(cells), check_exact=True)
    assert not np.allclose(run(1)["probability"], trained.finetuned.predict(cells)["probability"])


@pytest.mark.parametrize("stage", ["pretrained", "finetuned", "student", "zero_shot"])
def test_a_loaded_model_is_the_saved_one(stage, trained, cells, tmp_path):
    model = getattr(trained, stage)
    model.save(tmp_path / "model")
    loaded = FusionTTT.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.embed(cells), model.embed(cells))
    assert (loaded.config, loaded.stage, loaded.classes) == (model.config, model.stage, model.classes)
    assert loaded.metrics == model.metrics
    pd.testing.assert_frame_equal(loaded.features.table, model.features.table, check_dtype=False)
    pd.testing.assert_frame_equal(loaded.history, model.history, check_dtype=False)


def test_a_loaded_model_learns_on(trained, cells, rna_cells, tmp_path):
    trained.pretrained.save(tmp_path / "model")
    loaded = FusionTTT.load(tmp_path / "model", progress=False)
    loaded.finetune(cells, labels="cell_type", train_fraction=0.75)
    pd.testing.assert_frame_equal(loaded.predict(cells), trained.finetuned.predict(cells), check_exact=True)


def test_the_same_bits_in_a_fresh_process(trained, cells, tmp_path):
    model = trained.finetuned
    model.save(tmp_path / "model")
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
    code = (
        "import numpy as np, scfusionttt; from scfusionttt.data.read import read; data = read('cells.h5mu');"
        "model = scfusionttt.FusionTTT.load('model'); np.save('z.npy', model.embed(data));"
        "np.save('p.npy', model.predict(data)[model.classes].to_numpy())"
    )
    path = os.pathsep.join([str(Path(scfusionttt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), model.embed(cells))
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), model.predict(cells)[model.classes])
