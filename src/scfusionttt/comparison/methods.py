"""The methods that can be compared: names, requirements, and the functions that run them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison import (
    autoencoder,
    linear_baselines,
    muon_baselines,
    scvi_baselines,
    similarity_fusion,
    systems,
)
from scfusionttt.comparison.cells import Cells, Modality
from scfusionttt.comparison.cost import Cost
from scfusionttt.comparison.model_runner import ModelRunner
from scfusionttt.comparison.systems import System
from scfusionttt.config import PRESETS, preset
from scfusionttt.errors import SettingError
from scfusionttt.model.fusionttt import FusionTTT

#: A representation [n, d], or a weighted neighbour graph [n, n] from a method that gives no representation.
Result: TypeAlias = "np.ndarray | sparse.csr_matrix"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, which can be scored under the protocols whose function it has.

    Attributes
    ----------
    represent
        Maps ``(cells, seed)`` to a representation or graph, without labels.
    classify
        Maps ``(cells, train, seed)`` to class probabilities [n, classes] of all cells, given the labels of the rows
        `train`.
    represent_trained
        Maps ``(cells, train, seed)`` to a representation of all cells, given the same labels.
    pretrain
        Maps ``(cells, train, seed)`` to a model that was pretrained without labels on the rows `train` alone.
    prepare
        Work that several rows share and that runs once. Returns its cost, which is added to each of these rows.
    needs_protein
        Whether there must be proteins; a method that reads none does not ask who lacks them.
    may_lack
        What some of the cells may lack.
    needs_batches
        Whether it applies only to data with a batch key.
    library
        Required distribution from the extra ``bench``, or the system that runs elsewhere; empty if none.
    settings
        What determines the result besides cells and seed; a stored row with other settings is not reused.
    unsuited
        Protocols that would show nothing new, and why.
    """

    name: str
    represent: Callable[[Cells, int], Result] | None = None
    classify: Callable[[Cells, np.ndarray, int], pd.DataFrame] | None = None
    represent_trained: Callable[[Cells, np.ndarray, int], np.ndarray] | None = None
    pretrain: Callable[[Cells, np.ndarray, int], FusionTTT] | None = None
    prepare: Callable[[Cells, int], Cost] | None = None
    needs_protein: bool = True
    may_lack: frozenset[Modality] = frozenset()
    needs_batches: bool = False
    library: str | System = ""
    settings: Any = None
    unsuited: Mapping[str, str] = field(default_factory=dict)


_PROTEINS: frozenset[Modality] = frozenset({"proteins"})
_EITHER: frozenset[Modality] = frozenset({"RNA", "proteins"})
BASELINES = {
    method.name: method
    for method in (
        Method(name="rna_pca", represent=linear_baselines.rna_pca, needs_protein=False),
        Method(name="adt", represent=linear_baselines.adt),
        Method(name="concat", represent=linear_baselines.concat),
        *(Method(name=f"concat_{n}", represent=partial(linear_baselines.concat, n_components=n)) for n in (10, 20, 50)),
        Method(name="concat_harmony", represent=linear_baselines.concat_harmony, needs_batches=True),
        Method(name="wnn", represent=muon_baselines.wnn, library="muon"),
        Method(name="snf", represent=similarity_fusion.snf),
        Method(name="mofa", represent=muon_baselines.mofa, library="mofapy2"),
        Method(name="totalvi", represent=scvi_baselines.totalvi, may_lack=_PROTEINS, library="scvi-tools"),
        Method(name="scvi", represent=scvi_baselines.scvi, needs_protein=False, library="scvi-tools"),
        *(
            Method(name=system.name, represent=partial(systems.represent, system), library=system)
            for system in (systems.SEURAT, systems.CITEFUSE, systems.SCOIT, systems.SCIPENN)
        ),
        Method(
            name="midas", represent=partial(systems.represent, systems.MIDAS), may_lack=_EITHER, library=systems.MIDAS
        ),
        Method(name="autoencoder", represent=autoencoder.represent, settings=autoencoder.SETTINGS),
        Method(name="logistic", classify=linear_baselines.logistic),
        Method(name="logistic_rna", classify=linear_baselines.logistic_rna, needs_protein=False),
        Method(name="totalanvi", classify=scvi_baselines.totalanvi, library="scvi-tools"),
        Method(name="scanvi", classify=scvi_baselines.scanvi, needs_protein=False, library="scvi-tools"),
    )
}
#: Our model by the name of the method: one per preset, ``fusionttt`` for ``default``.
_PRESET_OF = {"fusionttt" if name == "default" else name: name for name in PRESETS}
#: Methods that are compared by default: no presets that take hours (paper, scmmae, whole) or trade accuracy for speed,
#: and no systems with an environment of their own.
DEFAULT = (
    "fusionttt",
    "fusionttt_rna",
    *(name for name, one in BASELINES.items() if not one.needs_batches and not isinstance(one.library, System)),
)
#: And those that need batches.
OF_BATCHES = tuple(name for name, method in BASELINES.items() if method.needs_batches)
#: Why a model whose stage 2 fits a head alone has no row under the protocol ``paper``.
_SAME_EMBEDDING = (
    "stage 2 fits a classifier and leaves the network as it is: the embedding is that of the unsupervised protocol; "
    "finetune.classifier=finetune trains the network"
)


def fusionttt(name: str, runner: ModelRunner) -> Method:
    """Return our model as a method that reads both modalities."""
    return Method(
        name=name, represent=runner.represent, classify=runner.classify,
        represent_trained=runner.represent_trained, pretrain=runner.pretrain, needs_protein=False,
        may_lack=_EITHER, **_common(runner),
    )  # fmt: skip


def fusionttt_rna(name: str, runner: ModelRunner) -> Method:
    """Return our model as a method that reads RNA only, after transfer; its training cells have proteins."""
    return Method(
        name=name, classify=runner.classify_rna, represent_trained=runner.represent_rna, may_lack=_PROTEINS,
        **_common(runner),
    )  # fmt: skip


def _common(runner: ModelRunner) -> dict[str, Any]:
    fits_head = runner.config.finetune.classifier != "finetune"
    unsuited = {"paper": _SAME_EMBEDDING} if fits_head else {}
    return {"prepare": runner.prepare, "settings": runner.settings, "unsuited": unsuited}


def choose(
    names: Iterable[str], *, models: Path, settings: dict[str, Any] | None = None, device: str = "auto"
) -> list[Method]:
    """Return methods by name, in the given order.

    Parameters
    ----------
    names
        Keys of `BASELINES`, ``fusionttt`` (our model with preset ``default``) or another preset; append ``_rna`` to
        score our model with RNA only, after transfer.
    models
        Folder for pretrained models, which several rows share.
    settings
        Settings of our model that differ from its presets.

    Raises
    ------
    SettingError
        A name does not exist or is repeated; a setting does not fit one of the presets named, or there is no preset
        among the names.
    """
    chosen = list(names)
    for name in chosen:
        if chosen.count(name) > 1:
            raise SettingError(f"the method {name!r} is given more than once")
    if settings and BASELINES.keys() >= set(chosen):
        raise SettingError(
            f"{', '.join(settings)} have no effect on baselines; add fusionttt or a preset to the methods"
        )
    return [BASELINES.get(name) or _our_method(name, models, settings or {}, device) for name in chosen]


def _our_method(name: str, models: Path, settings: dict[str, Any], device: str) -> Method:
    both = name.removesuffix("_rna")
    if both not in _PRESET_OF:
        known = [*BASELINES, *(our + suffix for our in _PRESET_OF for suffix in ("", "_rna"))]
        raise SettingError(f"there is no method {name!r}; choose among {', '.join(known)}")
    runner = ModelRunner(preset(_PRESET_OF[both]).with_settings(settings), models, device)
    return fusionttt(name, runner) if name == both else fusionttt_rna(name, runner)
