"""What a model is: its settings, what it expects of its input, its weights; written to disk and brought back."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from scfusionttt.config import Config
from scfusionttt.config import preset as named_preset
from scfusionttt.data.cells import CiteSeq, as_citeseq
from scfusionttt.data.features import Features, match_features
from scfusionttt.data.loader import CellDataset, cell_dataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.store.stored import StoredCiteSeq
from scfusionttt.data.validate import check, require_usable
from scfusionttt.errors import ModelFolderError, SettingError
from scfusionttt.model.folder import ModelFolder
from scfusionttt.model.provenance import Origin
from scfusionttt.nn.networks import ClassifierNetwork, Network, build_network
from scfusionttt.training import distributed
from scfusionttt.training.budget import parse_size
from scfusionttt.training.trainer import Run, choose_device

log = logging.getLogger("scfusionttt")

Data: TypeAlias = "AnnData | MuData | CiteSeq"


class ModelState:
    """All that a model knows, and where it computes; parameters and attributes: :class:`~scfusionttt.FusionTTT`."""

    def __init__(
        self,
        preset: str = "default",
        *,
        device: str | torch.device = "auto",
        memory: str | int | None = None,
        progress: bool = True,
        devices: int = 1,
        nodes: int = 1,
        **settings: Any,
    ):
        self.config: Config = named_preset(preset).with_settings(settings)
        self.device = device
        self.memory = None if memory is None else parse_size(memory)
        self.progress = progress
        self.devices, self.nodes = devices, nodes
        self.features: Features | None = None
        self.preprocessing: Preprocessing | None = None
        self.network: Network | None = None
        self.classes: list[str] = []
        self.stage: str | None = None
        self.history = pd.DataFrame()
        self.metrics: dict[str, Any] = {}
        self.origin = Origin(taught=np.array([], dtype=np.uint32))

    def __repr__(self) -> str:
        if self.network is None or self.features is None:
            return f"{type(self).__name__}, not trained"
        known = {
            "genes": len(self.features.genes),
            "proteins": len(self.features.proteins),
            "classes": len(self.classes),
        }
        told = ", ".join(f"{number} {kind}" for kind, number in known.items())
        return f"{type(self).__name__}, stage {self.stage}: {told}, {self.features.species}"

    def save(self, path: str | Path) -> None:
        """Write the model folder: weights.safetensors, manifest.json, history.csv."""
        network = self._trained()
        assert self.features is not None and self.preprocessing is not None
        table = self.features.table.astype({"start": object})
        features = table.where(table.notna(), None).to_dict(orient="records")
        manifest = {
            "stage": self.stage,
            "settings": self.config.to_dict(),
            "seed": self.config.seed,
            "species": self.features.species,
            "features": [{**row, "order": order} for order, row in enumerate(features)],
            "preprocessing": self.preprocessing.to_dict(),
            "classes": self.classes,
            "metrics": self.metrics,
            **self.origin.to_dict(),
        }
        ModelFolder(manifest, network.state_dict(), self.history).write(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "auto",
        memory: str | int | None = None,
        progress: bool = True,
        devices: int = 1,
        nodes: int = 1,
    ) -> Self:
        """Read a model folder; nothing in it can run code.

        Raises
        ------
        ModelFolderError
            When the folder is incomplete, damaged or of a newer format.
        """
        folder = ModelFolder.read(path)
        manifest = folder.manifest
        model = cls(device=device, memory=memory, progress=progress, devices=devices, nodes=nodes)
        try:
            model.config = Config().with_settings(manifest["settings"])
            table = pd.DataFrame(manifest["features"]).drop(columns="order").astype({"start": "Int64"})
            model.features = Features(table=table, species=manifest["species"])
            model.preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
            model.classes, model.stage = list(manifest["classes"]), manifest["stage"]
            model.metrics, model.history = dict(manifest["metrics"]), folder.history
            model.origin = Origin.from_dict(manifest)
            model.network = model._seeded(lambda: model._build(len(model.classes)))
            found = model.network.load_state_dict(dict(folder.weights), strict=False)
            lost = [name for name in found.missing_keys if not name.startswith("novelty.")]  # format 1 knew none
            if lost or found.unexpected_keys:
                raise ValueError(f"weights {', '.join([*lost, *found.unexpected_keys][:3])}")
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, SettingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelFolderError(f"{path}: manifest and weights do not fit together ({reason})") from error
        return model

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Leave the model as it was where the block does not come to its end: half-learned weights would answer."""
        before = {**vars(self), "metrics": dict(self.metrics)}
        try:
            yield
        except BaseException:  # an interrupt in a notebook, too
            vars(self).update(before)
            raise

    def _build(self, n_classes: int) -> Network:
        assert self.features is not None and self.stage is not None
        n_genes, n_proteins = len(self.features.genes), len(self.features.proteins)
        return build_network(self.stage, n_genes, n_proteins, n_classes, self.config.network)

    def _seeded(self, build: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return build()

    def _device(self) -> torch.device:
        """Return where to compute, together with the other processes of the run."""
        device = choose_device(self.device)
        distributed.join(self.devices, self.nodes, device)
        return device

    def _trained(self) -> Network:
        if self.network is None or self.features is None or self.preprocessing is None:
            raise SettingError("the model is not trained yet; run pretrain first, or load a model folder")
        return self.network

    def _run(self, cells: CellDataset, checkpoints: str | Path | None, resume: bool) -> Run:
        if resume and checkpoints is None:
            raise SettingError(
                "resume goes on from a folder that an earlier run kept its state in: give checkpoints=FOLDER"
            )
        device = self._device()
        log.info("%s: %d cells on %s", self.stage, len(cells), device)
        folder = None if checkpoints is None else Path(checkpoints)
        return Run(
            device=device, seed=self.config.seed, checkpoints=folder, resume=resume, progress=self.progress,
            memory=self.memory, identity=self._identity(cells),
        )  # fmt: skip

    def _identity(self, cells: CellDataset) -> dict[str, Any]:
        """Return what a run that goes on must have in common with the one that was stopped."""
        assert self.features is not None
        network = self._trained()
        start = network.backbone.state_dict() if isinstance(network, ClassifierNetwork) else {}
        return {
            "stage": self.stage,
            "settings": self.config.to_dict(),
            "cells": cells.fingerprint(),
            "features": _digest(self.features.table[["modality", "name"]].to_csv(index=False).encode()),
            "classes": self.classes,
            "labels": _digest(cells.labels[cells.rows].tobytes()),
            "begins with": _digest(*(tensor.cpu().numpy().tobytes() for tensor in start.values())),
        }

    def _cells(self, cite: CiteSeq, labels: np.ndarray | None = None) -> CellDataset:
        """Return the cells as the model reads them, telling how many of its features they have."""
        self._trained()
        assert self.features is not None and self.preprocessing is not None
        match = match_features(cite, self.features)
        tell(match.notes)
        return cell_dataset(cite, match, self.preprocessing, labels=labels)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def usable(data: Data, *, learn: bool = False) -> CiteSeq:
    """Return the checked cells; with `learn`, also tell what is odd about cells to learn from."""
    if isinstance(data, StoredCiteSeq):  # checked when it was written
        return data
    cite = as_citeseq(data)
    findings = check(cite)
    require_usable(findings)
    for finding in findings:
        if learn and finding.severity == "warning":
            log.warning("warning: %s", finding)
    return cite


def tell(notes: Iterable[str]) -> None:
    """Log what a user should know."""
    for note in notes:
        log.info(note)
