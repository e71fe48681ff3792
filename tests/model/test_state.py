"""What a model is: its settings, one seed, the same after saving and loading."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from support import run_python

METHODS = {
    "finetune": lambda model, data: model.finetune(data, labels_key="cell_type"),
    "transfer": lambda model, data: model.transfer(data, labels_key="cell_type"),
    "embed": lambda model, data: model.embed(data),
    "predict": lambda model, data: model.predict(data),
    "impute": lambda model, data: model.impute(data),
    "save": lambda model, data: model.save("never-written"),
}


def test_the_constructor_only_stores_settings():
    model = FusionTTT("fast", device="cpu", seed=3, network={"width": 128}, pretrain={"epochs": 1})
    assert (model.config.seed, model.config.network.width, model.config.pretrain.epochs) == (3, 128, 1)
    assert model.config.network.latent == FusionTTT("fast").config.network.latent
    assert (model.stage, model.classes, model.metrics) == (None, [], {})
    assert model.history.empty


@pytest.mark.parametrize("attribute", ["features", "preprocessing", "network"])
def test_an_untrained_model_has_no_features_and_no_network(attribute):
    with pytest.raises(SettingError, match="the model is not trained; run pretrain first"):
        getattr(FusionTTT(), attribute)


def test_a_model_tells_what_it_is_where_a_notebook_shows_it(trained):
    assert repr(FusionTTT()) == "FusionTTT, not trained"
    assert repr(trained.finetuned) == "FusionTTT, stage finetune: 300 genes, 8 proteins, 3 classes, human"


def test_what_a_user_does_to_the_tables_and_lists_of_a_model_leaves_it_as_it_is(trained, cells):
    """Sorting `model.classes` had renamed the classes of all predictions."""
    model, before = deepcopy(trained.finetuned), trained.finetuned.predict(cells)
    model.classes.sort(reverse=True)
    model.features.table.sort_values("name", inplace=True, ignore_index=True)
    model.history.drop(columns="stage", inplace=True)
    model.metrics["finetune"]["metrics"].clear()
    pd.testing.assert_frame_equal(model.predict(cells), before, check_exact=True)
    assert "stage" in model.history and model.metrics["finetune"]["metrics"]


@pytest.mark.parametrize("method", METHODS)
def test_an_untrained_model_says_what_to_do_first(method, cells):
    with pytest.raises(SettingError, match=r"run pretrain first|pretrained model"):
        METHODS[method](FusionTTT(), cells)


def test_one_seed_decides_everything(tiny, trained, cells):
    def run(seed):
        torch.rand(3)  # the caller's random state has no say
        model = FusionTTT("fast", progress=False, seed=seed, **tiny).pretrain(cells)
        model.finetune(cells, labels_key="cell_type", train_fraction=0.75)
        return model.predict(cells)

    pd.testing.assert_frame_equal(run(0), trained.finetuned.predict(cells), check_exact=True)
    assert not np.allclose(run(1)["probability"], trained.finetuned.predict(cells)["probability"])


def test_a_notebook_that_turned_gradients_off_trains_the_same_model(trained, cells, tiny):
    with torch.no_grad():
        model = FusionTTT("fast", progress=False, **tiny).pretrain(cells)
    np.testing.assert_array_equal(model.embed(cells), trained.pretrained.embed(cells))


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
    loaded.finetune(cells, labels_key="cell_type", train_fraction=0.75)
    pd.testing.assert_frame_equal(loaded.predict(cells), trained.finetuned.predict(cells), check_exact=True)


def test_the_same_bits_in_a_fresh_process(trained, cells, tmp_path):
    model = trained.finetuned
    model.save(tmp_path / "model")
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
    code = (
        "import numpy as np, scfusionttt; from scfusionttt.io.read import read; data = read('cells.h5mu');"
        "model = scfusionttt.FusionTTT.load('model'); np.save('z.npy', model.embed(data));"
        "np.save('p.npy', model.predict(data)[model.classes].to_numpy())"
    )
    run_python(code, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), model.embed(cells))
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), model.predict(cells)[model.classes])
