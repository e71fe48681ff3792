"""Our model as a method of the benchmark; rows that start from the same pretrained model share it."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scfusionttt.comparison.cells import SPLIT, Cells
from scfusionttt.comparison.cost import Cost, measure
from scfusionttt.comparison.fingerprints import code_version, file_hash, short_hash
from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.atomic import replacing
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.predictions import class_columns


@dataclass(frozen=True)
class ModelRunner:
    """Trains and applies models of one configuration.

    Parameters
    ----------
    config
        Settings of the model; their seed is replaced by the seed of the row, which is also added to that of the order.
    models
        Folder for pretrained models.
    pretrained
        Whether to start from stage 1 rather than from random weights.
    """

    config: Config
    models: Path
    device: str = "auto"
    pretrained: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the cells and the seed that determines the results."""
        return {"pretrained": self.pretrained, **self.config.to_dict(), "order_file_hash": self._order_hash}

    @property
    def _order_hash(self) -> str | None:
        return file_hash(self.config.data.order_file)

    def prepare(self, cells: Cells, seed: int) -> Cost:
        """Pretrain unless a pretrained model is stored; return the cost of the pretraining.

        An interrupted pretraining continues after its last epoch; its cost is then that of the last part.
        """
        if not self.pretrained:
            return Cost()
        folder = self._folder(cells, seed)
        stored = folder.with_suffix(".json")
        if not stored.exists():
            self.models.mkdir(parents=True, exist_ok=True)
            training = folder.with_suffix(".training")
            options: dict[str, Any] = {
                "batch_key": cells.batch_key or [],
                "checkpoints": training,
                "resume": training.exists(),
            }
            model, cost = measure(lambda: self._new(seed).pretrain(cells.cite, **options))
            model.save(folder, overwrite=True)  # without its cost it was not finished
            shutil.rmtree(training, ignore_errors=True)
            with replacing(stored) as path:
                path.write_text(json.dumps(asdict(cost)), encoding="utf-8")
        return Cost(**json.loads(stored.read_text(encoding="utf-8")))

    def pretrain(self, cells: Cells, train: np.ndarray, seed: int) -> FusionTTT:
        """Return a model that knows the rows `train` alone, pretrained unless it starts from random weights."""
        known = cells.cite[train]
        return self._new(seed).pretrain(known) if self.pretrained else self._new(seed).build(known)

    def represent(self, cells: Cells, seed: int) -> np.ndarray:
        """Return the embedding after stage 1."""
        return self._start(cells, seed).embed(cells.cite)

    def represent_trained(self, cells: Cells, train: np.ndarray, seed: int) -> np.ndarray:
        """Return the embedding after stage 2."""
        return self._finetuned(cells, train, seed).embed(cells.cite)

    def represent_rna(self, cells: Cells, train: np.ndarray, seed: int) -> np.ndarray:
        """Return the embedding after stage 3 from RNA alone; the training cells had proteins and labels."""
        model, rna = self._transferred(cells, train, seed)
        return model.embed(rna)

    def classify(self, cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
        """Return the class probabilities of stage 2."""
        return _probabilities(self._finetuned(cells, train, seed), cells.cite)

    def classify_rna(self, cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
        """Return the class probabilities of stage 3 from RNA alone; the training cells had proteins and labels."""
        return _probabilities(*self._transferred(cells, train, seed))

    def _finetuned(self, cells: Cells, train: np.ndarray, seed: int) -> FusionTTT:
        return self._start(cells, seed).finetune(cells.with_split(train), labels_key=cells.labels_key, split=SPLIT)

    def _transferred(self, cells: Cells, train: np.ndarray, seed: int) -> tuple[FusionTTT, CiteSeq]:
        """Return the model after stage 3, and the cells without proteins."""
        rna = cells.with_split(train, rna_only=True)
        return self._finetuned(cells, train, seed).transfer(rna, labels_key=cells.labels_key, split=SPLIT), rna

    def _start(self, cells: Cells, seed: int) -> FusionTTT:
        """Return the model after stage 1, or one with random weights."""
        if not self.pretrained:
            return self._new(seed).build(cells.cite)
        model = FusionTTT.load(self._folder(cells, seed), device=self.device)
        model.config = self._config(seed)  # rows may differ in the settings of later stages
        return model

    def _new(self, seed: int) -> FusionTTT:
        model = FusionTTT(device=self.device)
        model.config = self._config(seed)
        return model

    def _config(self, seed: int) -> Config:
        """Return the settings of a row; every seed shuffles the features anew, so that not one order decides."""
        data = replace(self.config.data, order_seed=self.config.data.order_seed + seed)
        return replace(self.config, seed=seed, data=data)

    def _folder(self, cells: Cells, seed: int) -> Path:
        used = {name: asdict(getattr(self.config, name)) for name in ("data", "network", "pretrain")}
        text = json.dumps([used, self._order_hash, seed, cells.fingerprint, cells.batch_key, code_version()])
        return self.models / short_hash(text.encode())


def _probabilities(model: FusionTTT, cells: CiteSeq) -> pd.DataFrame:
    """Return the probabilities [n, classes] with the classes as columns."""
    return model.predict(cells)[class_columns(model.classes)].set_axis(model.classes, axis=1)
