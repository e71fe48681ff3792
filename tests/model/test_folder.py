import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from scfusionttt.errors import ModelFolderError, OutputError
from scfusionttt.model.folder import FORMAT_VERSION, HISTORY, MANIFEST, WEIGHTS
from scfusionttt.model.fusionttt import FusionTTT


@pytest.fixture
def folder(trained, tmp_path):
    trained.finetuned.save(tmp_path / "model")
    return tmp_path / "model"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def test_the_folder_holds_what_another_machine_needs(folder, trained):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["classes"] == trained.finetuned.classes
    assert manifest["metrics"] == trained.finetuned.metrics
    assert (manifest["stage"], manifest["seed"], manifest["species"]) == ("finetune", 0, "human")
    assert {"python", "scfusionttt", "torch"} <= set(manifest["versions"])
    assert [feature["order"] for feature in manifest["features"]] == list(range(308))
    gene = next(feature for feature in manifest["features"] if feature["name"] == "CD3E")
    assert (gene["modality"], gene["gene_id"], gene["chromosome"]) == ("rna", "ENSG00000198851", "11")
    assert (folder / HISTORY).read_text().startswith("stage,epoch,seconds,")


def test_nothing_in_the_folder_can_run_code(folder):
    assert sorted(content(folder)) == [HISTORY, MANIFEST, WEIGHTS]
    for data in content(folder).values():
        assert not data.startswith((b"\x80", b"PK")), "neither a pickle nor a zip of pickles"
    json.loads((folder / MANIFEST).read_text())
    load_file(folder / WEIGHTS)


def test_a_save_replaces_an_earlier_model_only_if_asked(folder, trained, cells):
    """A model of 8 epochs was replaced by one of 1 epoch without a word."""
    before = content(folder)
    with pytest.raises(OutputError, match=r"is a model already; .* pass overwrite=True to replace it"):
        trained.pretrained.save(folder)
    assert content(folder) == before
    trained.pretrained.save(folder, overwrite=True)
    np.testing.assert_array_equal(FusionTTT.load(folder).embed(cells), trained.pretrained.embed(cells))
    assert FusionTTT.load(folder).stage == "pretrain"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("other", ["notes.txt", "assets/logo.png"])
def test_a_folder_with_more_than_a_model_is_left_alone(other, folder, trained):
    """Any folder with a manifest.json had been replaced whole: a browser extension, a model with notes in it."""
    (folder / other).parent.mkdir(exist_ok=True)
    (folder / other).write_text("mine")
    with pytest.raises(OutputError, match="other content and is not overwritten"):
        trained.pretrained.save(folder, overwrite=True)
    assert (folder / other).read_text() == "mine"


def test_a_manifest_of_something_else_is_left_alone(folder, trained):
    (folder / MANIFEST).write_text('{"name": "an extension"}')
    with pytest.raises(OutputError, match="not overwritten"):
        trained.pretrained.save(folder, overwrite=True)


def test_a_model_without_history_can_be_read(tiny, cells, tmp_path):
    """Stage 2 without stage 1 has no epoch by default; its folder could be written, but never read."""
    model = FusionTTT("fast", progress=False, **tiny).build(cells)
    model.save(tmp_path / "model")
    loaded = FusionTTT.load(tmp_path / "model")
    assert loaded.history.empty
    loaded.save(tmp_path / "again")


def test_a_failing_save_leaves_the_earlier_model_whole(folder, trained, monkeypatch):
    before = content(folder)
    broken = replace(trained.finetuned._state, metrics={"finetune": float("nan")})
    monkeypatch.setattr(trained.finetuned, "_state", broken)
    with pytest.raises(ValueError, match="JSON"):
        trained.finetuned.save(folder, overwrite=True)
    assert content(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_full_disk_leaves_the_earlier_model_whole(folder, trained, full_disk):
    before = content(folder)
    with full_disk(), pytest.raises(OutputError, match=r"was not written: .*; nothing was changed"):
        trained.pretrained.save(folder, overwrite=True)
    assert content(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_signal_between_the_two_renames_leaves_the_earlier_model_whole(folder, trained, monkeypatch):
    """Python raises a signal that arrives during a system call when the call returns."""
    before, rename = content(folder), os.replace

    def interrupted(source, target):
        monkeypatch.setattr(os, "replace", rename)
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained.pretrained.save(folder, overwrite=True)
    assert content(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def drop(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def wipe(name):
    return lambda folder: (folder / name).write_bytes(b"")


def declare_huge(folder):
    """Declare a tensor of 10^12 numbers, for which there are no bytes."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)


def without_a_weight(folder):
    weights = load_file(folder / WEIGHTS)
    weights.pop("head.bias")
    save_file(weights, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such model folder; use one"),
        (drop(MANIFEST), "manifest.json is missing; copy the whole"),
        (drop(WEIGHTS), "weights.safetensors is missing; copy the whole"),
        (drop(HISTORY), "history.csv is missing; copy the whole"),
        (cut(MANIFEST), "is not readable JSON"),
        (wipe(MANIFEST), "is not readable JSON"),
        (cut(WEIGHTS), "is damaged"),
        (wipe(WEIGHTS), "is damaged"),
        (wipe(HISTORY), "is damaged"),
        (lambda folder: (folder / MANIFEST).write_text("[1]"), "not a model of scfusionttt"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "is not readable JSON"),
        (lambda folder: rewrite(folder, format_version="1"), "not a model of scfusionttt"),
        (lambda folder: rewrite(folder, format_version=FORMAT_VERSION + 1), f"newer than {FORMAT_VERSION}.*; update"),
        (lambda folder: (folder / MANIFEST).write_text('{"format_version": 1}'), "lacks stage, settings"),
        (declare_huge, "is damaged"),
        (without_a_weight, "do not fit together"),
        (lambda folder: rewrite(folder, classes=["one"]), "do not fit together"),
        (lambda folder: rewrite(folder, settings={"network": {"width": 32}}), "do not fit together"),
        (lambda folder: rewrite(folder, settings={"network": {"shape": 32}}), "do not fit together"),
        (lambda folder: rewrite(folder, settings=3), "do not fit together"),
        (lambda folder: rewrite(folder, stage="dreaming"), "do not fit together"),
        (lambda folder: rewrite(folder, features=[]), "do not fit together"),
        (lambda folder: rewrite(folder, preprocessing={}), "do not fit together"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(damage, message, folder):
    damage(folder)
    with pytest.raises(ModelFolderError, match=message) as caught:
        FusionTTT.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
