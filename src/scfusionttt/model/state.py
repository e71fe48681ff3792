"""A trained model: everything that training determines, complete and never changed in place."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch

from scfusionttt.config import Config, Sizes
from scfusionttt.data.cohort import Cohort
from scfusionttt.data.features import Features
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.errors import ModelFolderError, SettingError, first_line
from scfusionttt.model.folder import ModelFolder
from scfusionttt.model.provenance import Provenance
from scfusionttt.nn.networks import ClassifierNetwork, Network, build_network


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedState:
    """A model after a stage of training; the next stage makes a new one.

    Attributes
    ----------
    config
        All settings.
    features, preprocessing
        The features that the model reads, in the order of its tokens, and the constants that scale their values.
    network
        The network with its weights.
    stage
        ``pretrain``, ``finetune`` or ``transfer``.
    classes
        Class names; empty after pretraining.
    history
        Training curves of all stages, one row per epoch.
    metrics
        Scores on held-out cells by stage, as plain values.
    provenance
        The commands that made the model, and the cells whose labels it was trained on.
    cohort
        The batches whose effects it removes; empty without batch keys.
    """

    config: Config
    features: Features
    preprocessing: Preprocessing
    network: Network
    stage: str
    classes: list[str]
    history: pd.DataFrame
    metrics: dict[str, Any]
    provenance: Provenance
    cohort: Cohort

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model folder; see :class:`~scfusionttt.model.folder.ModelFolder`."""
        table = self.features.table.astype({"start": object})
        features = table.where(table.notna(), None).to_dict(orient="records")
        manifest = {
            "stage": self.stage,
            "settings": self.config.to_dict(),
            "sizes": asdict(self.network.backbone.sizes),
            "seed": self.config.seed,
            "species": self.features.species,
            "features": [{**row, "order": order} for order, row in enumerate(features)],
            "preprocessing": self.preprocessing.to_dict(),
            "classes": self.classes,
            "batches": self.cohort.to_dict(),
            "metrics": self.metrics,
            **self.provenance.to_dict(),
        }
        ModelFolder(manifest, self.network.state_dict(), self.history).write(path, overwrite=overwrite)

    def identity(self, dataset: CellDataset) -> dict[str, Any]:
        """Return what a run that trains from this state must share with the run that resumes it, as plain values."""
        backbone = self.network.backbone.state_dict() if isinstance(self.network, ClassifierNetwork) else {}
        constants = self.preprocessing  # not its means and deviations, whose last digits depend on the processor
        return {
            "stage": self.stage,
            "settings": self.config.to_dict(),
            "cells": dataset.fingerprint(),
            "constants": _digest(constants.gene_share.tobytes(), constants.log_geometric_mean.round(6).tobytes()),
            "features": _digest(self.features.table[["modality", "name"]].to_csv(index=False).encode()),
            "classes": self.classes,
            "labels": _digest(dataset.labels[dataset.rows].tobytes()),
            "batches": _digest(dataset.batches[dataset.rows].tobytes()),
            "begins with": _digest(*(tensor.cpu().numpy().tobytes() for tensor in backbone.values())),
        }

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a model folder.

        Raises
        ------
        ModelFolderError
            When the folder is incomplete, damaged or of a newer format.
        """
        folder = ModelFolder.read(path)
        try:
            return cls._from_folder(folder)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, SettingError) as error:
            raise ModelFolderError(f"{path}: manifest and weights do not fit together ({first_line(error)})") from error

    @classmethod
    def _from_folder(cls, folder: ModelFolder) -> Self:
        manifest = folder.manifest
        config, classes = Config.from_dict(manifest["settings"]), list(manifest["classes"])
        table = pd.DataFrame(manifest["features"]).drop(columns="order").astype({"start": "Int64"})
        features = Features(table=table, species=manifest["species"])
        with torch.random.fork_rng():  # the random weights are replaced; the caller's generator is left alone
            network = build_network(
                manifest["stage"], len(features.genes), len(features.proteins), len(classes), config.network,
                Sizes(**manifest["sizes"]), kernel="head.landmarks" in folder.weights,
            )  # fmt: skip
        keys = network.load_state_dict(dict(folder.weights), strict=False)
        # not in format 1; not in all of format 6
        names = ("rna_distances", "stretch", "rna_landmarks", "rna_only", "matching_distance")
        added = ("novelty.", *(f"backbone.correction.{name}" for name in names))
        missing = [name for name in keys.missing_keys if not name.startswith(added)]
        if missing or keys.unexpected_keys:
            raise ValueError(f"weights {', '.join([*missing, *keys.unexpected_keys][:3])}")
        return cls(
            config=config,
            features=features,
            preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
            network=network,
            stage=manifest["stage"],
            classes=classes,
            history=folder.history,
            metrics=dict(manifest["metrics"]),
            provenance=Provenance.from_dict(manifest),
            cohort=Cohort.from_dict(manifest.get("batches", {})),  # not before format 6
        )


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
