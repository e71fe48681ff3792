"""Our model as a method of the benchmark; a pretrained model is kept and shared by all rows that start from it."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scfusionttt.comparison.cells import SPLIT, Cells
from scfusionttt.comparison.cost import Cost, measured
from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.atomic import replacing
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.pipeline import class_columns


@dataclass(frozen=True)
class ModelRunner:
    """Trains models of one configuration.

    Parameters
    ----------
    config
        Its seed is replaced by that of the row.
    models
        Folder in which pretrained models are kept.
    pretrained
        Start from stage 1; else from random weights.
    """

    config: Config
    models: Path
    device: str = "auto"
    pretrained: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results, for a row to tell."""
        return {"pretrained": self.pretrained, **self.config.to_dict()}

    def prepare(self, cells: Cells, seed: int) -> Cost:
        """Pretrain, unless that was done before; returns what it cost when it was done."""
        if not self.pretrained:
            return Cost()
        folder = self._folder(cells, seed)
        told = folder.with_suffix(".json")
        if not told.exists():
            model, cost = measured(lambda: self._new(seed).pretrain(cells.cite))
            self.models.mkdir(parents=True, exist_ok=True)
            model.save(folder)
            with replacing(told) as path:
                path.write_text(json.dumps(asdict(cost)), encoding="utf-8")
        return Cost(**json.loads(told.read_text(encoding="utf-8")))

    def represent(self, cells: Cells, seed: int) -> np.ndarray:
        """Return the fused representation of stage 1."""
        return self._start(cells, seed).embed(cells.cite)

    def represent_trained(self, cells: Cells, train: np.ndarray, seed: int) -> np.ndarray:
        """Return the fused representation of stage 2."""
        return self._typed(cells, train, seed).embed(cells.cite)

    def classify(self, cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
        """Return the probabilities of stage 2."""
        model = self._typed(cells, train, seed)
        return _probabilities(model, cells.cite)

    def classify_rna(self, cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
        """Return the probabilities of stage 3, by RNA alone; the training cells had proteins and labels."""
        rna = cells.learning(train, rna_only=True)
        student = self._typed(cells, train, seed).transfer(rna, labels_key=cells.key, split=SPLIT)
        return _probabilities(student, rna)

    def _typed(self, cells: Cells, train: np.ndarray, seed: int) -> FusionTTT:
        return self._start(cells, seed).finetune(cells.learning(train), labels_key=cells.key, split=SPLIT)

    def _start(self, cells: Cells, seed: int) -> FusionTTT:
        """Return the model that stage 1 leaves, or one of random weights."""
        if not self.pretrained:
            return self._new(seed).build(cells.cite)
        model = FusionTTT.load(self._folder(cells, seed), device=self.device)
        model.config = replace(self.config, seed=seed)  # what follows stage 1 may differ among rows
        return model

    def _new(self, seed: int) -> FusionTTT:
        model = FusionTTT(device=self.device)
        model.config = replace(self.config, seed=seed)
        return model

    def _folder(self, cells: Cells, seed: int) -> Path:
        decides = {name: asdict(getattr(self.config, name)) for name in ("data", "network", "pretrain")}
        text = json.dumps([decides, seed, cells.fingerprint])
        return self.models / hashlib.sha256(text.encode()).hexdigest()[:16]


def _probabilities(model: FusionTTT, cells: CiteSeq) -> pd.DataFrame:
    """Return the probability of each class, in a column of its name."""
    return model.predict(cells)[class_columns(model.classes)].set_axis(model.classes, axis=1)
