"""Settings: frozen dataclasses and presets; `config_text` reads what users write.

A setting is addressed as ``section.key``, on the command line (``--set network.width=128``), in a TOML file and in
Python (``FusionTTT(network={"width": 128})``).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import tomli_w

from scfusionttt.config_text import read_toml as read_toml
from scfusionttt.config_text import require, updated
from scfusionttt.errors import SettingError

Mixer = Literal["ttt", "ttt_mlp", "attention", "none"]
Fusion = Literal["ttt", "attention", "add"]
Direction = Literal["both", "alternate", "forward"]
Order = Literal["genome", "reverse", "shuffled", "expression", "list"]
Scale = Literal["shrunk", "per_feature", "global", "none"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From raw counts to the values that the network reads."""

    #: Most variable genes that become features; None (``all``): every gene.
    n_genes: int | None = 4000
    #: Order of the tokens; ``list`` reads names, one a line, from ``order_file``.
    order: Order = "genome"
    order_file: str | None = None
    #: Seed of ``order=shuffled``; the other orders do not look at it.
    order_seed: int = 0
    #: Counts per cell after library-size normalisation, before log1p.
    target_sum: float = 1e4
    #: Divided by the standard deviation to the power 3/4 (genes; proteins are z-scored), by the standard deviation, by
    #: one common scale, or not even centred.
    scale: Scale = "shrunk"
    #: Scaled values are cut at +- clip.
    clip: float = 10.0
    #: Keep isotype controls as features.
    keep_isotypes: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        require(self.n_genes is None or self.n_genes >= 1, "data.n_genes must be at least 1, or all")
        require(self.target_sum > 0, "data.target_sum must be positive")
        require(self.clip > 0, "data.clip must be positive")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network; widths in numbers of units, lengths in numbers of tokens."""

    #: Consecutive genes per token; 1: every gene is a token.
    patch: int = 20
    width: int = 64
    heads: int = 2
    encoder_blocks: int = 1
    #: Of the decoder that rebuilds hidden tokens from visible ones (``pretrain.masked_weight``); 0: there is none.
    decoder_blocks: int = 0
    #: Hidden units of a block's MLP, as a multiple of the width.
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    mixer: Mixer = "ttt"
    fusion: Fusion = "ttt"
    #: Lambda of the paper: weight of the fused part beside the modality's own.
    fusion_weight: float = 1.0
    direction: Direction = "both"
    #: Tokens per inner mini-batch of the TTT layer.
    mini_batch: int = 16
    #: Inside a mini-batch a token sees only tokens before it.
    causal: bool = False
    #: Base learning rate of the TTT layer's inner model.
    inner_lr: float = 1.0
    #: Width of the bottleneck, a part of the fused representation; 0: the mean of the fused tokens, as published.
    latent: int = 32
    #: Learned weighted sums of the tokens that the bottleneck is made from.
    pool_slots: int = 8
    #: Principal components of the genes that stand beside it, with the proteins; 0: it stands alone, as published.
    components: int = 10
    #: Power, 0 to 1, by which directions count less in which neighbouring cells differ; 0: as published.
    whitening: float = 0.75
    #: Landmark cells of the classifier's kernel head; 0: a linear head on z, as published.
    landmarks: int = 1000
    #: Principal components of the genes that the classifier reads by a line, with the proteins; 0: none, as published.
    skip_components: int = 50
    #: Of the matrix products in the blocks; all else, the TTT operator too, is float32. CPUs may be slower in bf16.
    precision: Precision = "float32"
    #: Keep only what goes into a block and compute the rest again in the backward: less memory, more time.
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        for name in ("patch", "width", "heads", "mini_batch", "pool_slots"):
            require(getattr(self, name) >= 1, f"network.{name} must be at least 1")
        for name in ("encoder_blocks", "decoder_blocks", "latent", "landmarks", "components", "skip_components"):
            require(getattr(self, name) >= 0, f"network.{name} must not be negative")
        require(self.mlp_ratio * self.width >= 1, "network.mlp_ratio must leave at least one unit")
        require(self.width % (2 * self.heads) == 0, "network.width must be a multiple of 2 * network.heads")
        require(0 <= self.whitening <= 1, "network.whitening must be in [0, 1]")
        require(0 <= self.dropout < 1, "network.dropout must be in [0, 1)")


#: Times that every training cell is read, however many there are.
LEAST_EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage of training has: length, batches, optimiser and schedule."""

    LEAST_STEPS: ClassVar[int] = 1

    #: Passes over the training cells; None (``none``): as many as ``steps`` need, and at least three.
    epochs: int | None = None
    #: Steps of the optimiser where ``epochs`` is None, so that few cells are not read too few times.
    steps: int = 750
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-4
    #: Share of the steps with linear warm-up, before the cosine.
    warmup: float = 0.125
    #: Stop after so many epochs without a better validation score.
    patience: int = 10
    gradient_clip: float = 1.0
    #: Share of the training cells held back for early stopping.
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        """Refuse lengths and shares that make no sense."""
        section = type(self).__name__.removesuffix("Config").lower()
        require(self.epochs is None or self.epochs >= 1, f"{section}.epochs must be at least 1, or none")
        require(self.batch_size >= 1, f"{section}.batch_size must be at least 1")
        require(self.steps >= self.LEAST_STEPS, f"{section}.steps must be at least {self.LEAST_STEPS}")
        require(self.lr > 0, f"{section}.lr must be positive")
        for name in ("weight_decay", "patience", "gradient_clip"):
            require(getattr(self, name) >= 0, f"{section}.{name} must not be negative")
        shares = (
            "warmup",
            "validation_fraction",
            "mask_ratio",
            "protein_mask_ratio",
            "hide_protein",
            "label_smoothing",
        )
        for name in shares:
            require(0 <= getattr(self, name, 0) < 1, f"{section}.{name} must be in [0, 1)")

    @property
    def has_steps(self) -> bool:
        """Whether there is an optimiser at all."""
        return bool(self.epochs or self.steps)

    def n_epochs(self, n_cells: int) -> int:
        """Return how often the stage reads `n_cells` training cells."""
        return self.epochs or max(LEAST_EPOCHS, math.ceil(self.steps / math.ceil(n_cells / self.batch_size)))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Stage 1: masked tokens of both modalities, no labels."""

    #: Share of RNA tokens and of proteins hidden from each cell. A panel's proteins say little of one another: where
    #: many are hidden, the fused representation learns to do without them.
    mask_ratio: float = 0.5
    protein_mask_ratio: float = 0.2
    #: Weights of the RNA and the protein term (alpha, beta of the paper).
    alpha: float = 0.5
    beta: float = 0.5
    #: Weight of rebuilding hidden tokens from visible ones, and every feature, hidden or not, from the fused
    #: representation alone.
    masked_weight: float = 0.0
    bottleneck_weight: float = 1.0
    #: Scale the fused representation so that RNA and proteins have the same say in its distances.
    balance: bool = True
    #: Share of cells per batch whose proteins are hidden, so that the projection from RNA is learned.
    hide_protein: float = 0.15

    def __post_init__(self) -> None:
        """Refuse to learn nothing."""
        super().__post_init__()
        require(
            max(self.masked_weight, self.bottleneck_weight) > 0,
            "pretrain.masked_weight or pretrain.bottleneck_weight must be positive",
        )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StageConfig):
    """Stage 2: cross-entropy on labelled CITE-seq."""

    LEAST_STEPS: ClassVar[int] = 0

    #: 0: the head alone learns, from all labelled cells at once; training the body gained nothing on real data.
    steps: int = 0
    lr: float = 2e-5
    #: Learning rate of the pretrained body as a share of the head's.
    body_lr_ratio: float = 1.0
    #: Start from the logistic regression of the classes on the representation, instead of from a random head.
    probe: bool = True
    #: Share of tokens hidden from each cell in training.
    mask_ratio: float = 0.15
    #: Weigh classes by 1 / sqrt(cells), so that rare types do not drown.
    class_balance: bool = True
    label_smoothing: float = 0.0
    #: Share of cells per batch whose proteins are hidden, so that the model also names cells by RNA alone.
    hide_protein: float = 0.2


@dataclass(frozen=True, kw_only=True)
class TransferConfig(StageConfig):
    """Stage 3: RNA-only data; RNA encoder and fusion stay as they are."""

    LEAST_STEPS: ClassVar[int] = 0

    #: 0: the head alone learns, and the projection from RNA to the proteins stays that of the reference.
    steps: int = 0
    lr: float = 1e-4
    #: As in stage 2.
    probe: bool = True
    mask_ratio: float = 0.15
    class_balance: bool = True
    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a model."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a seed that some generator could not take, and what is to learn but is not built."""
        require(
            not self.pretrain.masked_weight or self.network.decoder_blocks > 0,
            "pretrain.masked_weight needs network.decoder_blocks of at least 1",
        )
        for name in ("finetune", "transfer"):
            require(
                getattr(self, name).probe or not self.network.landmarks,
                f"{name}.probe=false starts from a random head, which needs network.landmarks=0",
            )
            require(
                getattr(self, name).probe or getattr(self, name).has_steps,
                f"{name}.probe=false starts from a random head, which needs {name}.steps or {name}.epochs to learn",
            )
        require(0 <= self.seed < 2**32, "seed must be a whole number from 0 to 4294967295")

    def with_settings(self, settings: Mapping[str, Any]) -> "Config":
        """Return a copy with settings replaced.

        Parameters
        ----------
        settings
            ``{"section": {"key": value}}`` or ``{"section.key": value}``, mixed at will; values may be text, as
            they come from the command line.

        Raises
        ------
        SettingError
            For a section, key or value that does not exist.
        """
        return updated(self, settings)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON."""
        return asdict(self)

    def to_toml(self) -> str:
        """Return the settings as TOML; None is written as the word ``none``."""
        sections = self.to_dict()
        bare = {key: value for key, value in sections.items() if not isinstance(value, dict)}
        tables = {
            name: {key: "none" if value is None else value for key, value in table.items()}
            for name, table in sections.items()
            if isinstance(table, dict)
        }
        return tomli_w.dumps({**bare, **tables})


def preset(name: str) -> Config:
    """Return a preset by its name; raise SettingError for a name that does not exist."""
    if name not in PRESETS:
        raise SettingError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _paper() -> Config:
    """METHOD of arXiv 2410.13257, with the predecessor's (scMMAE) numbers where the paper gives none."""
    return Config(
        data=DataConfig(n_genes=4000, scale="none"),
        network=NetworkConfig(
            patch=10, width=128, heads=2, encoder_blocks=6, decoder_blocks=4, mlp_ratio=4.0, dropout=0.1,
            direction="forward", causal=True, latent=0, landmarks=0,
            components=0, skip_components=0, whitening=0.0,
        ),
        pretrain=PretrainConfig(
            epochs=500, batch_size=128, lr=2.5e-4, warmup=0.02, mask_ratio=0.15, protein_mask_ratio=0.15,
            alpha=0.7, beta=0.3, masked_weight=1.0, bottleneck_weight=0.0, balance=False,
            hide_protein=0.0, validation_fraction=0.25, patience=5,
        ),
        finetune=FinetuneConfig(
            epochs=100, batch_size=128, lr=2.5e-4, warmup=0.05, patience=5, probe=False, mask_ratio=0.0,
            class_balance=False, label_smoothing=0.0, hide_protein=0.0,
        ),
        transfer=TransferConfig(
            epochs=100, batch_size=128, lr=2.5e-4, warmup=0.05, patience=5, probe=False, mask_ratio=0.0,
            class_balance=False, label_smoothing=0.0,
        ),
    )  # fmt: skip


def _fast() -> Config:
    """A smaller network and shorter pretraining: for a first look and for tests."""
    return Config(
        data=DataConfig(n_genes=2000),
        network=NetworkConfig(width=32, heads=2, latent=16),
        pretrain=PretrainConfig(epochs=8, lr=3e-3),
    )


PRESETS: dict[str, Config] = {
    "default": Config(),
    "paper": _paper(),
    "whole": Config(
        data=DataConfig(n_genes=None),
        network=NetworkConfig(patch=1, width=32, heads=1),
        pretrain=PretrainConfig(epochs=10, batch_size=32),
    ),
    "fast": _fast(),
}
