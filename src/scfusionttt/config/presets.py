"""The presets: named sets of settings."""

from dataclasses import replace

from scfusionttt.config.settings import Config, DataConfig, FinetuneConfig, NetworkConfig, PretrainConfig
from scfusionttt.errors import SettingError


def preset(name: str) -> Config:
    """Return a preset by its name; raise SettingError for a name that does not exist."""
    if name not in PRESETS:
        raise SettingError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _paper() -> Config:
    """The method of arXiv 2410.13257, with the numbers of its predecessor scMMAE where the paper gives none.

    Stages 2 and 3 learn from 27 % of the labels if they get 30 % (``train_fraction=0.3``): a tenth is held back for
    early stopping. docs/method.md compares every element.
    """
    return Config(
        data=DataConfig(scale="none"),
        network=NetworkConfig(
            patch=10, width=128, encoder_blocks=6, decoder_blocks=4, mlp_ratio=4.0, dropout=0.1, direction="causal",
            latent=0, components=0, whitening=0.0,
        ),
        pretrain=PretrainConfig(
            objective="masked", epochs=500, batch_size=128, lr=2.5e-4, beta2=0.999, warmup=0.02, patience=5,
            validation_fraction=0.25, mask_ratio=0.15, protein_mask_ratio=0.15, alpha=0.7, hide_protein=0.0,
        ),
        finetune=FinetuneConfig(
            classifier="finetune", epochs=500, batch_size=128, lr=2.5e-4, beta2=0.999, patience=5, mask_ratio=0.0,
            class_balance=False, hide_protein=0.0,
        ),
    )  # fmt: skip


def _scmmae() -> Config:
    """The baseline of `paper`: attention in encoders, fusion and decoders, as in scMMAE; all else is the same."""
    paper = _paper()
    return replace(paper, network=replace(paper.network, mixer="attention", fusion="attention", direction="both"))


def _whole() -> Config:
    """Every gene a token: attribution to single genes, at the price of time."""
    return Config(
        data=DataConfig(n_genes=None),
        network=NetworkConfig(patch=1, width=32, heads=1),
        pretrain=PretrainConfig(epochs=10, batch_size=32),
    )


def _fast() -> Config:
    """A smaller network and shorter pretraining: for a first look and for tests."""
    return Config(
        data=DataConfig(n_genes=2000),
        network=NetworkConfig(width=32, latent=16),
        pretrain=PretrainConfig(epochs=8, lr=3e-3),
    )


PRESETS: dict[str, Config] = {
    "default": Config(), "paper": _paper(), "scmmae": _scmmae(), "whole": _whole(), "fast": _fast(),
}  # fmt: skip
