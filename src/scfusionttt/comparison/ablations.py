"""Ablations: variants of our model that differ in one setting, each run and scored as a method of the benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scfusionttt.comparison.methods import Method, fusionttt
from scfusionttt.comparison.model_runner import ModelRunner
from scfusionttt.config import Config
from scfusionttt.errors import SettingError

#: The layers that exchange information between tokens: those of encoders and decoders, and those of the fusion. A
#: variant names both, since one alone leaves the other as it is.
MIXER, FUSION = "network.mixer", "network.fusion"
#: The variants of the predefined studies, each with its title (empty: named by its settings) and settings.
STUDIES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "order": [
        ("", {"data.order": order})
        for order in ("genome", "reverse", "shuffled", "chromosomes", "family", "expression")
    ],
    "length": [("", {"data.n_genes": number}) for number in ("500", "1000", "2000", "4000", "8000", "all")],
    "ttt": [
        ("TTT everywhere", {MIXER: "ttt", FUSION: "ttt"}),
        ("TTT in the encoders alone", {MIXER: "ttt", FUSION: "add"}),
        ("TTT in the fusion alone", {MIXER: "none", FUSION: "ttt"}),
        ("no TTT", {MIXER: "none", FUSION: "add"}),
        ("attention everywhere", {MIXER: "attention", FUSION: "attention"}),
    ],
}
STAGES = "stages"
STUDY_NAMES = (*STUDIES, STAGES)


@dataclass(frozen=True)
class Variants:
    """Variants of a base configuration as methods; see :class:`~scfusionttt.comparison.model_runner.ModelRunner`."""

    base: Config
    models: Path
    device: str = "auto"

    def of_study(self, name: str) -> list[Method]:
        """Return the variants of a predefined study."""
        if name == STAGES:
            return self._stages()
        if name not in STUDIES:
            raise SettingError(f"there is no ablation {name!r}; choose one of {', '.join(STUDY_NAMES)}, or use --vary")
        return [self._variant(settings, title) for title, settings in STUDIES[name]]

    def of_setting(self, text: str, *, title: str = "") -> list[Method]:
        """Return one variant for each value of ``section.key=v1,v2,...``; a `title` begins their names."""
        setting, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise SettingError(f"--vary {text!r} has no values; write --vary section.key=v1,v2")
        return [self._variant({setting: value}, title) for value in values.split(",")]

    def _variant(self, settings: Mapping[str, Any], title: str = "") -> Method:
        config = self.base.with_settings(settings)
        if settings.keys() & {MIXER, FUSION}:
            settings = {**settings, MIXER: config.network.mixer, FUSION: config.network.fusion}
        name = ", ".join(f"{setting}={value}" for setting, value in settings.items())
        return fusionttt(f"{title} ({name})" if title else name, ModelRunner(config, self.models, self.device))

    def _stages(self) -> list[Method]:
        """Return stage 2 after stage 1, without stage 1, and without it but trained for as long as stage 1."""
        start = ModelRunner(self.base, self.models, self.device)
        first = self.base.pretrain
        long = replace(self.base.finetune, classifier="finetune", epochs=first.epochs, lr=first.lr)
        random_head = replace(self.base, finetune=long)
        alone = replace(start, pretrained=False)
        return [
            fusionttt("pretrained", start),
            fusionttt("not pretrained", alone),
            fusionttt("not pretrained, fine-tuned for as long as pretraining", replace(alone, config=random_head)),
        ]


def protocol_of(study: str | None, vary: list[str]) -> str:
    """Return the protocol that can show a difference: held-out if only later stages vary, else ablation."""
    later = all(text.startswith("finetune.") for text in vary)
    return "held-out" if study == STAGES or (study is None and later) else "ablation"
