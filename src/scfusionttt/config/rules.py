"""Settings that have no effect with the others are refused, not ignored."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from scfusionttt.errors import require

if TYPE_CHECKING:  # which imports this module
    from scfusionttt.config.settings import Config


class Rule(NamedTuple):
    """Settings that need others to have an effect."""

    settings: str  # separated by spaces
    holds: Callable[["Config"], bool]  # whether it gives them an effect
    need: str  # in words


def _has_blocks(config: "Config") -> bool:
    """Whether encoders or decoders have blocks."""
    return config.network.encoder_blocks + config.network.decoder_blocks > 0


def _has_ttt(config: "Config") -> bool:
    """Whether any layer is a TTT layer."""
    return config.network.fusion == "ttt" or (_has_blocks(config) and config.network.mixer in ("ttt", "ttt_mlp"))


def _has_heads(config: "Config") -> bool:
    """Whether any layer mixes tokens."""
    return config.network.fusion != "add" or (_has_blocks(config) and config.network.mixer != "none")


RULES = (
    Rule("data.order_file", lambda c: c.data.order == "list", "data.order=list"),
    Rule(
        "data.order_seed", lambda c: c.data.order in ("shuffled", "chromosomes"), "data.order=shuffled or chromosomes"
    ),
    Rule("network.mixer", _has_blocks, "network.encoder_blocks of at least 1"),
    Rule("network.heads", _has_heads, "network.fusion=ttt or attention, or network.encoder_blocks and a network.mixer"),
    Rule("network.direction network.mini_batch", _has_ttt, "network.fusion=ttt, or network.mixer=ttt in blocks"),
    Rule(
        "network.mlp_ratio network.dropout network.precision network.checkpoint_blocks",
        lambda c: _has_blocks(c) or c.network.fusion != "add",
        "network.encoder_blocks of at least 1, or network.fusion=ttt or attention",
    ),
    Rule("network.fusion", lambda c: c.network.fusion_weight != 0, "network.fusion_weight other than 0"),
    Rule("network.readout", lambda c: c.network.latent == 0, "network.latent=0"),
    Rule("network.decoder_blocks", lambda c: c.pretrain.objective == "masked", "pretrain.objective=masked"),
    Rule("pretrain.patience", lambda c: c.pretrain.validation_fraction > 0, "pretrain.validation_fraction above 0"),
    Rule(
        "finetune.epochs finetune.batch_size finetune.lr finetune.beta2 finetune.patience finetune.validation_fraction "
        "finetune.mask_ratio",
        lambda c: c.finetune.classifier == "finetune",
        "finetune.classifier=finetune",
    ),
    Rule("finetune.patience", lambda c: c.finetune.validation_fraction > 0, "finetune.validation_fraction above 0"),
)


def refuse_other_training(before: "Config", after: "Config") -> None:
    """Raise SettingError if settings that a trained model was pretrained with differ."""
    same = (before.data, before.network, before.pretrain) == (after.data, after.network, after.pretrain)
    require(same, "data.*, network.* and pretrain.* are fixed by pretraining; give them to pretrain")


def refuse_unused(before: "Config", after: "Config") -> None:
    """Raise SettingError if a setting that differs between two Configs has no effect in the second."""
    values = dict(_values(before))
    changed = {name: value for name, value in _values(after) if value != values[name]}
    for rule in RULES:
        for name in rule.settings.split():
            require(
                name not in changed or rule.holds(after),
                f"{name}={changed.get(name)} has no effect without {rule.need}",
            )


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and value of every setting."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _values(value, f"{item.name}.")
        else:
            yield prefix + item.name, value
