import numpy as np
import pandas as pd
import pytest

from comparison_runs import TINY
from scfusionttt.comparison.ablations import Variants, protocol_of
from scfusionttt.comparison.reconstruction import _parts, reconstruction_scores
from scfusionttt.config import preset
from scfusionttt.errors import SettingError
from scfusionttt.model.fusionttt import FusionTTT


def test_each_variant_changes_one_setting(tmp_path):
    variants = Variants(preset("fast"), tmp_path)
    orders = variants.of_study("order")
    assert [method.settings["data"]["order"] for method in orders] == [
        "genome", "reverse", "shuffled", "chromosomes", "family", "expression",
    ]  # fmt: skip
    assert [method.settings["network"] for method in orders] == [orders[0].settings["network"]] * len(orders)
    layers = [
        {name: method.settings["network"][name] for name in ("mixer", "fusion")} for method in variants.of_study("ttt")
    ]
    assert [*map(tuple, map(dict.values, layers))] == [
        ("ttt", "ttt"), ("ttt", "add"), ("none", "ttt"), ("none", "add"), ("attention", "attention"),
    ]  # fmt: skip
    assert variants.of_setting("network.mixer=none")[0].name == "network.mixer=none, network.fusion=ttt"
    assert [method.settings["pretrained"] for method in variants.of_study("stages")] == [True, False, False]
    assert [m.settings["pretrain"]["lr"] for m in variants.of_setting("pretrain.lr=0.001,0.01")] == [0.001, 0.01]
    assert protocol_of("stages", []) == protocol_of(None, ["finetune.lr=1,2"]) == "held-out"
    assert protocol_of("order", []) == protocol_of(None, ["pretrain.lr=1,2"]) == "ablation"


def test_every_order_hides_the_same_features(dataset):
    parts = []
    for order in ("genome", "shuffled"):
        model = FusionTTT("fast", **TINY, **{"data.order": order}).build(dataset.cite)
        table = model.features.table.assign(part=_parts(model, 3), other=_parts(model, 4))
        parts.append(table.set_index(["modality", "name"])[["part", "other"]].sort_index())
    pd.testing.assert_frame_equal(*parts)
    assert not (parts[0]["part"] == parts[0]["other"]).all()


def test_a_trained_model_explains_hidden_values_and_a_random_one_does_not(dataset):
    settings = {"network": {"width": 16, "latent": 8}, "pretrain": {"epochs": 12, "lr": 1e-2}}
    model = FusionTTT("fast", progress=False, **settings).pretrain(dataset.cite[np.arange(120)])
    trained = reconstruction_scores(model, dataset.cite[np.arange(120, 160)], seed=0)
    random = reconstruction_scores(model.build(dataset.cite), dataset.cite[np.arange(120, 160)], seed=0)
    assert trained["hidden_protein_r2"] > 0.1 > random["hidden_protein_r2"]
    assert trained["protein_from_rna_r"] > 0.1


def test_ablations_that_do_not_exist_are_refused():
    variants = Variants(preset("fast"), None)
    with pytest.raises(SettingError, match="no ablation 'size'"):
        variants.of_study("size")
    with pytest.raises(SettingError, match="has no values"):
        variants.of_setting("pretrain.lr=")
