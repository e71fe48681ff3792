"""Training through the public class: stages, splits and labels, and the scores of held-out cells."""

import json
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import accuracy_score, adjusted_rand_score, f1_score

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import count_findings
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import InputDataError, LabelError, SettingError, UserError
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.inputs import check_cells
from support import copied


def test_the_history_has_the_epochs_of_every_stage_that_is_trained(trained, cells, rna_cells, tiny):
    """The closed-form head of the default takes no epochs."""
    assert list(trained.student.history["stage"]) == ["pretrain", "pretrain"]
    settings = tiny | {"finetune": {"classifier": "finetune", "epochs": 2}}
    model = FusionTTT("fast", progress=False, **settings).pretrain(cells).finetune(cells, labels_key="cell_type")
    history = model.transfer(rna_cells, labels_key="cell_type").history
    assert list(history.groupby("stage", sort=False).size().items()) == [
        ("pretrain", 2),
        ("finetune", 2),
        ("transfer", 2),
    ]
    assert np.isfinite(history["train_loss"]).all()


@pytest.mark.parametrize(
    ("stage", "model", "fraction"), [("finetune", "finetuned", 0.75), ("transfer", "student", 0.3)]
)
def test_held_out_metrics_are_those_of_cells_never_trained_on(stage, model, fraction, trained, cells, rna_cells):
    data, model = (cells if stage == "finetune" else rna_cells), getattr(trained, model)
    codes, classes = usable_labels(data.obs, "cell_type")
    _, held_out = stratified_split(codes, fraction=fraction, seed=model.config.seed)
    truth = np.asarray(classes)[codes[held_out]]
    found = model.predict(data)["label"].astype(str).to_numpy()[held_out]
    scores = model.metrics[stage]
    assert (scores["protocol"], scores["n_cells"]) == ("held-out", len(held_out))
    assert scores["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, found))
    assert scores["metrics"]["ARI"] == pytest.approx(adjusted_rand_score(truth, found))
    assert scores["metrics"]["macro_f1"] == pytest.approx(
        f1_score(truth, found, average="macro", labels=classes, zero_division=0)
    )
    assert {name: row["support"] for name, row in scores["per_class"].items()} == dict(
        zip(*np.unique(truth, return_counts=True))
    )


def test_without_held_out_cells_there_are_no_metrics(trained, cells):
    model = deepcopy(trained.finetuned)
    assert "finetune" in model.metrics
    for fraction in (None, 1.0):
        model.finetune(cells, labels_key="cell_type", train_fraction=fraction)
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
    model = deepcopy(trained.pretrained).finetune(data, labels_key="cell_type", split="split")
    scores = model.metrics["finetune"]
    assert set(scores["per_class"]) == set(model.classes) - {kinds.iloc[0]}
    assert scores["n_cells"] == (data.obs["split"] == "test").sum()
    json.dumps(model.metrics, allow_nan=False)
    model.save(tmp_path / "model")


def test_unlabelled_cells_are_neither_learned_nor_scored(trained, cells):
    data = copied(cells)
    data.obs["part"] = data.obs["cell_type"].astype(str).where(np.arange(160) < 80, "unknown")
    model = deepcopy(trained.pretrained).finetune(data, labels_key="part", train_fraction=0.5)
    assert "unknown" not in model.classes
    assert model.metrics["finetune"]["n_cells"] == 40
    assert len(model.predict(data)) == 160


@pytest.mark.parametrize(
    ("options", "message", "error"),
    [
        ({"train_fraction": 0.0}, "between 0 and 1", SettingError),
        ({"train_fraction": 1.5}, "between 0 and 1", SettingError),
        ({"train_fraction": 0.5, "split": "split"}, "not both", SettingError),
        ({"split": "one_class"}, "fewer than two classes", LabelError),
        ({"split": "nowhere"}, "no obs\\['nowhere'\\]", LabelError),
    ],
)
def test_a_split_that_cannot_be_learned_from_is_refused(options, message, error, trained, cells):
    data = copied(cells)
    kinds = data.obs["cell_type"].astype(str)
    data.obs["one_class"] = np.where(kinds == kinds.iloc[0], "train", "test")
    with pytest.raises(error, match=message):
        deepcopy(trained.pretrained).finetune(data, labels_key="cell_type", **options)


def test_the_smallest_training_share_has_a_cell_of_each_class(trained, cells):
    model = deepcopy(trained.pretrained).finetune(cells, labels_key="cell_type", train_fraction=0.001)
    assert model.metrics["finetune"]["n_cells"] == 157


def test_a_fine_tuned_model_learns_other_labels(trained, cells):
    data = copied(cells)
    data.obs["coarse"] = np.where(data.obs["cell_type"].astype(str).str.contains("T"), "T cell", "other")
    model = deepcopy(trained.finetuned).finetune(data, labels_key="coarse", train_fraction=0.5)
    assert model.classes == sorted(data.obs["coarse"].unique())
    assert set(model.metrics["finetune"]["per_class"]) == set(model.classes)
    assert list(model.predict(data)) == ["label", "probability", *model.classes]


def test_transfer_returns_a_student_and_leaves_the_teacher(trained, rna_cells, cells):
    teacher = deepcopy(trained.finetuned)
    before = teacher.embed(cells), teacher.predict(cells)
    teacher.transfer(rna_cells, labels_key="cell_type")
    teacher.transfer(rna_cells)
    np.testing.assert_array_equal(teacher.embed(cells), before[0])
    pd.testing.assert_frame_equal(teacher.predict(cells), before[1])
    assert teacher.stage == "finetune"


def test_zero_shot_transfer_warns_of_cells_of_one_type(trained, rna_cells, caplog):
    """Scaled by themselves, monocytes are no longer monocytes: 13 % of the names were right, by predict 99 %."""
    trained.finetuned.transfer(rna_cells)
    assert "annotate" not in caplog.text
    trained.finetuned.transfer(rna_cells[rna_cells.obs["cell_type"] == "CD4 memory T"].copy())
    assert "% of the cells get another type because transfer scales genes by these cells" in caplog.text


def test_zero_shot_needs_classes(trained, rna_cells):
    with pytest.raises(SettingError, match="run finetune first"):
        trained.pretrained.transfer(rna_cells)
    with pytest.raises(SettingError, match="run finetune first"):
        trained.pretrained.predict(rna_cells)


def test_data_given_to_the_constructor_are_told_where_to_go(cells):
    """It said that there was no preset of that name, and printed the whole object."""
    with pytest.raises(SettingError, match=r"takes the name of a preset, not MuData; .*pretrain\(data\)$"):
        FusionTTT(cells)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("train", r"pretrain\(data\)"), ("setup_mudata", "no set-up"), ("get_latent_representation", r"embed\(data\)")],
)
def test_methods_of_scvi_tools_get_a_hint(name, hint):
    for owner in (FusionTTT, FusionTTT()):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; use .*{hint}"):
            getattr(owner, name)
        with pytest.raises(AttributeError, match=r"no attribute 'embet'$"):
            _ = owner.embet


def test_arguments_of_scvi_tools_get_a_hint(cells):
    for call in (lambda: FusionTTT(max_epochs=3), lambda: FusionTTT().pretrain(cells, max_epochs=3)):
        with pytest.raises(SettingError, match=r"'max_epochs'; use FusionTTT\(pretrain={'epochs': 10}\)"):
            call()
    with pytest.raises(SettingError, match="there is no argument 'colour'; use one of layer, round, rna_modality"):
        FusionTTT().pretrain(cells, colour="red")


def test_each_step_after_training_is_named(trained, cells, tiny, caplog):
    """The bar stood at 100 % for minutes while they ran."""
    data = copied(cells)
    data.obs["some"] = data.obs["cell_type"].astype(str).where(np.arange(160) >= 9, "unknown")
    with caplog.at_level("INFO", "scfusionttt"):
        model = FusionTTT("fast", progress=False, **tiny).pretrain(data)
        model.finetune(data, labels_key="some", train_fraction=0.5)
    steps = ["pretrain: fitting latent scaling, principal components and whitening"]
    steps += ["obs['some']: 9 of 160 cells are unlabelled and left out"]
    steps += [f"finetune: fitting the kernel classifier to {model.metrics['finetune']['n_cells'] + 1} cells"]
    steps += [f"scoring {model.metrics['finetune']['n_cells']} held-out cells"]
    assert [text for text in caplog.messages if text in steps] == steps


@pytest.mark.parametrize("method", ["embed", "predict", "finetune"])
def test_a_model_of_cite_seq_reports_that_it_reads_rna_alone(method, trained, cells, rna_cells, caplog):
    """It passed without a word."""
    options = {"labels_key": "cell_type"} if method == "finetune" else {}
    with caplog.at_level("INFO", "scfusionttt"):
        getattr(deepcopy(trained.finetuned), method)(rna_cells, **options)
    assert "proteins: 0 of 8 measured; the model reads RNA alone" in caplog.text
    assert "transfer" not in caplog.text  # even annotate, which names such cells better, advised it
    caplog.clear()
    with caplog.at_level("INFO", "scfusionttt"):
        getattr(deepcopy(trained.finetuned), method)(cells, **options)
        trained.finetuned.transfer(rna_cells).predict(rna_cells)
        trained.finetuned.transfer(rna_cells, labels_key="cell_type").embed(rna_cells)
    assert "RNA alone" not in caplog.text


def test_proteins_that_are_not_read_are_not_said_to_match(trained, cells, caplog):
    """A line on the matched proteins of CITE-seq looked as if `annotate`, `impute` or a student read them."""
    model = trained.finetuned
    with caplog.at_level("INFO", "scfusionttt"):
        model.annotate(cells)
        model.impute(cells)
        model.predict(cells, rna_only=True)
        model.transfer(cells, labels_key="cell_type").predict(cells)
        model.transfer(cells).map(cells)
        trained.student.embed(cells)
    assert "genes: 300 of the model's 300 matched" in caplog.text
    assert "proteins: " not in caplog.text
    with caplog.at_level("INFO", "scfusionttt"):
        model.predict(cells)
    assert "proteins: 8 of the model's 8 matched" in caplog.text


def test_rna_alone_is_enough_for_every_stage(tiny, rna_cells, tmp_path):
    model = FusionTTT("fast", progress=False, **tiny).pretrain(rna_cells)
    assert len(model.features.proteins) == 0
    model.finetune(rna_cells, labels_key="cell_type", train_fraction=0.5)
    student = model.transfer(rna_cells, labels_key="cell_type", train_fraction=0.5)
    student.save(tmp_path / "model")
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "model").embed(rna_cells), student.embed(rna_cells))


def test_a_protein_that_no_cell_measures_is_no_obstacle(tiny, cells, tmp_path):
    data = copied(cells)
    data["prot"].X[:, 2] = np.nan
    model = FusionTTT("fast", progress=False, **tiny).pretrain(data)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "model").embed(data), model.embed(data))


def test_a_single_cell_is_no_obstacle(tiny, cells):
    """It has no principal components: scikit-learn's warning of a division by zero had shown."""
    one = copied(cells[:1])
    assert np.isfinite(FusionTTT("fast", progress=False, **tiny).pretrain(one).embed(cells)).all()


def test_resume_needs_a_folder_to_go_on_from(tiny, cells):
    """Without one it had begun anew, silently."""
    with pytest.raises(SettingError, match="give checkpoints=FOLDER"):
        FusionTTT("fast", progress=False, **tiny).pretrain(cells, resume=True)


def test_checkpoints_may_be_named_by_text(tiny, cells, tmp_path):
    FusionTTT("fast", progress=False, **tiny).pretrain(cells, checkpoints=str(tmp_path / "run"))
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("learn", ["pretrain", "finetune"])
@pytest.mark.parametrize("error", [SettingError, KeyboardInterrupt])
def test_a_model_that_could_not_learn_is_as_it_was(learn, error, trained, cells, monkeypatch):
    """Half-learned or random weights had answered, under the scores of the earlier run."""
    model, options = deepcopy(trained.finetuned), {"labels_key": "other"} if learn == "finetune" else {}
    data = copied(cells)
    data.obs["other"] = np.where(np.arange(len(data.obs)) % 2, "odd", "even")
    expected, scores = model.predict(data), deepcopy(model.metrics)

    def stopped(network, *_):
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(2)
        raise error

    monkeypatch.setattr("scfusionttt.model.stages.train_pretraining", stopped)
    monkeypatch.setattr("scfusionttt.model.stages.train_classifier", stopped)
    with pytest.raises(error):
        getattr(model, learn)(data, **options)
    assert (model.stage, model.metrics, model.classes) == ("finetune", scores, trained.finetuned.classes)
    pd.testing.assert_frame_equal(model.predict(data), expected)
    assert (model.provenance.labelled_cells == trained.finetuned.provenance.labelled_cells).all()


@pytest.mark.parametrize("change", ["labels", "model"])
def test_a_run_goes_on_only_with_its_labels_and_its_model(change, trained, cells, tmp_path):
    """Resumed with renamed labels it had kept the old codes; with another model, the weights of the first."""
    data = copied(cells)
    data.obs["renamed"] = data.obs["cell_type"].astype(str).str[::-1]
    other = deepcopy(trained.pretrained)
    other.config = other.config.with_settings({"finetune.classifier": "finetune", "finetune.epochs": 1})
    with pytest.raises(SettingError, match="fixed by pretraining"):  # a model that could not be loaded was saved
        other.config = other.config.with_settings({"network.width": 64})
    deepcopy(other).finetune(data, labels_key="cell_type", checkpoints=tmp_path)
    if change == "model":
        with torch.no_grad():
            next(other.network.backbone.parameters()).add_(1)
    with pytest.raises(SettingError, match="different settings, cells, labels or model"):
        other.finetune(
            data, labels_key="renamed" if change == "labels" else "cell_type", checkpoints=tmp_path, resume=True
        )


@pytest.mark.parametrize("change", ["columns", "count"])
def test_a_run_goes_on_only_with_its_counts(change, tiny, cells, tmp_path):
    """Resumed on a file with the same names and other counts it had trained on, silently."""
    settings = {**tiny, "pretrain": {"epochs": 1}}
    FusionTTT("fast", progress=False, **settings).pretrain(cells, checkpoints=tmp_path)
    data = copied(cells)
    if change == "columns":
        data["rna"].X = data["rna"].X[:, np.random.default_rng(0).permutation(300)]
    else:
        data["prot"].X[0, 0] += 1
    with pytest.raises(SettingError, match="different settings, cells, labels or model, or of another version"):
        FusionTTT("fast", progress=False, **settings).pretrain(data, checkpoints=tmp_path, resume=True)


def test_reading_and_zero_shot_leave_the_random_numbers_alone(trained, rna_cells, tmp_path):
    trained.finetuned.save(tmp_path / "model")
    before = torch.get_rng_state()
    FusionTTT.load(tmp_path / "model", progress=False).transfer(rna_cells)
    assert torch.equal(torch.get_rng_state(), before)


def test_any_head_can_be_fitted_to_any_pretrained_body(trained, cells, rna_cells, tmp_path):
    model = deepcopy(trained.pretrained)
    model.config = model.config.with_settings({"finetune.classifier": "linear"})
    linear = model.finetune(cells, labels_key="cell_type")
    linear.save(tmp_path / "linear")
    again = FusionTTT.load(tmp_path / "linear", progress=False)
    np.testing.assert_array_equal(again.predict(cells)["probability"], linear.predict(cells)["probability"])
    assert "head.landmarks" not in again.network.state_dict()
    again.config = again.config.with_settings({"finetune.classifier": "kernel"})
    assert "head.landmarks" not in again.transfer(rna_cells).network.state_dict()  # zero-shot keeps the head
    student = again.transfer(rna_cells, labels_key="cell_type")
    assert "head.landmarks" in student.network.state_dict()
    student.save(tmp_path / "student")
    expected = student.predict(rna_cells)["probability"]
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "student").predict(rna_cells)["probability"], expected)


def test_checked_cells_are_not_checked_again(trained, cells, monkeypatch):
    """The counts of one input were checked two or three times."""
    calls = []

    def counted(cite):
        calls.append(cite)
        return count_findings(cite)

    monkeypatch.setattr("scfusionttt.data.validate.count_findings", counted)
    monkeypatch.setattr("scfusionttt.data.assemble.count_findings", counted)
    cite = check_cells(cells)
    assert len(calls) == 1
    trained.finetuned.embed(cite)
    trained.finetuned.predict(cite)
    deepcopy(trained.pretrained).finetune(cite, labels_key="cell_type")
    assert as_citeseq(cite) is cite
    assert len(calls) == 1
    trained.finetuned.embed(cells)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "method", ["pretrain", "build", "finetune", "transfer", "embed", "predict", "impute", "explain"]
)
def test_every_method_that_takes_data_takes_the_input_options(method, trained, cells):
    arguments = {"explain": ("CD3",)}.get(method, ())
    keywords = {"finetune": {"labels_key": "cell_type"}}.get(method, {})
    stage = "pretrained" if method in ("impute", "explain") else "finetuned"
    for option in ({"layer": "nope"}, {"rna_modality": "nope"}, {"protein_modality": "nope"}, {"cells": "nope"}):
        with pytest.raises(UserError, match="nope"):
            getattr(deepcopy(getattr(trained, stage)), method)(cells, *arguments, **keywords, **option)


def test_empty_cells_are_left_out_if_asked(trained, cells):
    data = copied(cells)
    data["rna"].X = sparse.csr_matrix(data["rna"].X.toarray() * (np.arange(160) != 3)[:, None])
    with pytest.raises(InputDataError, match="drop_empty"):
        trained.finetuned.embed(data)
    assert len(trained.finetuned.embed(data, drop_empty=True)) == 159
    assert cells.obs_names[3] not in trained.finetuned.predict(data, drop_empty=True).index
    with pytest.raises(InputDataError, match="cannot write results into MuData with 160 cells, of which 159 were used"):
        trained.finetuned.embed(data, drop_empty=True, inplace=True)


def test_options_of_anndata_are_refused_for_a_citeseq(trained, cells):
    """They were ignored."""
    with pytest.raises(SettingError, match="layer='counts' cannot be used with a CiteSeq"):
        trained.finetuned.embed(as_citeseq(cells), layer="counts")


@pytest.mark.parametrize("baseline", [False, True])
def test_logistic_regression_is_scored_only_if_asked(baseline, trained, cells):
    model = deepcopy(trained.pretrained)
    model.finetune(cells, labels_key="cell_type", train_fraction=0.75, baseline=baseline)
    assert ("logistic_regression" in model.metrics["finetune"]) is baseline


def test_the_baseline_of_a_student_reads_rna_alone(trained, cells):
    """It read the proteins of CITE-seq, too, which made it look better than the student, by 0.80 to 0.66."""
    rna = copied(cells["rna"])
    rna.obs["cell_type"] = cells.obs["cell_type"]
    by_rna, by_both = (
        trained.finetuned.transfer(data, labels_key="cell_type", train_fraction=0.5, baseline=True).metrics["transfer"]
        for data in (rna, cells)
    )
    assert by_both["logistic_regression"] == by_rna["logistic_regression"]


def test_a_student_does_not_compare_its_cells_with_those_of_its_teacher(trained, cells, rna_cells):
    """Without held-back cells it took over the teacher's p-values: as if it had neither learned nor other classes."""
    model = deepcopy(trained.pretrained)
    model.config = model.config.with_settings({"finetune.classifier": "linear"})
    model.finetune(cells, labels_key="cell_type")
    assert len(model.predict(rna_cells, unknown=0.01)) == len(
        model.transfer(rna_cells).predict(rna_cells, unknown=0.01)
    )
    settings = {"classifier": "finetune", "epochs": 1, "validation_fraction": 0.0}
    model.config = model.config.with_settings({"finetune": settings})
    student = model.transfer(rna_cells, labels_key="cell_type")
    with pytest.raises(SettingError, match="cannot detect unknown cells"):
        student.predict(rna_cells, unknown=0.01)
