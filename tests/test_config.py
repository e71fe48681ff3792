from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.config import PRESETS, Config, preset, read_toml
from scfusionttt.errors import InputFileError, SettingError


def test_the_presets_are_those_of_the_contract():
    assert set(PRESETS) == {"default", "paper", "whole", "fast"}
    assert preset("default") == Config()
    assert (preset("whole").network.patch, preset("whole").data.n_genes) == (1, None)


def test_the_paper_preset_has_the_published_numbers():
    paper = preset("paper")
    assert (paper.data.n_genes, paper.network.patch, paper.network.width, paper.network.heads) == (4000, 10, 128, 2)
    assert (paper.network.encoder_blocks, paper.network.decoder_blocks, paper.network.dropout) == (6, 4, 0.1)
    assert (paper.pretrain.alpha, paper.pretrain.beta, paper.pretrain.mask_ratio) == (0.7, 0.3, 0.15)
    assert (paper.pretrain.lr, paper.pretrain.epochs, paper.pretrain.warmup) == (5e-4 * 128 / 256, 500, 10 / 500)
    assert (paper.network.latent, paper.pretrain.bottleneck_weight, paper.data.scale) == (0, 0, "none")


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(SettingError, match="no preset 'slow'; choose one of default, paper, whole, fast"):
        preset("slow")


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_toml_and_plain_values(name, tmp_path):
    config = preset(name).with_settings({"data.order": "list", "data.order_file": "my genes.txt", "seed": 7})
    (tmp_path / "settings.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config().with_settings(read_toml(tmp_path / "settings.toml")) == config
    assert Config().with_settings(config.to_dict()) == config


def test_settings_are_frozen_and_changing_them_gives_a_copy():
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.network.width = 3
    assert config.with_settings({"network.width": 128}).network.width == 128
    assert config == Config()


def test_settings_by_section_and_by_dotted_name_mix_and_the_later_wins():
    config = Config().with_settings({"network": {"width": 32, "patch": 3}, "network.width": 128, "seed": 4})
    assert (config.network.width, config.network.patch, config.seed) == (128, 3, 4)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("network.width", "128", 128),
        ("network.width", "1e2", 100),
        ("pretrain.lr", "3e-4", 3e-4),
        ("pretrain.lr", "1", 1.0),
        ("data.n_genes", "all", None),
        ("data.n_genes", "None", None),
        ("data.n_genes", "500", 500),
        ("data.keep_isotypes", "yes", True),
        ("network.causal", "False", False),
        ("network.causal", "0", False),
        ("network.mixer", "attention", "attention"),
        ("data.order_file", "a b.txt", "a b.txt"),
        ("data.order_file", "none", None),
    ],
)
def test_text_of_the_command_line_becomes_the_settings_type(name, text, value):
    section, key = name.split(".")
    found = getattr(getattr(Config().with_settings({name: text}), section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"network.widht": 3}, "no setting 'network.widht'; did you mean 'network.width'"),
        ({"netwrok.width": 3}, "no setting 'netwrok.width'; did you mean 'network.width'"),
        ({"width": 3}, "no setting 'width'; did you mean 'network.width'"),
        ({"network": {"zzz": 3}}, "no setting 'network.zzz'; choose one of patch, width"),
        ({"pretrain.LEAST_STEPS": 3}, "no setting 'pretrain.LEAST_STEPS'; choose one of epochs, steps"),
        ({"zzz": 3}, "no setting 'zzz'; choose one of data, network"),
        ({"network": 3}, "'network' is a section; set one of its keys: patch, width"),
        ({"network.width.more": 3}, "no setting 'network.width.more'; 'network.width' is not a section"),
        ({"network.width": "wide"}, "network.width must be of type int, not 'wide'"),
        ({"network.width": 6.5}, "network.width must be a whole number, not 6.5"),
        ({"network.width": "inf"}, "network.width must be of type int, not 'inf'"),
        ({"pretrain.weight_decay": "nan"}, "pretrain.weight_decay must be a finite number, not 'nan'"),
        ({"network.causal": "maybe"}, "network.causal must be true or false, not 'maybe'"),
        ({"network.mixer": "mamba"}, "network.mixer must be one of ttt, ttt_mlp, attention, none, not 'mamba'"),
        ({"network.width": 30}, "network.width must be a multiple of 2 \\* network.heads"),
        ({"network.patch": 0}, "network.patch must be at least 1"),
        ({"network.latent": -1}, "network.latent must not be negative"),
        ({"network.dropout": 1}, "network.dropout must be in"),
        ({"data.n_genes": 0}, "data.n_genes must be at least 1, or all"),
        ({"data.clip": 0}, "data.clip must be positive"),
        ({"pretrain.epochs": 0}, "pretrain.epochs must be at least 1"),
        ({"finetune.lr": -1}, "finetune.lr must be positive"),
        ({"finetune.patience": -1}, "finetune.patience must not be negative"),
        ({"transfer.mask_ratio": 1.5}, "transfer.mask_ratio must be in"),
        ({"finetune.label_smoothing": 2}, "finetune.label_smoothing must be in"),
        ({"pretrain.masked_weight": 0, "pretrain.bottleneck_weight": 0}, "must be positive"),
        ({"pretrain.masked_weight": 1}, "pretrain.masked_weight needs network.decoder_blocks of at least 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**45}, "seed must be a whole number from 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(settings, told):
    with pytest.raises(SettingError, match=told) as error:
        Config().with_settings(settings)
    assert "\n" not in str(error.value)


def test_only_the_outcome_has_to_make_sense_not_each_step_towards_it():
    """A width of 50 fits one head but not the two of before: saved, such a model could not be loaded again."""
    config = Config().with_settings({"network": {"width": 50, "heads": 1}})
    assert Config().with_settings(config.to_dict()) == config


@given(st.integers(0, 2**32 - 1))
def test_any_seed_in_the_range_is_taken(seed):
    assert Config().with_settings({"seed": str(seed)}).seed == seed


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read"), (b"width = ", "is not TOML"), (b"\xff\xfe", "is not TOML")]
)
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path, content, told):
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=f"settings.toml: {told}"):
        read_toml(path)


@pytest.mark.parametrize("stage", ["finetune", "transfer"])
def test_a_random_head_has_to_learn(stage):
    with pytest.raises(SettingError, match=f"{stage}.probe=false starts from a random head, which needs {stage}.steps"):
        Config().with_settings({"network.landmarks": 0, f"{stage}.probe": False})
    Config().with_settings({"network.landmarks": 0, f"{stage}.probe": False, f"{stage}.epochs": 3})


def test_pretraining_has_steps_and_the_other_stages_need_none():
    assert not Config().finetune.has_steps
    with pytest.raises(SettingError, match=r"pretrain\.steps must be at least 1"):
        Config().with_settings({"pretrain.steps": 0})
