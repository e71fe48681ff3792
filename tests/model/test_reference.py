"""References: built, written with a card, found by name, and used to annotate."""

import json
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

import scfusionttt
from scfusionttt.errors import (
    DownloadError,
    InputDataError,
    LabelError,
    ModelFolderError,
    OutputError,
    SettingError,
)
from scfusionttt.model.annotation import ontology_id
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.reference import About, build, card, find, references, write
from support import copied

ABOUT = About(title="Toy blood", data="simulated", licence="cc0-1.0", tissue="blood")


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "toy"
    write(trained.finetuned, path, ABOUT, {"accuracy": 0.9}, command="scfusionttt reference build toy.h5mu")
    return path


def test_a_reference_is_a_model_folder_with_a_card(folder, trained, cells):
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "manifest.json", "weights.safetensors", "metrics.json", "history.csv",
    }  # fmt: skip
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: scfusionttt\nlicense: cc0-1.0\n")
    assert "Toy blood" in card(folder)
    assert "| accuracy | 0.900 |" in text
    assert json.loads((folder / "metrics.json").read_text()) == {"accuracy": 0.9}
    model = FusionTTT.load(folder, device="cpu")
    expected = trained.finetuned.predict(cells)
    found = model.predict(cells)
    assert (found["label"] == expected["label"]).mean() > 0.98, "weights are rounded to float16"
    np.testing.assert_allclose(model.impute(cells), trained.finetuned.impute(cells), atol=0.02)


def test_annotate_names_cells_and_imputes_their_proteins(folder, trained, cells, rna_cells, caplog):
    query = rna_cells.copy()
    with caplog.at_level("INFO", logger="scfusionttt"):
        annotation = scfusionttt.annotate(query, reference=folder, unknown=0.05, device="cpu")
    assert sum(line.startswith("genes: 300 of") for line in caplog.messages) == 1, "it had been logged twice"
    assert "proteins: " not in caplog.text  # which annotate does not read, whether they were measured or not
    assert list(annotation.cells) == ["label", "probability", "p_value", "ontology_id"]
    is_unknown = annotation.cells["label"] == "unknown"
    assert (is_unknown == (annotation.cells["p_value"] <= 0.05)).all()
    assert (annotation.cells["ontology_id"][is_unknown] == "").all()
    pd.testing.assert_frame_equal(query.obsm["protein_imputed_high"], annotation.proteins.high)
    assert list(query.obs["fusionttt_label"]) == list(annotation.cells["label"])
    assert "fusionttt_ontology_id" in query.obs
    again = FusionTTT.load(folder, device="cpu").annotate(rna_cells, unknown=None)
    assert list(again.cells) == ["label", "probability", "ontology_id"]
    assert "fusionttt_label" not in rna_cells.obs


def test_ontology_ids_belong_to_names_however_they_are_written():
    assert ontology_id("B cells") == ontology_id("b cell") == ontology_id("B") == "CL:0000236"
    assert ontology_id("CD14+ monocytes") == "CL:0001054"
    assert ontology_id("unknown") == ontology_id("cells") == ""


def test_a_reference_is_built_from_labelled_cells(tiny, cells, tmp_path, monkeypatch):
    config = FusionTTT("fast", **tiny).config
    metrics = build(
        cells, tmp_path / "built", ABOUT, labels_key="cell_type", config=config, device="cpu", command="build"
    )
    assert set(metrics) == {"accuracy", "macro_f1", "interval_coverage_same_sample"}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert FusionTTT.load(tmp_path / "built").provenance.commands[-1] == "build"
    monkeypatch.delattr(FusionTTT, "pretrain")  # what is wrong is said before the work
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        build(cells, tmp_path / "mine", ABOUT, labels_key="cell_type", config=config, device="cpu", command="build")
    with pytest.raises(LabelError, match="nope"):
        build(cells, tmp_path / "new", ABOUT, labels_key="nope", config=config, device="cpu", command="build")
    rna = copied(cells["rna"])
    rna.obs["cell_type"] = cells.obs["cell_type"]
    with pytest.raises(InputDataError, match="imputes proteins, and this input has none"):
        build(rna, tmp_path / "new", ABOUT, labels_key="cell_type", config=config, device="cpu", command="build")


def test_the_package_has_a_reference_of_blood():
    assert references() == ["pbmc"]
    assert sum(file.stat().st_size for file in find("pbmc").iterdir()) < 5e6
    model = FusionTTT.load(find("pbmc"), device="cpu")
    assert all(ontology_id(name) for name in model.classes)
    assert len(model.features.proteins) == 14
    assert "/" not in " ".join(model.provenance.commands), "no paths of the machine that built it"


def test_what_is_no_reference_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"no reference 'lung'; choose pbmc, a model folder or hf://owner/name"):
        find("lung")
    with pytest.raises(ModelFolderError, match="has no card"):
        card(tmp_path)
    with pytest.raises(SettingError, match="is not an address on the Hub"):
        FusionTTT.load("hf://owner")


def test_a_reference_is_fetched_from_the_hub(folder, monkeypatch):
    calls = []

    def snapshot_download(name, *, revision, allow_patterns):
        calls.append((name, revision))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    model = FusionTTT.load("hf://immuno/blood@v1.2", device="cpu")
    assert calls == [("immuno/blood", "v1.2")]
    assert model.classes

    for error, reason in ((OSError("no network"), "no network"), (TimeoutError(), "TimeoutError")):
        unreachable = SimpleNamespace(snapshot_download=Mock(side_effect=error))
        monkeypatch.setitem(sys.modules, "huggingface_hub", unreachable)
        with pytest.raises(DownloadError, match=rf"hf://immuno/blood: cannot be downloaded \({reason}\)"):
            FusionTTT.load("hf://immuno/blood")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SettingError, match=r"scfusionttt\[hub\]"):
        FusionTTT.load("hf://immuno/blood")
