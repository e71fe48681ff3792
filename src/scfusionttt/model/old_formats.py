"""Manifests of formats 1 to 4, translated to the present one."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from scfusionttt.config import Sizes
from scfusionttt.errors import ModelFolderError

#: Settings of the network that a format added, with the values that earlier formats imply.
_ADDED: dict[int, dict[str, Any]] = {
    2: {"landmarks": 0},
    3: {"components": 0, "skip_components": 0},
    4: {"whitening": 0.0},
}
#: Settings that format 5 dropped. No answer depends on them, save the constants of the data, which are among the
#: preprocessing constants, too.
_DROPPED = (
    "target_sum", "clip", "steps", "weight_decay", "gradient_clip", "beta", "masked_weight", "bottleneck_weight",
    "balance", "probe", "body_lr_ratio", "label_smoothing",
)  # fmt: skip


class _Unbuildable(Exception):
    """A network that the present version has no settings for."""


def upgraded(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the manifest of the model folder `path`, of any format, in the present one.

    Until format 5, sizes of the architecture were settings, as were the parts of what is now one choice each: the
    direction, the objective and the classifier.

    Raises
    ------
    ModelFolderError
        The network is of a kind that can no longer be built.
    """
    if manifest["format_version"] >= 5 or not isinstance(manifest["settings"], dict):
        return manifest
    try:
        return {**manifest, **_translated(manifest, manifest["settings"])}
    except _Unbuildable as error:
        raise ModelFolderError(
            f"{path}: its network has {error}, which this version cannot build; use the version that wrote it"
        ) from error


def _translated(manifest: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings and sizes."""
    network = dict(settings.get("network", {}))
    for added, implied in _ADDED.items():
        if manifest["format_version"] < added:
            network = {**implied, **network}
    sizes = {name: network.pop(name, size) for name, size in asdict(Sizes()).items()}
    has_kernel = sizes["landmarks"] > 0
    has_linear_skip = sizes["skip_components"] > 0 and not has_kernel and manifest["stage"] != "pretrain"
    _require(not has_linear_skip, "network.landmarks=0 and network.skip_components above 0")
    if not has_kernel:
        sizes["landmarks"] = Sizes.landmarks
    sections = {
        "data": dict(settings.get("data", {})),
        "network": _network(network),
        "pretrain": _pretrain(settings.get("pretrain", {}), network),
        "finetune": _finetune(settings.get("finetune", {}), has_kernel),
    }
    kept = {name: {key: section[key] for key in section if key not in _DROPPED} for name, section in sections.items()}
    return {"settings": {**kept, "seed": settings.get("seed", 0)}, "sizes": sizes}


def _network(network: dict[str, Any]) -> dict[str, Any]:
    causal, direction = network.pop("causal", False), network.get("direction", "both")
    _require(network.pop("inner_lr", 1.0) == 1.0, "network.inner_lr other than 1")
    _require(not causal or direction == "forward", f"network.causal=true and network.direction={direction}")
    return {**network, "direction": "causal" if causal else direction}


def _pretrain(stage: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    is_masked = stage.get("bottleneck_weight", 1.0) == 0
    _require(not is_masked or not network.get("latent"), "pretrain.bottleneck_weight=0 and network.latent above 0")
    alpha, beta = stage.get("alpha", 0.5), stage.get("beta", 0.5)
    return {
        **_stage(stage),
        "objective": "masked" if is_masked else "bottleneck",
        "alpha": alpha / (alpha + beta) if alpha + beta > 0 else 0.5,
    }


def _finetune(stage: dict[str, Any], has_kernel: bool) -> dict[str, Any]:
    classifier = "kernel" if has_kernel else "linear" if stage.get("probe", True) else "finetune"
    return {**_stage({key: stage[key] for key in stage if key != "warmup"}), "classifier": classifier}


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    return {**stage, "epochs": stage.get("epochs") or "auto", "patience": max(1, stage.get("patience", 10))}


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _Unbuildable(otherwise)
