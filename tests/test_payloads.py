"""Nothing that a user may be given runs code: a file that holds a pickle is refused in one line, or never decoded."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
import zarr

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.folder import HISTORY, MANIFEST, WEIGHTS
from scfusionttt.model.fusionttt import FusionTTT

RESUME = (
    "pretrain cells.h5mu --out new --preset fast --epochs 1 --set network.width=16 --set network.encoder_blocks=1 "
    "--resume"
)
EMBED = "embed cells.h5mu --model model --out z.npy"
PREDICT = "predict cells.h5mu --model model --out t.csv"


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def place(tmp_path, cells, trained, monkeypatch):
    """The folder at work in, two levels down: good cells and a good model."""
    place = tmp_path / "user" / "project"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    with quiet():
        cells.write_h5mu("cells.h5mu")
    trained.finetuned.save("model")
    return place


def as_pickle(name):
    return lambda payload, cells: Path(name).write_bytes(pickle.dumps(payload))


def as_torch(name):
    """Plant what ``torch.load`` unpickled for years: a zip with a pickle in it."""
    return lambda payload, cells: torch.save({"state_dict": payload}, name)


def in_run(plant):
    """Plant in the state of a run that a kill ended just before its model was written."""

    def make(payload, cells):
        settings = {"pretrain": {"epochs": 1}, "network": {"width": 16, "encoder_blocks": 1}}
        FusionTTT("fast", progress=False, **settings).pretrain(cells, checkpoints=Path("new.training"))
        plant(payload, cells)

    return make


def in_manifest(**changes):
    def plant(payload, cells):
        path = Path("model", MANIFEST)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return plant


def in_uns(payload, cells):
    adata = cells["rna"].copy()
    adata.uns["bytes"] = np.frombuffer(pickle.dumps(payload), dtype=np.uint8)
    adata.uns["text"] = pickle.dumps(payload, protocol=0).decode("latin-1")
    adata.write_h5ad("cells.h5mu")


def in_npy(payload, cells):
    with Path("cells.h5mu").open("wb") as file:
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)


def in_zarr(codec):
    """Plant in an array whose description names the codec of pickles, as it is spelt in JSON."""

    def plant(payload, cells):
        Path("cells.h5mu").unlink()
        with quiet():
            anndata.io.write_elem(zarr.open_group("cells.h5mu", zarr_format=2), "/", cells["rna"])  # it knows pickles
        array = Path("cells.h5mu", "uns", "payload")
        array.mkdir(parents=True)
        description = {
            "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C",
            "compressor": None, "filters": [{"id": "pickle", "protocol": 5}],
        }  # fmt: skip
        (array / ".zarray").write_text(json.dumps(description).replace("pickle", codec))
        (array / "0").write_bytes(pickle.dumps([payload, "|O", [1]]))

    return plant


def in_zip(payload, cells):
    with zipfile.ZipFile("cells.h5mu", "w") as archive:
        archive.writestr("../../it ran", b"x")


TO_START_AGAIN = r"{}\.ckpt cannot be read .*; remove new\.training to start again"
REFUSED = {
    "a pickle for the weights": (as_pickle(f"model/{WEIGHTS}"), EMBED, "is damaged"),
    "weights as torch saves them": (as_torch(f"model/{WEIGHTS}"), EMBED, "is damaged"),
    "a pickle for the manifest": (as_pickle(f"model/{MANIFEST}"), EMBED, "is not readable JSON"),
    "a pickle for the history": (as_pickle(f"model/{HISTORY}"), EMBED, "is damaged"),
    "a stage that is a path": (in_manifest(stage="../../x"), EMBED, "do not fit together"),
    "a pickle for the cells": (as_pickle("cells.h5mu"), EMBED, "not an HDF5 file"),
    "cells as torch saves them": (as_torch("cells.h5mu"), EMBED, "is a zip archive"),
    "an array of objects": (in_npy, EMBED, "not an HDF5 file"),
    "Zarr with a pickle": (in_zarr("pickle"), EMBED, "cells.h5mu has pickled objects, which are never read"),
    "Zarr with a pickle by a character's code": (in_zarr(r"p\u0069ckle"), EMBED, "has pickled objects"),
    "an archive that leads out of its folder": (in_zip, EMBED, "is a zip archive; unpack it first"),
    "a pickle for the last state": (in_run(as_torch("new.training/last.ckpt")), RESUME, TO_START_AGAIN.format("last")),
    "a pickle for the best state": (in_run(as_torch("new.training/best.ckpt")), RESUME, TO_START_AGAIN.format("best")),
    "a pickle for a run's settings": (in_run(as_pickle("new.training/run.json")), RESUME, "with different settings"),
}
USED = {
    "bytes and text of a pickle in uns": (in_uns, EMBED),
    "classes that are paths": (in_manifest(classes=["../../a", "/etc/b", "..\\c"]), PREDICT),
}


@pytest.fixture
def planted(place, cells, scfusionttt):
    """Return a function that plants a payload and runs a command: nothing ran, and nothing lies outside the folder."""
    payload = Payload(place.parents[1] / "it ran")

    def run(plant, command):
        with quiet():
            plant(payload, cells.copy())
        result = scfusionttt(command)
        assert [path for path in place.parents[1].rglob("*") if not path.is_relative_to(place)] == [place.parent]
        return result

    return run


@pytest.mark.parametrize("what", REFUSED)
def test_a_planted_payload_is_refused_unread(what, planted):
    plant, command, message = REFUSED[what]
    result = planted(plant, command)
    assert result.code == 2, result.err
    line = result.err.splitlines()[-1]
    assert line.startswith("scfusionttt: ")
    assert re.search(message, line)


@pytest.mark.parametrize("what", USED)
def test_what_only_looks_like_code_is_read_as_what_it_is(what, planted):
    plant, command = USED[what]
    result = planted(plant, command)
    assert result.code == 0, result.err


def test_the_payload_would_run_if_it_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()
