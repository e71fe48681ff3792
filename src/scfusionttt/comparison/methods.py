"""What can be compared: each method by its name, what it needs and what it can do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison import autoencoder, linear_baselines, muon_baselines, scvi_baselines
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.cost import Cost
from scfusionttt.comparison.model_runner import ModelRunner
from scfusionttt.config import PRESETS, preset
from scfusionttt.errors import SettingError

#: A representation [n, d], or a weighted neighbour graph [n, n] where a method gives no other.
Result: TypeAlias = "np.ndarray | sparse.csr_matrix"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, and by which protocols it can be scored: those whose function it has.

    Attributes
    ----------
    represent
        ``(cells, seed)`` to a representation or graph; it sees no label.
    classify
        ``(cells, train, seed)`` to probabilities [n, classes] of all cells, having seen the labels of the rows `train`.
    represent_trained
        ``(cells, train, seed)`` to a representation of all cells, having seen those labels.
    prepare
        Work that several rows share, done once: returns what it cost then, which counts for each of these rows.
    library
        Distribution that it runs with, of the extra ``bench``; empty where none is needed.
    settings
        What decides its result besides cells and seed; a row made with others is made again.
    """

    name: str
    represent: Callable[[Cells, int], Result] | None = None
    classify: Callable[[Cells, np.ndarray, int], pd.DataFrame] | None = None
    represent_trained: Callable[[Cells, np.ndarray, int], np.ndarray] | None = None
    prepare: Callable[[Cells, int], Cost] | None = None
    needs_protein: bool = True
    library: str = ""
    settings: Any = None

    @property
    def installed(self) -> bool:
        """Whether its library is there."""
        try:
            return not self.library or bool(version(self.library))
        except PackageNotFoundError:
            return False


BASELINES = (
    Method(name="rna_pca", represent=linear_baselines.rna_pca, needs_protein=False),
    Method(name="adt", represent=linear_baselines.adt),
    Method(name="concat", represent=linear_baselines.concat),
    Method(name="wnn", represent=muon_baselines.wnn, library="muon"),
    Method(name="mofa", represent=muon_baselines.mofa, library="mofapy2"),
    Method(name="totalvi", represent=scvi_baselines.totalvi, library="scvi-tools"),
    Method(name="scvi", represent=scvi_baselines.scvi, needs_protein=False, library="scvi-tools"),
    Method(name="autoencoder", represent=autoencoder.represent, settings=autoencoder.SETTINGS),
    Method(name="logistic", classify=linear_baselines.logistic),
    Method(name="logistic_rna", classify=linear_baselines.logistic_rna, needs_protein=False),
    Method(name="totalanvi", classify=scvi_baselines.totalanvi, library="scvi-tools"),
    Method(name="scanvi", classify=scvi_baselines.scanvi, needs_protein=False, library="scvi-tools"),
)
#: What is compared unless told otherwise: the other presets take hours (paper, whole) or are no contenders (fast).
DEFAULT = ("fusionttt", "fusionttt_rna", *(method.name for method in BASELINES))


def fusionttt(name: str, runner: ModelRunner) -> list[Method]:
    """Return our model as methods: with both modalities, and with RNA only after transfer (``name_rna``)."""
    common: dict[str, Any] = {"prepare": runner.prepare, "settings": runner.settings}
    both = Method(
        name=name, represent=runner.represent, classify=runner.classify,
        represent_trained=runner.represent_trained, needs_protein=False, **common,
    )  # fmt: skip
    return [both, Method(name=f"{name}_rna", classify=runner.classify_rna, **common)]


def choose(
    names: Iterable[str], *, models: Path, settings: dict[str, Any] | None = None, device: str = "auto"
) -> list[Method]:
    """Return methods by their names, in that order.

    Parameters
    ----------
    names
        A baseline, ``fusionttt`` (our model with preset ``default``) or another preset; append ``_rna`` to score our
        model on RNA alone, after transfer.
    models
        Folder for pretrained models, shared among rows.
    settings
        Settings of our model that differ from the presets'.

    Raises
    ------
    SettingError
        For a name that does not exist, or is given twice.
    """
    known = {method.name: method for method in BASELINES}
    for name in PRESETS:
        config = preset(name).with_settings(settings or {})
        shown = "fusionttt" if name == "default" else name
        known |= {method.name: method for method in fusionttt(shown, ModelRunner(config, models, device))}
    chosen = list(names)
    for name in chosen:
        if name not in known:
            raise SettingError(f"there is no method {name!r}; choose among {', '.join(known)}")
        if chosen.count(name) > 1:
            raise SettingError(f"the method {name!r} is given more than once")
    return [known[name] for name in chosen]
