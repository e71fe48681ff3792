from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.config import PRESETS, Config, preset, read_toml
from scfusionttt.config.parse import parse_size
from scfusionttt.config.rules import RULES
from scfusionttt.errors import InputFileError, SettingError


def values(config):
    """Return every setting by its full name."""
    sections = config.to_dict()
    seed = sections.pop("seed")
    named = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {**named, "seed": seed}


def test_the_presets_are_those_of_the_contract():
    assert set(PRESETS) == {"default", "paper", "scmmae", "whole", "fast"}
    assert preset("default") == Config()
    assert (preset("whole").network.patch, preset("whole").data.n_genes) == (1, None)


def test_the_paper_preset_has_the_published_numbers():
    paper = preset("paper")
    assert (paper.data.n_genes, paper.network.patch, paper.network.width, paper.network.heads) == (4000, 10, 128, 2)
    assert (paper.network.encoder_blocks, paper.network.decoder_blocks, paper.network.dropout) == (6, 4, 0.1)
    assert (paper.network.direction, paper.pretrain.objective) == ("causal", "masked")
    assert (paper.pretrain.alpha, paper.pretrain.mask_ratio) == (0.7, 0.15)
    assert (paper.pretrain.lr, paper.pretrain.epochs, paper.pretrain.warmup) == (5e-4 * 128 / 256, 500, 10 / 500)
    assert (paper.network.latent, paper.network.components, paper.data.scale) == (0, 0, "none")
    assert (paper.finetune.classifier, paper.finetune.lr, paper.finetune.epochs) == ("finetune", 2.5e-4, 500)
    assert (paper.pretrain.beta2, paper.finetune.beta2) == (0.999, 0.999)
    assert (paper.pretrain.patience, paper.finetune.patience) == (5, 5)
    assert 0.3 * (1 - paper.finetune.validation_fraction) == pytest.approx(0.27)
    baseline = preset("scmmae")
    assert (baseline.network.mixer, baseline.network.fusion) == ("attention", "attention")
    same = {"mixer": "ttt", "fusion": "ttt", "direction": "causal"}
    assert replace(baseline, network=replace(baseline.network, **same)) == paper


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(SettingError, match="no preset 'slow'; choose one of default, paper, scmmae, whole, fast"):
        preset("slow")


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_toml_and_plain_values(name, tmp_path):
    config = preset(name).with_settings({"data.order": "list", "data.order_file": "my genes.txt", "seed": 7})
    (tmp_path / "settings.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config().with_settings(read_toml(tmp_path / "settings.toml")) == config
    assert Config().with_settings(config.to_dict()) == config
    assert Config.from_dict(config.to_dict()) == config


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
        ("pretrain.epochs", "5", 5),
        ("pretrain.epochs", "auto", "auto"),
        ("data.n_genes", "all", None),
        ("data.n_genes", "None", None),
        ("data.n_genes", "500", 500),
        ("data.keep_isotypes", "yes", True),
        ("network.checkpoint_blocks", "False", False),
        ("network.checkpoint_blocks", "0", False),
        ("network.mixer", "attention", "attention"),
        ("data.order_file", "none", None),
    ],
)
def test_text_of_the_command_line_becomes_the_settings_type(name, text, value):
    section, key = name.split(".")
    found = getattr(getattr(Config().with_settings({name: text}), section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network.widht": 3}, "no setting 'network.widht'; did you mean 'network.width'"),
        ({"netwrok.width": 3}, "no setting 'netwrok.width'; did you mean 'network.width'"),
        ({"width": 3}, "no setting 'width'; did you mean 'network.width'"),
        ({"network": {"zzz": 3}}, "no setting 'network.zzz'; choose one of patch, width"),
        ({"pretrain.n_epochs": 3}, "no setting 'pretrain.n_epochs'; did you mean 'pretrain.epochs'"),
        ({"zzz": 3}, "no setting 'zzz'; choose one of data, network"),
        ({"network": 3}, "'network' is a section; set one of its keys: patch, width"),
        ({"network.width.more": 3}, "no setting 'network.width.more'; 'network.width' is not a section"),
        ({"network.width": "wide"}, "network.width must be of type int, not 'wide'"),
        ({"network.width": 6.5}, "network.width must be a whole number, not 6.5"),
        ({"network.width": "inf"}, "network.width must be of type int, not 'inf'"),
        ({"network.dropout": "nan"}, "network.dropout must be a finite number, not 'nan'"),
        ({"network.checkpoint_blocks": "maybe"}, "network.checkpoint_blocks must be true or false, not 'maybe'"),
        ({"network.mixer": "mamba"}, "network.mixer must be one of ttt, ttt_mlp, attention, none, not 'mamba'"),
        ({"network.width": 30}, "network.width must be a multiple of 2 \\* network.heads"),
        ({"network.patch": 0}, "network.patch must be at least 1"),
        ({"network.latent": -1}, "network.latent must not be negative"),
        ({"network.dropout": 1}, "network.dropout must be at least 0 and less than 1"),
        ({"data.n_genes": 0}, "data.n_genes must be at least 1, or all"),
        ({"pretrain.epochs": 0}, "pretrain.epochs must be at least 1, or auto"),
        ({"pretrain.epochs": "none"}, "pretrain.epochs must be of type int or auto, not 'none'"),
        ({"pretrain.patience": 0}, "pretrain.patience must be at least 1"),
        ({"pretrain.alpha": 1.5}, "pretrain.alpha must be between 0 and 1"),
        ({"finetune.lr": -1}, "finetune.lr must be positive"),
        ({"finetune.patience": 0}, "finetune.patience must be at least 1"),
        ({"finetune.mask_ratio": 1.5}, "finetune.mask_ratio must be at least 0 and less than 1"),
        ({"finetune.classifier": "probe"}, "finetune.classifier must be one of kernel, linear, finetune, not 'probe'"),
        ({"pretrain.objective": "masked"}, "pretrain.objective=masked needs network.decoder_blocks above 0"),
        (
            {"pretrain.objective": "masked", "network.decoder_blocks": 1},
            "pretrain.objective=masked needs network.latent=0: it trains no bottleneck",
        ),
        (
            {
                **preset("paper").to_dict(),
                "pretrain": {"objective": "masked", "mask_ratio": 0, "protein_mask_ratio": 0},
            },
            "pretrain.objective=masked needs pretrain.mask_ratio above 0: it rebuilds what is hidden",
        ),
        ({"data.order": "shuffled", "data.order_seed": -1}, "data.order_seed must not be negative"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**45}, "seed must be a whole number from 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(settings, message):
    with pytest.raises(SettingError, match=message) as error:
        Config().with_settings(settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["paper", "scmmae"])
def test_another_objective_than_the_published_leaves_no_decoder_of_tokens(name):
    """It stayed untrained, and what it gave was taken for the reconstruction."""
    assert preset(name).with_settings({"pretrain.objective": "bottleneck"}).network.decoder_blocks == 0
    assert preset(name).with_settings({"network.width": 64}).network.decoder_blocks == 4


def test_only_the_outcome_has_to_make_sense_not_each_step_towards_it():
    """A width of 50 fits one head but not the two of before: saved, such a model could not be loaded again."""
    config = Config().with_settings({"network": {"width": 50, "heads": 1}})
    assert Config().with_settings(config.to_dict()) == config


@given(st.integers(0, 2**32 - 1))
def test_any_seed_in_the_range_is_taken(seed):
    assert Config().with_settings({"seed": str(seed)}).seed == seed


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"width = ", "is not TOML"), (b"\xff\xfe", "is not TOML")]
)
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=f"settings.toml: {message}"):
        read_toml(path)


#: For each setting that some others switch off: the others, and how the message names them.
WITHOUT_EFFECT = [
    ({}, {"data.order_file": "genes.txt"}, "data.order=list"),
    ({"data.order": "reverse"}, {"data.order_seed": 3}, "data.order=shuffled"),
    ({"network.encoder_blocks": 0}, {"network.mixer": "attention"}, "network.encoder_blocks"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.heads": 4}, "network.fusion"),
    ({"network.mixer": "attention", "network.fusion": "attention"}, {"network.direction": "causal"}, "network.fusion"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.mini_batch": 8}, "network.mixer"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.mlp_ratio": 3}, "network.encoder_blocks"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.dropout": 0.5}, "network.encoder_blocks"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.precision": "bf16"}, "network.fusion"),
    ({"network.encoder_blocks": 0, "network.fusion": "add"}, {"network.checkpoint_blocks": True}, "network.fusion"),
    ({"network.fusion_weight": 0}, {"network.fusion": "attention"}, "network.fusion_weight other than 0"),
    ({}, {"network.readout": "summary"}, "network.latent=0"),
    ({}, {"network.decoder_blocks": 2}, "pretrain.objective=masked"),
    ({"pretrain.validation_fraction": 0}, {"pretrain.patience": 3}, "pretrain.validation_fraction above 0"),
    ({}, {"finetune.epochs": 3}, "finetune.classifier=finetune"),
    ({}, {"finetune.batch_size": 3}, "finetune.classifier=finetune"),
    ({}, {"finetune.lr": 3}, "finetune.classifier=finetune"),
    ({}, {"finetune.beta2": 0.9}, "finetune.classifier=finetune"),
    ({"finetune.classifier": "linear"}, {"finetune.patience": 3}, "finetune.classifier=finetune"),
    ({}, {"finetune.validation_fraction": 0.3}, "finetune.classifier=finetune"),
    ({}, {"finetune.mask_ratio": 0.3}, "finetune.classifier=finetune"),
    (
        {"finetune.classifier": "finetune", "finetune.validation_fraction": 0},
        {"finetune.patience": 3},
        "finetune.validation_fraction above 0",
    ),
]


@pytest.mark.parametrize(("others", "given", "need"), WITHOUT_EFFECT)
def test_a_setting_without_effect_is_refused_and_both_settings_are_named(others, given, need):
    """They were ignored in silence: `--set transfer.lr=...` was accepted where nothing was trained."""
    (name,) = given
    for base, settings in ((Config(), {**others, **given}), (Config().with_settings(others), given)):
        with pytest.raises(SettingError, match=f"^{name}=.* has no effect without .*{need}") as error:
            base.with_settings(settings)
        assert "\n" not in str(error.value)


def test_the_list_above_has_every_setting_that_others_switch_off():
    switched_off = {name for rule in RULES for name in rule.settings.split()}
    assert {name for _, given, _ in WITHOUT_EFFECT for name in given} == switched_off
    assert switched_off <= set(values(Config()))


@pytest.mark.parametrize("name", PRESETS)
def test_a_setting_that_stays_as_it_is_needs_no_effect(name):
    """A file with all settings of a preset can be given again, whatever its classifier."""
    config = preset(name)
    assert config.with_settings(config.to_dict()) == config
    assert config.with_settings({"finetune.lr": config.finetune.lr}) == config


def test_a_setting_is_taken_together_with_what_gives_it_an_effect():
    config = Config().with_settings({"finetune.lr": 1e-3, "finetune.classifier": "finetune"})
    assert config.finetune.lr == 1e-3
    config = Config().with_settings({"data": {"order": "list", "order_file": "my genes.txt"}})
    assert config.data.order_file == "my genes.txt"


@pytest.mark.parametrize(("n_cells", "epochs"), [(10, 750), (6400, 8), (10**6, 1)])
def test_automatic_epochs_take_750_steps_and_at_least_one_pass(n_cells, epochs):
    assert Config().pretrain.n_epochs(n_cells) == epochs
    assert preset("fast").pretrain.n_epochs(n_cells) == 8


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GiB", 6 * 2**30), ("4GB", 4 * 10**9), ("1.5 gib", 3 * 2**29), ("500M", 500 * 10**6), ("64KiB", 2**16),
        ("2T", 2 * 10**12), ("123456", 123456), (123456, 123456), ("7B", 7),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["lots", "6 GiB each", "-1", "0", "0GB", "", "6XB", "1e9"])
def test_text_that_is_no_size_is_refused(text):
    with pytest.raises(SettingError, match="must be a size like 6GiB, 4GB or a number of bytes, not"):
        parse_size(text)
