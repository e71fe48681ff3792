"""The public face: one object that is pretrained, fine-tuned, transferred, asked and saved."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, overload

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from scfusionttt import keys
from scfusionttt.config import Config
from scfusionttt.config import preset as named_preset
from scfusionttt.config_text import require
from scfusionttt.data.citeseq import CiteSeq, as_citeseq
from scfusionttt.data.features import Features, choose_features, match_features
from scfusionttt.data.loader import CellDataset, StreamedCells, cell_dataset
from scfusionttt.data.split import train_and_held_out, usable_labels
from scfusionttt.data.store import StoredCiteSeq
from scfusionttt.data.validate import check, require_usable
from scfusionttt.data.values import Preprocessing
from scfusionttt.errors import InputDataError, ModelFolderError, SettingError
from scfusionttt.evaluation import Evaluation, evaluate_predictions, peers
from scfusionttt.explain.relevance import find_target, relevance
from scfusionttt.explain.surprise import as_track, write_track
from scfusionttt.model_folder import ModelFolder
from scfusionttt.nn.networks import (
    ClassifierNetwork,
    Network,
    PretrainNetwork,
    TransferNetwork,
    build_network,
    carry_over,
)
from scfusionttt.origin import Origin
from scfusionttt.training import inference, ranks
from scfusionttt.training.budget import parse_size
from scfusionttt.training.runner import Run, choose_device
from scfusionttt.training.stages import train_classifier, train_pretraining

log = logging.getLogger("scfusionttt")

Data: TypeAlias = "AnnData | MuData | CiteSeq"


class FusionTTT:
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

    def __init__(
        self,
        preset: str = "default",
        *,
        device: str = "auto",
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

    def pretrain(
        self, data: Data, *, species: str | None = None, checkpoints: Path | None = None, resume: bool = False
    ) -> Self:
        """Learn the fused representation from CITE-seq (or RNA alone), without labels: stage 1.

        Parameters
        ----------
        data
            Raw counts: AnnData, MuData, or an opened store (`scfusionttt.data.store.open_store`), which is streamed.
        species
            ``human`` or ``mouse``; None: by the gene names.
        checkpoints, resume
            Folder that the state is kept in after each epoch, and whether to go on from there.

        Raises
        ------
        UserError
            When the data cannot be used; the message says why and what to do.
        """
        cite = _usable(data, learn=True)
        network = self._start(cite, species)
        assert self.features is not None and self.preprocessing is not None
        cells = cell_dataset(cite, match_features(cite, self.features), self.preprocessing)
        self.history = train_pretraining(network, cells, self.config.pretrain, self._run(cells, checkpoints, resume))
        return self

    def build(self, data: Data, *, species: str | None = None) -> Self:
        """Settle features, constants and a network of random weights: what stage 2 starts from without stage 1."""
        self._start(_usable(data, learn=True), species)
        return self

    def finetune(
        self,
        data: Data,
        *,
        labels: str,
        train_fraction: float | None = None,
        split: str | None = None,
        checkpoints: Path | None = None,
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
        backbone = self._trained().backbone
        cite = _usable(data, learn=True)
        codes, classes = usable_labels(cite.obs, labels)
        train, held_out = train_and_held_out(
            cite.obs, codes, train_fraction=train_fraction, split=split, seed=self.config.seed
        )
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
        checkpoints: Path | None = None,
        resume: bool = False,
    ) -> "FusionTTT":
        """Return a student for RNA-only data: stage 3.

        The student takes the mean and deviation of each gene from `data` (another platform counts otherwise). With
        `labels` it learns the projection from RNA to the missing proteins and the head, the rest being frozen;
        without, it keeps the classes and the projection learned on the CITE-seq reference (zero-shot).

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
        assert self.features is not None and self.preprocessing is not None
        cite = _usable(data, learn=True)
        match = match_features(cite, self.features)
        student = FusionTTT(
            device=self.device, memory=self.memory, progress=self.progress, devices=self.devices, nodes=self.nodes
        )
        student.config, student.features = self.config, self.features
        student.history, student.metrics, student.origin = self.history, dict(self.metrics), self.origin
        student.preprocessing = self.preprocessing.adapted(cite, match, self.config.data)
        student.classes, student.stage = self.classes, "transfer"
        if labels is None:
            _tell(match.notes)
            student.metrics.pop("transfer", None)
            student.network = student._build(len(self.classes))
            carry_over(network, self.classes, student.network, self.classes)
            return student
        codes, student.classes = usable_labels(cite.obs, labels)
        train, held_out = train_and_held_out(
            cite.obs, codes, train_fraction=train_fraction, split=split, seed=self.config.seed
        )
        student.network = student._seeded(lambda: student._build(len(student.classes)))
        carry_over(network, self.classes, student.network, student.classes)
        student._learn_classes(cite, codes, train, held_out, checkpoints, resume)
        return student

    @overload
    def embed(self, data: Data, *, inplace: bool = False, surprise: Literal[False] = False) -> np.ndarray: ...

    @overload
    def embed(self, data: Data, *, inplace: bool = False, surprise: Literal[True]) -> tuple[np.ndarray, AnnData]: ...

    def embed(
        self, data: Data, *, inplace: bool = False, surprise: bool = False
    ) -> np.ndarray | tuple[np.ndarray, AnnData]:
        """Return the fused representation of each cell, and how each stretch of its genome surprised the model.

        Parameters
        ----------
        inplace
            Also write it to ``data.obsm["X_fusionttt"]``, and the surprise as :func:`scfusionttt.explain.write_track`.
        surprise
            Also return the inner loss of the RNA encoder's TTT layers at each gene token.

        Returns
        -------
        float32 [n, n_latent], cells in the input's order, in arbitrary units: distances within one model compare;
        with `surprise`, also AnnData [n, tokens], see :func:`scfusionttt.explain.as_track`.

        Raises
        ------
        SettingError
            Surprise is asked of a model without TTT layers in its RNA encoder.
        """
        network = self._trained()
        cite = _usable(data)
        target = _same_cells(data, cite) if inplace else None
        cells, device = self._cells(cite), self._device()
        if surprise:
            z, loss = inference.embed_and_surprise(network, cells, device)
        else:
            z = inference.embed(network, cells, device)
        if target is not None:
            target.obsm[keys.X_FUSIONTTT] = z
        if not surprise:
            return z
        assert self.features is not None
        track = as_track(loss, self.features.genes, cite.rna.obs_names, patch=self.config.network.patch)
        if target is not None:
            write_track(target, track)
        return z, track

    def predict(self, data: Data, *, unknown: float | None = None, inplace: bool = False) -> pd.DataFrame:
        """Return the class of each cell: columns label, probability (0..1, softmax), and one per class.

        Parameters
        ----------
        unknown
            Name a cell ``unknown`` where no more than this share (0..1) of the known cells lies as far as it does from
            every class; the column ``usual`` tells that share. See :class:`~scfusionttt.nn.heads.Novelty`.
        inplace
            Also write label and probability to ``data.obs``.

        Raises
        ------
        SettingError
            When the model knows no classes, or `unknown` is asked for and its distances were never calibrated.
        """
        network = self._trained()
        if not isinstance(network, ClassifierNetwork):
            raise SettingError("this model knows no classes; run finetune first")
        cite = _usable(data)
        target = _same_cells(data, cite) if inplace else None
        if unknown is not None:
            require(0 < unknown < 1, f"unknown={unknown} is no share of the known cells; give 0.01, say")
            require(
                network.novelty.is_calibrated,
                "this model cannot tell unknown cells; fine-tune it with validation_fraction above 0",
            )
        table = self._predictions(network, self._cells(cite), unknown)
        if target is not None:
            target.obs[keys.LABEL] = table["label"].to_numpy()
            target.obs[keys.PROBABILITY] = table["probability"].to_numpy()
        return table

    def impute(self, data: Data) -> pd.DataFrame:
        """Return the proteins of each cell as rebuilt from the fused representation; the input needs none.

        Returns
        -------
        DataFrame [n, p] in the units of the model's log-ratios: ``log1p(count / geometric mean)``, the mean over the
        training cells, natural logarithm.

        Raises
        ------
        SettingError
            When the model was not trained with proteins, or is past pretraining (the decoders are dropped then).
        """
        network = self.network
        if self.features is None or self.preprocessing is None or not isinstance(network, PretrainNetwork):
            raise SettingError("imputing proteins needs the decoders of a pretrained model; fine-tuning drops them")
        if not len(self.features.proteins):
            raise SettingError("this model was trained without proteins and cannot impute them")
        if not self.config.pretrain.bottleneck_weight:
            raise SettingError("this model never learned to rebuild proteins; pretrain with bottleneck_weight > 0")
        cite = _usable(data)
        scaler = self.preprocessing.protein
        scaled = inference.rebuilt_proteins(network, self._cells(cite), self._device())
        values = scaled * scaler.std + scaler.mean
        return pd.DataFrame(values, index=cite.rna.obs_names, columns=self.features.proteins["name"].tolist())

    def explain(
        self, data: Data, target: str, *, labels: str | None = None, cells: int = 500, **options: Any
    ) -> pd.DataFrame:
        """Return the genes and proteins that a protein (pretrained model) or a class (later stages) rests on.

        Parameters
        ----------
        target
            Name of a protein, which is then rebuilt without looking at it, or of a class.
        labels
            obs column with cell types: contributions are averaged by type, and a class is held against it.
        cells
            How many cells to look at, drawn at random.
        **options
            ``steps``, ``masked``, ``permutations``, ``level``, as in :func:`scfusionttt.explain.relevance`.

        Returns
        -------
        DataFrame as of :func:`scfusionttt.explain.relevance`: only what exceeds chance, highest first.

        Raises
        ------
        SettingError
            The model knows no such protein or class, or it does not vary among the cells.
        """
        network = self._trained()
        assert self.features is not None
        chosen = find_target(target, network, self.features.proteins, self.classes)
        cite = _usable(data)
        drawn = np.sort(np.random.default_rng(self.config.seed).permutation(cite.rna.n_obs)[:cells])
        codes, names = (None, [""]) if labels is None else usable_labels(cite.obs, labels)
        types = None if codes is None else np.array([*names, None], dtype=object)[codes[drawn]]
        is_target = None if types is None or chosen.label is None else types == chosen.name
        return relevance(
            network, self._cells(cite).subset(drawn).loaded(), self.features.table, chosen, choose_device(self.device),
            types=types, is_target=is_target, seed=self.config.seed, **options,
        )  # fmt: skip

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
        device: str = "auto",
        memory: str | int | None = None,
        progress: bool = True,
        devices: int = 1,
        nodes: int = 1,
    ) -> "FusionTTT":
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
            model.network = model._build(len(model.classes))
            found = model.network.load_state_dict(dict(folder.weights), strict=False)
            lost = [name for name in found.missing_keys if not name.startswith("novelty.")]  # format 1 knew none
            if lost or found.unexpected_keys:
                raise ValueError(f"weights {', '.join([*lost, *found.unexpected_keys][:3])}")
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, SettingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelFolderError(f"{path}: manifest and weights do not fit together ({reason})") from error
        return model

    def _start(self, cite: CiteSeq, species: str | None) -> PretrainNetwork:
        self.features, notes = choose_features(cite, self.config.data, species=species)
        _tell(notes)
        self.preprocessing = Preprocessing.fit(cite, match_features(cite, self.features), self.config.data)
        self.stage, self.classes, self.metrics, self.history = "pretrain", [], {}, pd.DataFrame()
        self.origin = Origin(taught=np.array([], dtype=np.uint32))
        network = self._seeded(lambda: self._build(0))
        self.network = network
        return network

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
        ranks.join(self.devices, self.nodes, device)
        return device

    def _trained(self) -> Network:
        if self.network is None or self.features is None or self.preprocessing is None:
            raise SettingError("the model is not trained yet; run pretrain first, or load a model folder")
        return self.network

    def _run(self, cells: CellDataset, checkpoints: Path | None, resume: bool) -> Run:
        device = self._device()
        log.info("%s: %d cells on %s", self.stage, len(cells), device)
        identity = {"stage": self.stage, "settings": self.config.to_dict(), "cells": cells.fingerprint()}
        return Run(
            device=device, seed=self.config.seed, checkpoints=checkpoints, resume=resume, progress=self.progress,
            memory=self.memory, identity=identity,
        )  # fmt: skip

    def _cells(self, cite: CiteSeq, labels: np.ndarray | None = None) -> CellDataset:
        """Return the cells as the model reads them, telling how many of its features they have."""
        self._trained()
        assert self.features is not None and self.preprocessing is not None
        match = match_features(cite, self.features)
        _tell(match.notes)
        return cell_dataset(cite, match, self.preprocessing, labels=labels)

    def _predictions(
        self, network: ClassifierNetwork, cells: CellDataset, unknown: float | None = None
    ) -> pd.DataFrame:
        probability, usual = inference.probabilities(network, cells, self._device())
        best = probability.argmax(axis=1)
        index = pd.Index(cells.cell_names[cells.rows], name="cell")
        label = pd.Series(pd.Categorical.from_codes(best, categories=pd.Index(self.classes)), index=index)
        told = {"label": label, "probability": probability[np.arange(len(best)), best]}
        if unknown is not None:
            known = label if keys.UNKNOWN in self.classes else label.cat.add_categories(keys.UNKNOWN)
            told |= {"label": known.mask(usual <= unknown, keys.UNKNOWN), "usual": usual}
        by_class = pd.DataFrame(probability, index=index, columns=self.classes)
        return pd.concat([pd.DataFrame(told, index=index), by_class], axis=1)

    def _learn_classes(
        self,
        cite: CiteSeq,
        codes: np.ndarray,
        train: np.ndarray,
        held_out: np.ndarray,
        checkpoints: Path | None,
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
        self.history = pd.concat([self.history, history], ignore_index=True)
        self.metrics.pop(str(self.stage), None)  # of an earlier run, on other labels or another split
        if len(held_out):
            scores = self._score(network, labelled.subset(held_out)).to_dict()
            self.metrics[str(self.stage)] = scores
            if isinstance(labelled, StreamedCells):
                log.info("logistic regression is not scored beside: it would need all cells of the store in memory")
                return
            peer = peers.score_logistic_regression(
                labelled.rna, labelled.protein, np.asarray(self.classes)[codes], train, held_out
            )
            scores["logistic_regression"] = peer.to_dict()

    def _score(self, network: ClassifierNetwork, cells: CellDataset) -> Evaluation:
        table = self._predictions(network, cells)
        truth = np.asarray(self.classes)[cells.labels[cells.rows]]
        return evaluate_predictions(table["label"], truth, table["probability"].to_numpy(), protocol="held-out")


def _usable(data: Data, *, learn: bool = False) -> CiteSeq:
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


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        log.info(note)


def _same_cells(data: Data, cite: CiteSeq) -> "AnnData | MuData":
    """Return the caller's object, whose rows are the cells of `cite`."""
    if isinstance(data, CiteSeq) or not data.obs_names.equals(cite.rna.obs_names):
        raise InputDataError("results cannot be written into the input, whose cells differ between the modalities")
    return data
