"""Models that earlier versions wrote still load, and give the same results for the same cells."""

import json
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from scfusionttt.config import Config
from scfusionttt.errors import ModelFolderError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.folder import FORMAT_VERSION
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.old_formats import upgraded

MODELS = Path(__file__).parent / "folders"


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_model_of_every_format_predicts_as_it_did(version):
    """`tools/make_model_fixture.py` wrote the folder."""
    folder = MODELS / f"format-{version}"
    with np.load(folder / "cells.npz", allow_pickle=False) as recorded:
        parts = {
            "rna": AnnData(recorded["rna"].astype(np.float32)),
            "prot": AnnData(recorded["protein"].astype(np.float32)),
        }
        parts["rna"].var_names, parts["prot"].var_names = recorded["genes"], recorded["proteins"]
        with quiet():
            cells = MuData(parts)
        if "batch" in recorded:  # from format 6
            cells.obs["batch"] = recorded["batch"]
        model = FusionTTT.load(folder, device="cpu")
        np.testing.assert_allclose(model.embed(cells), recorded["z"], rtol=1e-4, atol=1e-5)
        table = model.predict(cells)
        np.testing.assert_array_equal(table["label"].to_numpy(str), recorded["label"])
        np.testing.assert_allclose(table["probability"], recorded["probability"], atol=1e-5)


def of_format_4(stage="pretrain", **changes):
    """Return settings and sizes of a manifest of format 4 with some settings changed, translated."""
    manifest = json.loads((MODELS / "format-4" / "manifest.json").read_text())
    manifest["stage"] = stage
    for name, value in changes.items():
        section, _, key = name.partition("__")
        manifest["settings"][section][key] = value
    manifest = upgraded(manifest, Path("old"))
    return Config.from_dict(manifest["settings"]), manifest["sizes"]


def test_interlocked_numbers_become_the_choices_that_replaced_them():
    config, sizes = of_format_4("finetune")
    assert sizes == {
        "pool_slots": 1,
        "landmarks": 500,
        "skip_components": 50,
        "protein_landmarks": 0,
        "batch_levels": 0,
        "batch_kinds": 0,
        "protein_batches": 0,
        "placement": False,
    }
    assert (config.network.direction, config.pretrain.objective, config.finetune.classifier) == (
        "both", "bottleneck", "kernel",
    )  # fmt: skip
    masked = {"pretrain__masked_weight": 1, "pretrain__bottleneck_weight": 0, "network__decoder_blocks": 2}
    published = {"network__latent": 0, "network__direction": "forward", "network__causal": True}
    config, _ = of_format_4(**masked, **published, pretrain__alpha=0.7, pretrain__beta=0.3)
    assert (config.network.direction, config.pretrain.objective) == ("causal", "masked")
    assert config.pretrain.alpha == pytest.approx(0.7)
    assert of_format_4(network__direction="forward")[0].network.direction == "forward"
    linear = {"network__landmarks": 0, "network__skip_components": 0}
    assert of_format_4("finetune", **linear)[0].finetune.classifier == "linear"
    assert of_format_4("finetune", **linear, finetune__probe=False)[0].finetune.classifier == "finetune"
    assert of_format_4(pretrain__epochs=None, pretrain__patience=0)[0].pretrain.epochs == "auto"


@pytest.mark.parametrize(
    ("stage", "changes", "reason"),
    [
        ("pretrain", {"network__inner_lr": 0.5}, r"network\.inner_lr other than 1"),
        ("pretrain", {"network__causal": True}, r"network\.causal=true and network\.direction=both"),
        ("pretrain", {"pretrain__bottleneck_weight": 0}, r"pretrain\.bottleneck_weight=0 and network\.latent above 0"),
        ("finetune", {"network__landmarks": 0}, r"network\.landmarks=0 and network\.skip_components above 0"),
    ],
)
def test_a_network_that_can_no_longer_be_built_is_refused_in_one_line(stage, changes, reason):
    with pytest.raises(
        ModelFolderError, match=f"^old: its network has {reason}, which .*use the version that"
    ) as error:
        of_format_4(stage, **changes)
    assert "\n" not in str(error.value)
