"""The public class: one model that is pretrained, fine-tuned, transferred, queried and saved."""

import logging
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scfusionttt import inference, keys
from scfusionttt.config import Config
from scfusionttt.config import preset as named_preset
from scfusionttt.config.parse import parse_size
from scfusionttt.config.rules import refuse_other_training
from scfusionttt.data.cells import CiteSeq, has_rna
from scfusionttt.data.cohort import Cohort, cohort_of, warn_if_confounded
from scfusionttt.data.features import Features
from scfusionttt.data.inplace import inplace_target, write_tables
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.split import Labels, split_labels
from scfusionttt.errors import SettingError, require, require_fraction
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.explain.relevance import draw_cells, find_target, relevance
from scfusionttt.explain.surprise import as_track, write_track
from scfusionttt.labels import usable_labels
from scfusionttt.model import mapping
from scfusionttt.model.annotation import Annotation
from scfusionttt.model.dataset import adapt_preprocessing, dataset_for, learn_features, log_genes, make_dataset
from scfusionttt.model.denoising import DenoisedUnits, denoise, require_denoising
from scfusionttt.model.hub import local_folder
from scfusionttt.model.imputation import ImputedProteins, Units, impute, obsm_tables, require_imputable
from scfusionttt.model.initial_networks import finetune_network, pretrain_network, transfer_network
from scfusionttt.model.inputs import Data, InputOptions, cells_to_learn_from, check_cells, each_line_once
from scfusionttt.model.mapping import Mapped
from scfusionttt.model.predictions import class_table, predict_classes, score_held_out
from scfusionttt.model.provenance import Provenance
from scfusionttt.model.refinement import refine as refined
from scfusionttt.model.scvi_names import ARGUMENTS, METHODS
from scfusionttt.model.state import TrainedState
from scfusionttt.model.unlike import (
    MOST_FAR,
    far_share,
    p_values,
    warn_of_another_study,
    warn_of_other_mixture,
    warn_of_other_proteins,
)
from scfusionttt.nn.networks import ClassifierNetwork, Network, PretrainNetwork
from scfusionttt.training import distributed
from scfusionttt.training.machine import choose_device
from scfusionttt.training.run import Run

log = logging.getLogger("scfusionttt")


class _Hints(type):
    """Suggests what to use instead of a method of scvi-tools that is looked up on the class."""

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(cls, name: str) -> Any:
            raise AttributeError(_no_attribute(name))


class FusionTTT(metaclass=_Hints):
    """scFusionTTT: fuse RNA and proteins of CITE-seq, predict cell types, and transfer both to RNA-only data.

    Parameters
    ----------
    preset
        ``default``, ``paper``, ``scmmae`` (`paper` with attention), ``whole`` (every gene a token) or ``fast``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory
        Upper limit for the memory of the process during training: ``6GiB``, ``4GB`` or bytes; None: 80 % of what is
        free. On a GPU, its memory. Batches are split so that each part fits.
    progress
        Show the progress of training on stderr.
    devices, nodes
        Processes per machine and number of machines, if started with ``torchrun``.
    **settings
        Settings that differ from the preset: ``seed=1``, ``network={"width": 128}``.

    Notes
    -----
    Every method that takes `data` accepts raw counts as AnnData, MuData, or a store opened with
    :func:`scfusionttt.open_store` (which is streamed). The keyword arguments `layer`,
    `rna_modality`, `protein_modality`, `cells` and `round` are those of
    :func:`~scfusionttt.data.assemble.as_citeseq`; `drop_empty` leaves out cells without RNA counts instead of refusing
    the input. Cells with proteins alone (``cells="all"``) are not trained on: their place in the embedding is predicted
    from their proteins. If `data` cannot be used, it raises a :class:`~scfusionttt.errors.UserError` whose message says
    why and what to do. A stage of training that fails or is interrupted leaves the model as it was.

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
        device: str | torch.device = "auto",
        memory: str | int | None = None,
        progress: bool = True,
        devices: int = 1,
        nodes: int = 1,
        **settings: Any,
    ):
        if not isinstance(preset, str):
            raise SettingError(
                f"FusionTTT() takes the name of a preset, not {type(preset).__name__}; data go to its methods: "
                "FusionTTT().pretrain(data)"
            )
        for name in settings.keys() & ARGUMENTS.keys():
            raise SettingError(f"there is no setting {name!r}; use {ARGUMENTS[name]}")
        self._config = named_preset(preset).with_settings(settings)
        self._state: TrainedState | None = None
        self.device = device
        self.memory = None if memory is None else parse_size(memory)
        self.progress = progress
        self.devices, self.nodes = devices, nodes

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(_no_attribute(name))

    def __repr__(self) -> str:
        state = self._state
        if state is None:
            return f"{type(self).__name__}, not trained"
        sizes = f"{len(state.features.genes)} genes, {len(state.features.proteins)} proteins"
        return (
            f"{type(self).__name__}, stage {state.stage}: {sizes}, {len(state.classes)} classes, "
            f"{state.features.species}"
        )

    # -- what the model knows ----------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """All settings; replace them to train the next stage with others.

        SettingError: those of a trained model's data, network and pretraining are fixed.
        """
        return self._config if self._state is None else self._state.config

    @config.setter
    def config(self, config: Config) -> None:
        if self._state is not None:
            refuse_other_training(self._state.config, config)
            self._state = replace(self._state, config=config)
        self._config = config

    @property
    def features(self) -> Features:
        """The features that the model reads, in the order of its tokens; SettingError before training."""
        return deepcopy(self._trained().features)

    @property
    def preprocessing(self) -> Preprocessing:
        """The constants that scale the values of the features; SettingError before training."""
        return self._trained().preprocessing

    @property
    def network(self) -> Network:
        """The network with its weights; SettingError before training."""
        return self._trained().network

    @property
    def stage(self) -> str | None:
        """``pretrain``, ``finetune`` or ``transfer``; None before training."""
        return None if self._state is None else self._state.stage

    @property
    def classes(self) -> list[str]:
        """Class names; empty before fine-tuning."""
        return [] if self._state is None else list(self._state.classes)

    @property
    def batch_keys(self) -> list[str]:
        """The obs columns of donors, lanes or runs that it was trained with; empty without batches."""
        return [] if self._state is None else list(self._state.cohort.levels)

    @property
    def cohort(self) -> Cohort:
        """The batches that it was trained with, and those that :meth:`map` has added."""
        return Cohort() if self._state is None else self._state.cohort

    @property
    def history(self) -> pd.DataFrame:
        """Training curves of all stages, one row per epoch."""
        return pd.DataFrame() if self._state is None else self._state.history.copy()

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores on held-out cells by stage, as :meth:`scfusionttt.evaluation.Evaluation.to_dict` returns them."""
        return {} if self._state is None else deepcopy(self._state.metrics)

    @property
    def provenance(self) -> Provenance:
        """The commands that made the model, and the cells whose labels it was trained on."""
        return Provenance.untrained() if self._state is None else self._state.provenance

    def protocol(self, cell_names: Iterable[object]) -> Protocol:
        """Return the protocol under which an embedding of these cells can be scored.

        ``unsupervised`` if the network was trained without labels, as by ``finetune.classifier=kernel`` and ``linear``,
        which fit a head to it; ``zero-shot`` if with labels of none of these cells; else ``paper``, also if the cells
        were not recorded.
        """
        if self.history.empty or (self.history["stage"] == "pretrain").all():
            return "unsupervised"
        learned = self.provenance.learned(cell_names)
        return "paper" if learned is None or learned.any() else "zero-shot"

    # -- training ----------------------------------------------------------------------------------------------------

    def pretrain(
        self,
        data: Data,
        *,
        batch_key: str | Sequence[str] | None = None,
        species: str | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> Self:
        """Learn the fused representation from CITE-seq (or RNA alone), without labels: stage 1.

        Parameters
        ----------
        data, **input_options
            Cells to train on; see Notes of :class:`FusionTTT`. With ``cells="all"``, those with both modalities teach
            where cells with proteins alone lie.
        batch_key
            obs columns of donors, lanes or runs, whose effects are removed from the embedding; for the first one, the
            counts of antibodies that stain its batches differently are brought to one scale, too. None: the inputs of a
            store, if it has several; an empty sequence: none.
        species
            ``human`` or ``mouse``; None: inferred from the gene names.
        checkpoints, resume
            Folder for the state of training after each epoch, and whether to resume from it.
        """
        cite = check_cells(data, training=True, **input_options)
        learned_from = cells_to_learn_from(cite, place=True)
        state = self._untrained_state(learned_from, species, cohort_of(cite, batch_key))
        dataset = make_dataset(cite, state.features, state.preprocessing, state.cohort)
        assert isinstance(state.network, PretrainNetwork)
        run = self._run(state, dataset, checkpoints, resume)
        from scfusionttt.model.stages import train_pretraining  # loads Lightning

        history = train_pretraining(state.network, dataset, state.config.pretrain, run)
        self._state = replace(state, history=history)
        return self

    def build(
        self, data: Data, *, species: str | None = None, **input_options: Unpack[InputOptions]
    ) -> Self:  # fmt: skip
        """Choose features and constants as :meth:`pretrain` does, and leave the weights random: to fine-tune from.

        The model can embed, as a baseline, but neither impute, denoise nor explain.

        Parameters
        ----------
        data, **input_options
            Cells to choose features from; see Notes of :class:`FusionTTT`.
        species
            ``human`` or ``mouse``; None: inferred from the gene names.
        """
        cite = cells_to_learn_from(check_cells(data, training=True, **input_options))
        self._state = self._untrained_state(cite, species, Cohort())
        return self

    def finetune(
        self,
        data: Data,
        *,
        labels_key: str,
        train_fraction: float | None = None,
        split: str | None = None,
        baseline: bool = False,
        checkpoints: str | Path | None = None,
        resume: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> Self:
        """Learn cell types from labelled CITE-seq: stage 2.

        Parameters
        ----------
        data, **input_options
            Cells to train on; see Notes of :class:`FusionTTT`.
        labels_key
            obs column with the cell types; unlabelled cells (``unknown``, missing) are not trained on.
        train_fraction, split
            Train on this fraction of each class, or on the cells whose obs column `split` is ``train``; the other
            labelled cells are held out and scored in ``metrics["finetune"]``. With neither, train on all of them.
        baseline
            Also score logistic regression on the same cells; this needs the values of all cells in memory, dense.
        checkpoints, resume
            As in :meth:`pretrain`.

        Raises
        ------
        SettingError
            The network would learn (``finetune.classifier=finetune``), but :meth:`map` has added batches to a model
            that was trained without.
        """
        state = self._trained()
        mapping.refuse_moving(state, "finetune")
        cite = cells_to_learn_from(check_cells(data, training=True, **input_options))
        labels = split_labels(cite.obs, labels_key, train_fraction=train_fraction, split=split, seed=state.config.seed)
        warn_if_confounded(cite.obs, state.cohort, labels_key, labels.codes)
        network = finetune_network(state, labels.classes)
        start = replace(state, network=network, classes=labels.classes, stage="finetune")
        self._state = self._train_classifier(start, cite, labels, checkpoints, resume, baseline)
        return self

    def transfer(
        self,
        data: Data,
        *,
        labels_key: str | None = None,
        train_fraction: float | None = None,
        split: str | None = None,
        baseline: bool = False,
        checkpoints: str | Path | None = None,
        resume: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> "FusionTTT":
        """Return a student model for RNA-only data: stage 3.

        The student takes the mean and deviation of each gene from `data`, because counts differ between platforms. The
        cells must therefore be a mixture of types like that of the training cells; for sorted ones, use
        :meth:`annotate`.
        Without `labels_key` it keeps the classes and the weights learned on CITE-seq (zero-shot). With `labels_key` it
        learns a new head and, with ``finetune.classifier=finetune``, also the projection from RNA to the missing
        proteins; all other weights are frozen.

        Parameters
        ----------
        data, **input_options
            Cells to transfer to; see Notes of :class:`FusionTTT`. Proteins are not used, so `cells` is ``rna`` by
            default.
        labels_key, train_fraction, split, baseline, checkpoints, resume
            As in :meth:`finetune`; the baseline reads RNA alone, like the student.

        Raises
        ------
        SettingError
            Without `labels_key`, the model has no classes, or the cells are of new batches and the network of the model
            learned labels after the effects of its batches were fitted (``finetune.classifier=finetune``). With
            `labels_key`, as :meth:`finetune`.
        """
        state = self._trained()
        if labels_key is None and not state.classes:
            raise SettingError("transfer without labels_key needs a model with classes; run finetune first")
        for name, value in (("train_fraction", train_fraction), ("split", split), ("baseline", baseline or None)):
            if labels_key is None and value is not None:
                raise SettingError(f"{name}={value!r} needs labels_key; leave it out for zero-shot transfer")
        if labels_key is not None:
            mapping.refuse_moving(state, "transfer")
        if not isinstance(data, CiteSeq):
            input_options.setdefault("cells", "rna")  # proteins are not used
        cite = cells_to_learn_from(check_cells(data, training=True, **input_options))
        start = replace(
            state,
            stage="transfer",
            preprocessing=adapt_preprocessing(cite, state),
            metrics={stage: scores for stage, scores in state.metrics.items() if stage != "transfer"},
        )
        if labels_key is None:
            log_genes(cite, state)
            start = replace(start, network=transfer_network(state, state.classes, keep_head=True))
            student = self._with_batches(start, cite)
            mapping.refuse_moved(state, student)
            warn_of_other_mixture(student, state.preprocessing, cite, self._join_processes())
            return self._with_state(student)
        labels = split_labels(cite.obs, labels_key, train_fraction=train_fraction, split=split, seed=state.config.seed)
        start = replace(start, network=transfer_network(state, labels.classes), classes=labels.classes)
        start = self._with_batches(start, cite)
        return self._with_state(self._train_classifier(start, cite, labels, checkpoints, resume, baseline))

    # -- results -----------------------------------------------------------------------------------------------------

    @overload
    def embed(
        self,
        data: Data,
        *,
        inplace: bool = False,
        surprise: Literal[False] = False,
        **input_options: Unpack[InputOptions],
    ) -> np.ndarray: ...

    @overload
    def embed(
        self, data: Data, *, inplace: bool = False, surprise: Literal[True], **input_options: Unpack[InputOptions]
    ) -> tuple[np.ndarray, AnnData]: ...

    def embed(
        self, data: Data, *, inplace: bool = False, surprise: bool = False, **input_options: Unpack[InputOptions]
    ) -> np.ndarray | tuple[np.ndarray, AnnData]:
        """Return the embedding of each cell: one vector that represents RNA and proteins.

        Cells of another study lie apart from those that the model was trained on: use :meth:`map` to compare them. If
        most do so and the model has no batches, a warning says so.

        Parameters
        ----------
        data, **input_options
            Cells to embed; see Notes of :class:`FusionTTT`.
        inplace
            Also write the embedding to ``data.obsm["X_fusionttt"]``, its protocol to ``data.uns["fusionttt_protocol"]``
            and the surprise with :func:`scfusionttt.explain.write_track`.
        surprise
            Also return the inner loss of the RNA encoder's TTT layers at each gene token: how poorly a layer predicts a
            token from the tokens before it.

        Returns
        -------
        float32 [n, d], cells in the order of the input. Units are arbitrary; compare distances within one model only.
        d is the width of the bottleneck, plus `network.components` and the number of proteins if `components` is above
        0. Without bottleneck (``network.latent=0``), the width of a token takes its place, once for each modality (with
        ``network.readout=summary``, once in all). With `surprise`, also AnnData [n, tokens], see
        :func:`scfusionttt.explain.as_track`, NaN for tokens of which no gene was measured.

        Raises
        ------
        SettingError
            `surprise` needs TTT layers in the RNA encoder.
        InputDataError
            `inplace` with an object that results cannot be written into, such as a store.
        """
        state = self._trained()
        cite = check_cells(data, **input_options)
        target = inplace_target(data, cite.rna.obs_names) if inplace else None
        dataset, device = dataset_for(state, cite), self._join_processes()
        warn_of_another_study(state.network, dataset, device)
        track = None
        if surprise:
            z, loss = inference.embed_with_inner_loss(state.network, dataset, device)
            features, patch = state.features, state.config.network.patch
            track = as_track(loss, features.genes, cite.rna.obs_names, patch=patch, species=features.species)
        else:
            z = inference.embed(state.network, dataset, device)
        if target is not None:
            target.obsm[keys.X_FUSIONTTT] = z
            target.uns[keys.PROTOCOL] = self.protocol(cite.rna.obs_names)
            if track is not None:
                write_track(target, track)
        return z if track is None else (z, track)

    def map(
        self,
        query: Data,
        *,
        batch_key: str | None = None,
        rna_only: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> Mapped:
        """Embed cells of batches that the model was not trained on; the reference's embedding stays as it is.

        The reference may have batches or not. Only the effects of the new ones are estimated: cells are assigned to the
        kinds of cells of the reference, whose shifts in the new batch are found by ridge regression, as in Symphony
        (Kang et al. 2021). No label is needed. If antibodies stain the new batch differently, its counts are scaled, so
        that the proteins have the values that its RNA predicts in most kinds of its cells. The query may lack genes and
        proteins, or have others. Cell types are predicted from the corrected latent.

        Parameters
        ----------
        query, **input_options
            Cells to map; see Notes of :class:`FusionTTT`.
        batch_key
            obs column with the batches of the query. Cells of a batch that the model knows are embedded as by
            :meth:`embed`. None: the model's first batch key, if the query has that column, else the inputs of a store,
            else one batch named ``query`` (``query 2``, ... if the model has one of this name).
        rna_only
            Ignore the proteins of the query, as if it had none; the model that is returned is for such cells. Use it if
            the query has few of the model's proteins.

        Raises
        ------
        SettingError
            The model does not know the kinds of cells that it was trained on: it is of an older version, or of a preset
            without bottleneck (``paper``, ``scmmae``) and without batches. Or it was trained on batches, and its
            network then on labels (``finetune.classifier=finetune``).
        InputDataError
            The cells cannot be used, or some have no RNA and `rna_only` is set.
        """
        state, device = self._trained(), self._join_processes()
        cite = check_cells(query, **input_options)
        extended, dataset, names = mapping.add_batches(state, cite, batch_key, device, rna_only=rna_only)
        mapping.refuse_moved(state, extended)
        network = extended.network
        p_value = p_values(network, dataset, device)
        cells = pd.DataFrame({"batch": names, "p_value": p_value}, index=cite.rna.obs_names.rename("cell"))
        if isinstance(network, ClassifierNetwork):
            table = predict_classes(network, dataset, extended.classes, device)
            cells = cells.assign(label=table["label"], probability=table["probability"])
        embedding = inference.embed(network, dataset, device)
        batches = mapping.by_batch(network, dataset.batches[:, 0], names, p_value)
        return Mapped(embedding, cells, batches, self._with_state(extended))

    def predict(
        self,
        data: Data,
        *,
        unknown: float | None = None,
        refine: bool = False,
        rna_only: bool = False,
        inplace: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> pd.DataFrame:
        """Predict the class of each cell.

        Parameters
        ----------
        data, **input_options
            Cells to classify; see Notes of :class:`FusionTTT`.
        unknown
            Label a cell ``unknown`` if its p-value is at most this (e.g. 0.01). The p-value is the fraction of known
            cells, held out from training, that lie at least as far from every class; see
            :class:`~scfusionttt.nn.heads.Novelty`. With n of these, about one cell in n + 1 of a known class is farther
            away than all of them and has a p-value of 0: many, if ``finetune.classifier=finetune`` held out few.
        refine
            Let cells of `data` with similar RNA vote on one another's class and p-value, see
            :func:`~scfusionttt.model.refinement.refine`: more accurate for cells with RNA alone, less for those with
            measured proteins, which the vote does not see. A cell's prediction then depends on the other cells.
        rna_only
            Ignore the proteins of cells that have RNA. Proteins of another study differ by antibodies and depth, which
            misleads the classifier unless :meth:`map` has removed the differences.
        inplace
            Also write label (categorical) and probability to ``data.obs``; Cell Ontology ids of an earlier
            :meth:`annotate` are removed.

        Returns
        -------
        DataFrame [n, ...] with the columns label, probability (0 to 1, softmax), p_value (with `unknown`), and the
        probability of each class. The column of a class named cell, label, probability or p_value is ``class NAME``.

        Raises
        ------
        SettingError
            The model has no classes, or `unknown` is given and its p-values were not calibrated.
        InputDataError
            `inplace` with an object that results cannot be written into, such as a store.
        """
        state = self._trained()
        network = state.network
        if not isinstance(network, ClassifierNetwork):
            raise SettingError("this model has no classes; run finetune first")
        cite = check_cells(data, **input_options)
        target = inplace_target(data, cite.rna.obs_names) if inplace else None
        if unknown is not None:
            require_fraction("unknown", unknown, example=0.01)
            require(
                network.novelty.is_calibrated,
                "this model cannot detect unknown cells; fine-tune it with validation_fraction above 0",
            )
        dataset = dataset_for(state, cite, by_rna=rna_only and bool(has_rna(cite.rna).all()))
        probability, p_value = inference.probabilities(network, dataset, self._join_processes(), rna_only=rna_only)
        if not rna_only and inference.uses_proteins(network):
            warn_of_other_proteins(dataset.match, p_value)
        if refine:
            with_rna = has_rna(cite.rna)  # only these can be compared with one another
            adapted = adapt_preprocessing(cite, state)
            own = make_dataset(cite, state.features, adapted).with_rna()
            probability[with_rna], p_value[with_rna] = refined(
                probability[with_rna], p_value[with_rna], own, seed=state.config.seed
            )
        table = class_table(probability, p_value, dataset, state.classes, unknown)
        if target is not None:
            target.obs[keys.LABEL] = table["label"].array.copy()
            target.obs[keys.PROBABILITY] = table["probability"].to_numpy()
            if keys.ONTOLOGY in target.obs:  # of the labels of an earlier `annotate`
                del target.obs[keys.ONTOLOGY]
        return table

    @overload
    def impute(
        self,
        data: Data,
        *,
        units: Units = "log_ratio",
        intervals: Literal[False] = False,
        transform_batch: str | int | None = None,
        inplace: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> pd.DataFrame: ...

    @overload
    def impute(
        self,
        data: Data,
        *,
        units: Units = "log_ratio",
        intervals: Literal[True],
        transform_batch: str | int | None = None,
        inplace: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> ImputedProteins: ...

    def impute(
        self,
        data: Data,
        *,
        units: Units = "log_ratio",
        intervals: bool = False,
        transform_batch: str | int | None = None,
        inplace: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> pd.DataFrame | ImputedProteins:
        """Predict the proteins of each cell from its RNA; measured proteins are not used.

        Cells without RNA get NaN, and so do proteins that fewer than 10 training cells had.

        The prediction is the mean of ridge regression on all genes and kernel ridge regression on their principal
        components, fitted in pretraining.

        Parameters
        ----------
        data, **input_options
            Cells to impute; see Notes of :class:`FusionTTT`.
        units
            ``log_ratio``: ``log1p(count / geometric mean)``, natural logarithm, geometric mean over the training cells;
            ``counts``: the same as counts at the sequencing depth of the training cells. These are back-transformed
            means of logarithms, so they lie below mean counts. Both are for the staining of the mean training cell.
        intervals
            Also return standard deviations and 90 % intervals, for cells of another donor than those trained on.
        transform_batch
            Impute the proteins as they would be measured in this batch, a level of the model's first batch key: what it
            adds to each kind of cells replaces what a cell's own batch adds, and its staining that of the mean cell.
            None: the prediction as it is.
        inplace
            Also write the values to ``data.obsm["protein_imputed"]`` and, with `intervals`, the others to
            ``protein_imputed_sd``, ``protein_imputed_low`` and ``protein_imputed_high``, which are removed without.
            Slashes in the names of proteins become underscores, so that `data` can be saved.

        Returns
        -------
        DataFrame [n, p] or, with `intervals`, :class:`~scfusionttt.model.imputation.ImputedProteins`.

        Raises
        ------
        SettingError
            The model was trained without proteins, or by a version that could not impute after fine-tuning, or that
            had no intervals, or it does not know the batch.
        InputDataError
            `inplace` with an object that results cannot be written into, such as a store.
        """
        state = self._learned()
        require_imputable(state, intervals=intervals, units=units, transform_batch=transform_batch)
        cite = check_cells(data, **input_options)
        target = inplace_target(data, cite.rna.obs_names) if inplace else None
        imputed = impute(
            state, cite, self._join_processes(),
            units=units, intervals=intervals, transform_batch=transform_batch,
        )  # fmt: skip
        if target is not None:
            write_tables(target, obsm_tables(imputed))
        return imputed

    def denoise(
        self, data: Data, *, units: DenoisedUnits = "log", **input_options: Unpack[InputOptions]
    ) -> AnnData:  # fmt: skip
        """Return the genes and proteins of each cell as reconstructed from its bottleneck.

        Uses the measured proteins, unlike :meth:`impute`. Proteins of a cell without any are predicted from its RNA,
        genes of a cell without RNA from its proteins. Batch effects are kept: the decoders do not know the batches, and
        proteins have the staining of the cell's batch. Denoised values suit figures, not tests: they vary less than
        measured ones.

        Parameters
        ----------
        data, **input_options
            Cells to denoise; see Notes of :class:`FusionTTT`.
        units
            ``log``: genes as ``log1p`` of counts per 10,000 of the model's genes (scanpy's are per 10,000 of all
            genes), proteins as log-ratios (see :meth:`impute`); ``counts``: genes without the logarithm, proteins as
            counts at the depth of the training cells. These are back-transformed means of logarithms, which lie below
            mean counts: genes add up to less than was measured.

        Returns
        -------
        AnnData [n, g] of the model's genes, with ``obsm["protein_denoised"]`` (DataFrame [n, p]), the obs of the cells
        and ``uns["denoised"]`` (the units); ``var`` has symbol and gene_id, empty where unknown.
        :func:`scfusionttt.differential` refuses it.

        Raises
        ------
        SettingError
            The model is not that of `pretrain`, or reconstructs tokens alone (preset ``paper``).
        """
        state = self._learned()
        require_denoising(state, units)
        cite = check_cells(data, **input_options)
        return denoise(state, cite, self._join_processes(), units=units)

    def annotate(
        self,
        data: Data,
        *,
        unknown: float | None = 0.005,
        inplace: bool = False,
        **input_options: Unpack[InputOptions],
    ) -> Annotation:
        """Predict cell types from RNA and impute proteins: the one call for cells of another study.

        Cells with similar RNA vote on one another's class and p-value (`refine` of :meth:`predict`). Measured proteins
        are read only in cells without RNA.

        Parameters
        ----------
        data, **input_options
            Cells with RNA counts; see Notes of :class:`FusionTTT`.
        unknown
            As in :meth:`predict`; None labels no cell ``unknown``.
        inplace
            Also write label, probability and Cell Ontology id to ``data.obs``, and the proteins to ``data.obsm``.

        Raises
        ------
        SettingError, InputDataError
            As :meth:`predict`.
        """
        state = self._trained()
        cite = check_cells(data, **input_options)
        target = inplace_target(data, cite.rna.obs_names) if inplace else None
        head = state.network.backbone.protein_head
        with each_line_once():
            table = self.predict(cite, unknown=unknown, refine=True, rna_only=True)
            proteins = self.impute(cite, intervals=True) if head is not None and head.is_fitted else None
        annotation = Annotation.of(table, proteins)
        if target is not None:
            for name, column in annotation.obs().items():
                target.obs[name] = column.array.copy()
            write_tables(target, annotation.obsm())
        return annotation

    def explain(
        self,
        data: Data,
        target: str,
        *,
        labels_key: str | None = None,
        rna_only: bool = False,
        n_cells: int = 500,
        level: float = 0.05,
        steps: int = 64,
        masked: int = 50,
        permutations: int = 200,
        **input_options: Unpack[InputOptions],
    ) -> pd.DataFrame:
        """Return the genes and proteins that contribute to a protein (pretrained model) or a class (later stages).

        Parameters
        ----------
        data, **input_options
            Cells to explain; see Notes of :class:`FusionTTT`.
        target
            Name of a protein, which is then predicted without its own counts, or of a class.
        labels_key
            obs column with cell types: contributions are averaged per type, and a class is compared with its cells.
            Cells without a type are left out of the latter.
        rna_only
            Explain the target by genes alone, with all proteins hidden from the model.
        n_cells
            Number of cells to use, drawn at random among those with the protein or, with `labels_key`, a type to
            compare a class with.
        level, steps, masked, permutations
            As in :func:`scfusionttt.explain.relevance`.

        Returns
        -------
        DataFrame of :func:`scfusionttt.explain.relevance`: the features that exceed chance, highest share first.

        Raises
        ------
        SettingError
            The model has no such protein or class, it does not vary among the cells or is not predicted, `n_cells` is
            below 2, no p-value can reach `level`, or the model was not trained (see :meth:`build`).
        """
        state = self._learned()
        require(isinstance(n_cells, Integral) and n_cells > 1, f"n_cells must be at least 2 (got {n_cells!r})")
        found = find_target(target, state.network, state.features.proteins, state.classes)
        cite = cells_to_learn_from(check_cells(data, **input_options))
        batches = None if found.protein is None else state.cohort.known_codes(cite.obs)  # decoders do not read them
        dataset, types = dataset_for(state, cite, batches=batches, by_rna=rna_only), None
        if labels_key is not None:
            codes, names = usable_labels(cite.obs, labels_key, learn=False)
            types = np.array([*names, None], dtype=object)[codes]
        dataset = draw_cells(dataset, found, n_cells, types=types, seed=state.config.seed)
        types = None if types is None else types[dataset.rows]
        return relevance(
            state.network, dataset.loaded(), state.features.table, found, choose_device(self.device), types=types,
            is_target=None if types is None or found.label is None else types == found.name,
            rna_only=rna_only, seed=state.config.seed, level=level, steps=steps, masked=masked,
            permutations=permutations,
        )  # fmt: skip

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False, command: str | None = None) -> None:
        """Write the model folder: weights.safetensors, manifest.json, history.csv.

        Parameters
        ----------
        path
            Folder to write, which is created.
        overwrite
            Replace an earlier model of that name; a folder with anything else in it is never replaced.
        command
            Command line that made the model, to add to its provenance.

        Raises
        ------
        OutputError
            The folder cannot be written, or is a model already and `overwrite` is not set.
        """
        state = self._trained()
        if command is not None:
            state = replace(state, provenance=state.provenance.with_command(command))
        state.write(path, overwrite=overwrite)

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
        """Read a model folder, or ``hf://owner/name@revision`` from the Hugging Face Hub; nothing in it can run code.

        Parameters
        ----------
        path
            Folder that :meth:`save` wrote, or its address on the Hub.
        device, memory, progress, devices, nodes
            As for :class:`FusionTTT`.

        Raises
        ------
        ModelFolderError
            The folder is incomplete, damaged or of a newer format.
        SettingError, DownloadError
            The address is not valid or huggingface_hub not installed, or the Hub cannot be reached.
        """
        model = cls(device=device, memory=memory, progress=progress, devices=devices, nodes=nodes)
        model._state = TrainedState.read(local_folder(path))
        return model

    # -- steps that depend on where the model runs -------------------------------------------------------------------

    def _trained(self) -> TrainedState:
        if self._state is None:
            raise SettingError("the model is not trained; run pretrain first, or load a model folder")
        return self._state

    def _learned(self) -> TrainedState:
        """Return the state, unless :meth:`build` has left its weights random: what it predicts would be noise."""
        state = self._trained()
        if state.stage == "pretrain" and state.history.empty:
            raise SettingError("the model's weights are random, as build leaves them; run pretrain or finetune first")
        return state

    def _untrained_state(self, cite: CiteSeq, species: str | None, cohort: Cohort) -> TrainedState:
        """Return the state that stage 1 starts from, with random weights."""
        features, preprocessing = learn_features(cite, self.config, species, cohort)
        return TrainedState(
            config=self.config,
            features=features,
            preprocessing=preprocessing,
            network=pretrain_network(features, self.config, cohort, n_cells=cite.rna.n_obs),
            stage="pretrain",
            classes=[],
            history=pd.DataFrame(),
            metrics={},
            provenance=Provenance.untrained(),
            cohort=cohort,
        )

    def _with_state(self, state: TrainedState) -> "FusionTTT":
        """Return another model, which has this state and computes where this one does."""
        model = FusionTTT(
            device=self.device, memory=self.memory, progress=self.progress, devices=self.devices, nodes=self.nodes
        )
        model._state = state
        return model

    def _with_batches(self, state: TrainedState, cite: CiteSeq) -> TrainedState:
        """Return the state with the batches of the cells added, if it was trained on batches."""
        return mapping.add_batches(state, cite, None, self._join_processes())[0] if state.cohort.is_trained else state

    def _train_classifier(
        self,
        state: TrainedState,
        cite: CiteSeq,
        labels: Labels,
        checkpoints: str | Path | None,
        resume: bool,
        baseline: bool,
    ) -> TrainedState:
        """Train the classifier of stage 2 or 3 in `state`, and score the held-out cells."""
        network = state.network
        assert isinstance(network, ClassifierNetwork)
        dataset = dataset_for(state, cite, labels.codes)
        cells = dataset.subset(labels.train)
        run = self._run(state, cells, checkpoints, resume)
        from scfusionttt.model.stages import train_classifier  # loads Lightning

        history = train_classifier(network, cells, state.config.finetune, run)
        metrics = {stage: scores for stage, scores in state.metrics.items() if stage != state.stage}
        if len(labels.held_out):
            metrics[state.stage] = score_held_out(network, dataset, labels, run.device, baseline=baseline)
        return replace(
            state,
            history=pd.concat([state.history, history], ignore_index=True) if len(history) else state.history,
            metrics=metrics,
            provenance=state.provenance.with_cells(cells.cell_names[cells.rows]),
        )

    def _run(
        self, state: TrainedState, dataset: CellDataset, checkpoints: str | Path | None, resume: bool
    ) -> Run:  # fmt: skip
        if resume and checkpoints is None:
            raise SettingError("resume needs the folder of the earlier run: give checkpoints=FOLDER")
        device = self._join_processes()
        log.info("%s: %d cells on %s", state.stage, len(dataset), device)
        return Run(
            device=device, seed=state.config.seed, checkpoints=None if checkpoints is None else Path(checkpoints),
            resume=resume, progress=self.progress, memory=self.memory, identity=state.identity(dataset),
        )  # fmt: skip

    def _join_processes(self) -> torch.device:
        """Return where to compute, after joining the other processes of the run."""
        device = choose_device(self.device)
        distributed.join(self.devices, self.nodes, device)
        return device


def embed_or_map(model: FusionTTT, cite: CiteSeq) -> tuple[np.ndarray, Mapped | None]:
    """Return the embedding, and the result of `map` if the cells are of other batches or another study."""
    state, device = model._trained(), model._join_processes()
    cite = check_cells(cite)
    if state.cohort.knows(cite.obs):
        dataset = dataset_for(state, cite)
        if far_share(state.network, dataset, device) <= MOST_FAR:
            return inference.embed(state.network, dataset, device), None
    mapped = model.map(cite)
    return mapped.embedding, mapped


def _no_attribute(name: str) -> str:
    hint = f"; use {METHODS[name]}" if name in METHODS else ""
    return f"FusionTTT has no attribute {name!r}{hint}"
