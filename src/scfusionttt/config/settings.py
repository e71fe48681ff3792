"""The settings as frozen dataclasses.

The comment above a setting documents it: its unit in brackets, then when to change it. The page
``docs/reference/settings.md`` is generated from these comments.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import tomli_w

from scfusionttt.config.parse import updated
from scfusionttt.config.rules import refuse_unused
from scfusionttt.errors import require

Mixer = Literal["ttt", "ttt_mlp", "attention", "none"]
Fusion = Literal["ttt", "attention", "add"]
Direction = Literal["both", "alternate", "forward", "causal"]
Order = Literal["genome", "reverse", "shuffled", "chromosomes", "family", "expression", "list"]
Readout = Literal["mean", "summary"]
Scale = Literal["shrunk", "per_feature", "global", "none"]
Precision = Literal["float32", "bf16"]
Objective = Literal["bottleneck", "masked"]
Classifier = Literal["kernel", "linear", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the architecture that are not settings; a model folder keeps those that its network was built with."""

    #: Learned weighted sums of the tokens that feed the bottleneck and the protein projection.
    pool_slots: int = 8
    #: Landmark cells of the kernel head.
    landmarks: int = 1000
    #: Principal components of the genes that the kernel head's PCA skip reads; 0: no skip.
    skip_components: int = 50
    #: Landmark cells of the protein head; 0: none.
    protein_landmarks: int = 0
    #: Levels of the first batch key of which the protein head knows which proteins they have.
    protein_batches: int = 0
    #: Whether cells without RNA can be placed by their proteins.
    placement: bool = False
    #: Levels of all batch keys together, and kinds of cells with batch effects of their own; no kinds: no correction.
    batch_levels: int = 0
    batch_kinds: int = 0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From raw counts to the values that the network reads."""

    #: Most variable genes that become features, or ``all`` [genes]. Lower it to save memory and time; raise it when
    #: markers of small populations are missing.
    n_genes: int | None = 4000
    #: Order of the tokens. ``genome``: by position; ``reverse``: from the end; ``shuffled``: at random;
    #: ``chromosomes``: at random within each chromosome; ``family``: by gene family, as the symbols name it;
    #: ``expression``: highest first. Change it to study the effect of order, or to ``list`` to bring your own.
    order: Order = "genome"
    #: Text file with one feature name per line, read by ``data.order=list`` [path]. Features that it lacks go last.
    order_file: str | None = None
    #: Seed of ``data.order=shuffled`` and ``chromosomes`` [integer]. Change it to draw another order.
    order_seed: int = 0
    #: How log-normalised values are scaled. ``shrunk``: genes are divided by their standard deviation to the power
    #: 3/4 and proteins are z-scored; ``per_feature``: all are z-scored; ``global``: centred and divided by one common
    #: standard deviation; ``none``: neither centred nor scaled, as published. Change it to compare with other methods.
    scale: Scale = "shrunk"
    #: Keep isotype controls as features. Set it to true when they are of interest themselves.
    keep_isotypes: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        require(self.n_genes is None or self.n_genes >= 1, "data.n_genes must be at least 1, or all")
        require(self.order_seed >= 0, "data.order_seed must not be negative")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network: encoders, fusion, representation."""

    #: Consecutive genes per token [genes]. 1 makes every gene a token: finer, but slower and larger in memory.
    patch: int = 40
    #: Width of a token [units], a multiple of ``2 * network.heads``. Raise it for very large data.
    width: int = 64
    #: Heads of each mixer [heads]. Change it together with ``network.width``.
    heads: int = 2
    #: Blocks of each modality's encoder [blocks]. Raise it for very large data; time grows in proportion.
    encoder_blocks: int = 1
    #: Blocks of the decoders that rebuild masked tokens [blocks]. Set it for ``pretrain.objective=masked``.
    decoder_blocks: int = 0
    #: Hidden units of a block's MLP [multiples of the width]. Change it with the depth, to keep the size of the model.
    mlp_ratio: float = 2.0
    #: Dropout in the blocks [fraction]. Raise it when the validation loss rises while the training loss falls.
    dropout: float = 0.0
    #: The layer that mixes tokens in encoders and decoders, but not in the fusion; ``none``: each token stays alone
    #: there. Change it together with ``network.fusion`` to compare TTT with attention, or with neither (``none`` and
    #: ``add``).
    mixer: Mixer = "ttt"
    #: How each modality reads the other; ``add``: its mean is added, without a layer. Change it together with
    #: ``network.mixer``.
    fusion: Fusion = "ttt"
    #: Weight of the fused part relative to the modality's own, lambda of the paper [ratio]. 0 turns fusion off.
    fusion_weight: float = 1.0
    #: How TTT layers read the tokens: in ``both`` directions, ``alternate`` ones from block to block (the same as
    #: ``forward`` with one block), or ``forward``; ``causal``: forward, and a token sees only earlier tokens of its own
    #: mini-batch, too, as published. All but ``both`` take less time.
    direction: Direction = "both"
    #: Tokens per inner mini-batch of a TTT layer [tokens]. Larger ones take less time and more memory.
    mini_batch: int = 16
    #: Width of the bottleneck [units]; 0: the mean of the fused tokens takes its place, as published. Raise it for many
    #: cell types, lower it for few cells.
    latent: int = 32
    #: What stands for a cell with ``network.latent=0``. ``mean``: the mean of the fused tokens of each modality;
    #: ``summary``: a learned token at the end of each sequence, averaged over the modalities, as in scMMAE. Change it
    #: to compare with the published method, which leaves it open.
    readout: Readout = "mean"
    #: Principal components of the genes that the embedding adds to the bottleneck, together with the proteins
    #: [components]; 0: the bottleneck alone, as published. Set it to 0 to study the network on its own.
    components: int = 10
    #: How strongly directions of the embedding are scaled down in which neighbouring cells differ [power, 0 to 1]; 0:
    #: not at all, as published, and noise of counting is kept. Lower it to keep gradual differences within a cell type.
    whitening: float = 0.75
    #: Precision of the matrix products in the blocks; everything else is float32. ``bf16`` pays off on GPUs, on CPUs
    #: with ``amx_bf16`` and, in wide networks, with ``avx512_bf16``.
    precision: Precision = "float32"
    #: Keep only the input of each block and compute the rest again in the backward pass. Set it to true when training
    #: does not fit into memory; it takes about a third more time.
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        for name in ("patch", "width", "heads", "mini_batch"):
            require(getattr(self, name) >= 1, f"network.{name} must be at least 1")
        for name in ("encoder_blocks", "decoder_blocks", "latent", "components"):
            require(getattr(self, name) >= 0, f"network.{name} must not be negative")
        require(self.mlp_ratio * self.width >= 1, "network.mlp_ratio must leave at least one unit")
        require(self.width % (2 * self.heads) == 0, "network.width must be a multiple of 2 * network.heads")
        require(0 <= self.whitening <= 1, "network.whitening must be between 0 and 1")
        require(0 <= self.dropout < 1, "network.dropout must be at least 0 and less than 1")

    @property
    def has_summary(self) -> bool:
        """Whether each modality has a summary token."""
        return self.latent == 0 and self.readout == "summary"


#: ``epochs=auto`` trains for about this many steps, so that small data sets are read more often, but at least so many
#: epochs.
AUTO_STEPS, LEAST_EPOCHS = 750, 1


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What pretraining and fine-tuning share."""

    section: ClassVar[str] = "stage"

    #: Passes over the training cells [epochs]; ``auto``: about 750 steps, but at least one pass. Set it to limit the
    #: time.
    epochs: int | Literal["auto"] = "auto"
    #: Cells per step of the optimiser [cells]. Raise it with the number of devices.
    batch_size: int = 64
    #: Peak learning rate of AdamW [unitless]. Lower it when the loss becomes NaN; raise it for short runs.
    lr: float = 2e-3
    #: Decay of AdamW's running mean of squared gradients, beta 2 [fraction]; 0.999 as published. Raise it when the loss
    #: is noisy.
    beta2: float = 0.95
    #: Epochs without a lower validation loss after which training stops [epochs]. Lower it to save time.
    patience: int = 10
    #: Fraction of the training cells held back for early stopping [fraction]; 0: none, and the last epoch is kept.
    #: Set it to 0 when every cell counts.
    validation_fraction: float = 0.1
    #: Fraction of the RNA tokens that are hidden from each cell during training [fraction]. Raise it to regularise
    #: more.
    mask_ratio: float = 0.5
    #: Fraction of the cells per batch whose proteins are all hidden, so that the model works from RNA alone, too
    #: [fraction]. Set it to 0 if every cell, also of later data, has proteins.
    hide_protein: float = 0.15

    def __post_init__(self) -> None:
        """Refuse lengths and fractions that make no sense."""
        section = self.section
        require(self.epochs == "auto" or self.epochs >= 1, f"{section}.epochs must be at least 1, or auto")
        for name in ("batch_size", "patience"):
            require(getattr(self, name) >= 1, f"{section}.{name} must be at least 1")
        require(self.lr > 0, f"{section}.lr must be positive")
        for name in ("warmup", "validation_fraction", "mask_ratio", "protein_mask_ratio", "hide_protein", "beta2"):
            require(0 <= getattr(self, name, 0) < 1, f"{section}.{name} must be at least 0 and less than 1")

    def n_epochs(self, n_cells: int) -> int:
        """Return the number of passes over `n_cells` training cells."""
        if self.epochs != "auto":
            return self.epochs
        return max(LEAST_EPOCHS, round(AUTO_STEPS / math.ceil(n_cells / self.batch_size)))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Stage 1: learn the representation, without labels."""

    section: ClassVar[str] = "pretrain"

    #: What is learned. ``bottleneck``: every feature is rebuilt from the bottleneck; ``masked``: hidden tokens are
    #: rebuilt from visible ones, as published, which needs ``network.decoder_blocks`` and ``network.latent=0``.
    objective: Objective = "bottleneck"
    #: Fraction of the steps with linear warm-up of the learning rate, before its cosine decay [fraction]. Raise it when
    #: the loss jumps at the start.
    warmup: float = 0.125
    #: Fraction of the proteins that are hidden from each cell [fraction]. Keep it low for small panels, whose proteins
    #: say little about one another: with many hidden, the network learns to do without them.
    protein_mask_ratio: float = 0.2
    #: Draw the cells of small batches more often: the batches of the first batch key share the training in proportion
    #: to the square roots of their sizes, not to their sizes. Set it to true when one of many donors has few cells.
    balance_batches: bool = False
    #: Weight of the RNA loss; proteins get ``1 - alpha`` [fraction]. Raise it when the proteins are few or noisy.
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a weight that is not a fraction."""
        super().__post_init__()
        require(0 <= self.alpha <= 1, "pretrain.alpha must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StageConfig):
    """Stages 2 and 3: learn cell types, on CITE-seq (fine-tuning) and on RNA alone (transfer)."""

    section: ClassVar[str] = "finetune"

    #: How cell types are learned. ``kernel``: a kernel head is fitted, and the pretrained network stays as it is;
    #: ``linear``: the same with logistic regression on the latent; ``finetune``: the network and a random linear head
    #: are trained by gradient descent, as published (in a transfer, the head and the projection from RNA to proteins).
    #: Change it to compare with the published method.
    classifier: Classifier = "kernel"
    lr: float = 2.5e-4
    #: Fraction of the tokens, RNA and proteins, that are hidden from each cell during training [fraction]. Raise it to
    #: regularise more.
    mask_ratio: float = 0.15
    #: Weight classes by 1 / sqrt(cells), so that rare types count more. Set it to false to maximise accuracy alone.
    class_balance: bool = True
    #: Weight of each cell as seen by RNA alone or, with ``finetune.classifier=finetune``, fraction of the cells per
    #: batch whose proteins are hidden [fraction]; a transfer does without. Raise it if most cells to classify have no
    #: proteins.
    hide_protein: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a model."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    #: Seed of initial weights, batches, masks and splits [integer]. Repeat a run with several seeds to see how much
    #: depends on chance.
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a seed that some generator cannot take, and a network that the objective cannot train."""
        if self.pretrain.objective == "masked":
            require(self.network.decoder_blocks > 0, "pretrain.objective=masked needs network.decoder_blocks above 0")
            no_bottleneck = "pretrain.objective=masked needs network.latent=0: it trains no bottleneck"
            require(self.network.latent == 0, no_bottleneck)
            hides = self.pretrain.mask_ratio > 0 or self.pretrain.protein_mask_ratio > 0
            require(hides, "pretrain.objective=masked needs pretrain.mask_ratio above 0: it rebuilds what is hidden")
        require(0 <= self.seed < 2**32, "seed must be a whole number from 0 to 4294967295")

    def with_settings(self, settings: Mapping[str, Any]) -> "Config":
        """Return a copy with some settings replaced; `network.decoder_blocks` is 0 unless the objective is masked.

        Parameters
        ----------
        settings
            ``{"section": {"key": value}}`` or ``{"section.key": value}``, or both; values may be text, as on the
            command line.

        Raises
        ------
        SettingError
            A section, key or value does not exist, or a changed setting has no effect with the others.
        """
        changed = updated(self, settings)
        refuse_unused(self, changed)
        if changed.pretrain.objective == "bottleneck":  # decoders of tokens would be built, and never trained
            changed = replace(changed, network=replace(changed.network, decoder_blocks=0))
        return changed

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """Return what :meth:`to_dict` described; raise SettingError for a section, key or value that does not exist."""
        return updated(cls(), settings)

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
