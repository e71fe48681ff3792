"""The public face: one object that is pretrained, fine-tuned, transferred, asked and saved."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.loader import CellDataset, StreamedCells, cell_dataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.split import train_and_held_out
from scfusionttt.errors import SettingError
from scfusionttt.evaluation import Evaluation, baselines, evaluate_predictions
from scfusionttt.labels import usable_labels
from scfusionttt.model.answers import Answers
from scfusionttt.model.provenance import Origin
from scfusionttt.model.stages import train_classifier, train_pretraining
from scfusionttt.model.state import Data, tell, usable
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork, TransferNetwork, carry_over

log = logging.getLogger("scfusionttt")


class FusionTTT(Answers):
    """scFusionTTT: fuse RNA and proteins of CITE-seq, name the cells, carry that over to RNA-only data.

    Parameters
    ----------
    preset
        ``default``, ``paper``, ``whole`` (every gene a token) or ``fast``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory
        What training may take, with what the process holds already: ``6GiB``, ``4GB`` or bytes; None: 80 % of what is
        free. Of a GPU's memory where that is the device. Batches pass through the network in parts that fit.
    progress
        Show the training's progress on stderr.
    devices, nodes
        Processes on each of how many machines, where ``torchrun`` started more than this one.
    **settings
        Settings that differ from the preset's: ``seed=1``, ``network={"width": 128}``.

    Attributes
    ----------
    config
        All settings.
    features, preprocessing
        What the model expects of its input, in the order of its tokens, and the constants of the values.
    classes
        Class names, once fine-tuned or transferred.
    stage
        ``pretrain``, ``finetune`` or ``transfer``; None before training.
    history
        Training curves of all stages, one row per epoch.
    metrics
        Scores on held-out cells by stage, as :meth:`scfusionttt.evaluation.Evaluation.to_dict` gives them.
    origin
        The commands that made it, and which cells taught it labels.

    Examples
    --------
    >>> import mudata, scfusionttt  # doctest: +SKIP
    >>> mdata = mudata.read_h5mu("pbmc.h5mu")  # doctest: +SKIP
    >>> model = scfusionttt.FusionTTT().pretrain(mdata)  # doctest: +SKIP
    >>> mdata.obsm["X_fusionttt"] = model.embed(mdata)  # doctest: +SKIP
    """

    def pretrain(
        self, data: Data, *, species: str | None = None, checkpoints: str | Path | None = None, resume: bool = False
    ) -> Self:
        """Learn the fused representation from CITE-seq (or RNA alone), without labels: stage 1.

        Parameters
        ----------
        data
            Raw counts: AnnData, MuData, or a store opened with
            `scfusionttt.data.store.stored.open_store`, which is streamed.
        species
            ``human`` or ``mouse``; None: by the gene names.
        checkpoints, resume
            Folder that the state is kept in after each epoch, and whether to go on from there.

        Raises
        ------
        UserError
            When the data cannot be used; the message says why and what to do. The model is then as it was, as it is
            after an interrupt.
        """
        cite = usable(data, learn=True)
        with self._whole_or_not():
            network = self._start(cite, species)
            assert self.features is not None and self.preprocessing is not None
            cells = cell_dataset(cite, match_features(cite, self.features), self.preprocessing)
            run = self._run(cells, checkpoints, resume)
            self.history = train_pretraining(network, cells, self.config.pretrain, run)
        return self

    def build(self, data: Data, *, species: str | None = None) -> Self:
        """Settle features, constants and a network of random weights: what stage 2 starts from without stage 1."""
        cite = usable(data, learn=True)
        with self._whole_or_not():
            self._start(cite, species)
        return self

    def finetune(
        self,
        data: Data,
        *,
        labels: str,
        train_fraction: float | None = None,
        split: str | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn cell types from labelled CITE-seq: stage 2.

        Parameters
        ----------
        labels
            obs column with the types; unlabelled cells (``unknown``, missing) are not trained on.
        train_fraction, split
            Train on this share of each class, or on the cells whose obs column `split` says ``train``; the others
            are held out and scored in ``metrics["finetune"]``. Without either, every labelled cell is trained on.
        checkpoints, resume
            As for :meth:`pretrain`.
        """
        backbone = deepcopy(self._trained().backbone)
        cite = usable(data, learn=True)
        codes, classes = usable_labels(cite.obs, labels)
        train, held_out = train_and_held_out(
            cite.obs, codes, train_fraction=train_fraction, split=split, seed=self.config.seed, classes=classes
        )
        with self._whole_or_not():
            self.classes, self.stage = classes, "finetune"
            self.network = self._seeded(lambda: ClassifierNetwork(backbone, len(classes), self.config.network))
            self._learn_classes(cite, codes, train, held_out, checkpoints, resume)
        return self

    def transfer(
        self,
        data: Data,
        *,
        labels: str | None = None,
        train_fraction: float | None = None,
        split: str | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> "FusionTTT":
        """Return a student for RNA-only data: stage 3.

        The student takes the mean and deviation of each gene from `data` (another platform counts otherwise). With
        `labels` it learns the head, and where `transfer.steps` or `transfer.epochs` is above 0 the projection from RNA
        to the missing proteins as well, the rest being frozen; without, it keeps the classes and the projection learned
        on the CITE-seq reference (zero-shot).

        Parameters
        ----------
        labels, train_fraction, split
            As for :meth:`finetune`.
        """
        network = self._trained()
        if labels is None and not self.classes:
            raise SettingError(
                "transfer without labels needs a model that knows classes; run finetune first, or give labels"
            )
        if labels is None and not (train_fraction is None and split is None):
            raise SettingError("a train fraction or a split is of labels: give labels too, or neither for zero-shot")
        assert self.features is not None and self.preprocessing is not None
        cite = usable(data, learn=True)
        match = match_features(cite, self.features)
        student = FusionTTT(
            device=self.device, memory=self.memory, progress=self.progress, devices=self.devices, nodes=self.nodes
        )
        student.config, student.features = self.config, self.features
        student.history, student.metrics, student.origin = self.history.copy(), dict(self.metrics), self.origin
        student.preprocessing = self.preprocessing.adapted(cite, match, self.config.data)
        student.classes, student.stage = list(self.classes), "transfer"
        if labels is None:
            tell(match.notes)
            student.metrics.pop("transfer", None)
            student.network = student._seeded(lambda: student._build(len(self.classes)))
            carry_over(network, self.classes, student.network, self.classes)
            return student
        codes, student.classes = usable_labels(cite.obs, labels)
        train, held_out = train_and_held_out(
            cite.obs, codes, train_fraction=train_fraction, split=split, seed=self.config.seed, classes=student.classes
        )
        student.network = student._seeded(lambda: student._build(len(student.classes)))
        carry_over(network, self.classes, student.network, student.classes)
        student._learn_classes(cite, codes, train, held_out, checkpoints, resume)
        return student

    def _start(self, cite: CiteSeq, species: str | None) -> PretrainNetwork:
        self.features, notes = choose_features(cite, self.config.data, species=species)
        tell(notes)
        self.preprocessing = Preprocessing.fit(cite, match_features(cite, self.features), self.config.data)
        self.stage, self.classes, self.metrics, self.history = "pretrain", [], {}, pd.DataFrame()
        self.origin = Origin(taught=np.array([], dtype=np.uint32))
        network = self._seeded(lambda: self._build(0))
        self.network = network
        return network

    def _learn_classes(
        self,
        cite: CiteSeq,
        codes: np.ndarray,
        train: np.ndarray,
        held_out: np.ndarray,
        checkpoints: str | Path | None,
        resume: bool,
    ) -> None:
        """Run stage 2 or 3 on the rows `train`, and score the rows `held_out`."""
        network = self._trained()
        assert isinstance(network, ClassifierNetwork)
        labelled = self._cells(cite, codes)
        cells = labelled.subset(train)
        stage = self.config.transfer if isinstance(network, TransferNetwork) else self.config.finetune
        self.origin = self.origin.with_cells(cells.cell_names[cells.rows])
        history = train_classifier(network, cells, stage, self._run(cells, checkpoints, resume))
        if len(history):
            self.history = pd.concat([self.history, history], ignore_index=True)
        self.metrics.pop(str(self.stage), None)  # of an earlier run, on other labels or another split
        if len(held_out):
            scores = self._score(network, labelled.subset(held_out)).to_dict()
            self.metrics[str(self.stage)] = scores
            if isinstance(labelled, StreamedCells):
                log.info("logistic regression is not scored beside: it would need all cells of the store in memory")
                return
            peer = baselines.score_logistic_regression(
                labelled.rna, labelled.protein, np.asarray(self.classes)[codes], train, held_out
            )
            scores["logistic_regression"] = peer.to_dict()

    def _score(self, network: ClassifierNetwork, cells: CellDataset) -> Evaluation:
        table = self._predictions(network, cells)
        truth = np.asarray(self.classes)[cells.labels[cells.rows]]
        return evaluate_predictions(table["label"], truth, table["probability"].to_numpy(), protocol="held-out")
