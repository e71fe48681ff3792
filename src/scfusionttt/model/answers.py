"""What a trained model answers: representation, classes, proteins, and what these rest on."""

from numbers import Integral
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt import inference, keys
from scfusionttt.config_text import is_share, require
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.store.stored import StoredCiteSeq
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.explain.relevance import find_target, relevance
from scfusionttt.explain.surprise import as_track, write_track
from scfusionttt.labels import usable_labels
from scfusionttt.model.state import Data, ModelState, usable
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork
from scfusionttt.training.trainer import choose_device

#: Columns of predictions that are not classes, and the name of the cells' column in a file.
_TOLD = ("cell", "label", "probability", "usual")


class Answers(ModelState):
    """The questions that :class:`~scfusionttt.FusionTTT` can be asked."""

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
        float32 [n, d], cells in the input's order, in arbitrary units: distances within one model compare; d is the
        width of the bottleneck, and where `network.components` is above 0 also these and the model's proteins. With
        `surprise`, also AnnData [n, tokens], see :func:`scfusionttt.explain.as_track`.

        Raises
        ------
        SettingError
            Surprise is asked of a model without TTT layers in its RNA encoder.
        InputDataError
            Results cannot be written into `data`, such as a store.
        """
        network = self._trained()
        cite = usable(data)
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

        A class called cell, label, probability or usual, as other columns are, has the column ``class label``.

        Parameters
        ----------
        unknown
            Name a cell ``unknown`` where no more than this share (0..1) of the known cells lies as far as it does from
            every class; the column ``usual`` tells that share. See :class:`~scfusionttt.nn.heads.Novelty`.
        inplace
            Also write label (categorical) and probability to ``data.obs``.

        Raises
        ------
        SettingError
            When the model knows no classes, or `unknown` is asked for and its distances were never calibrated.
        InputDataError
            As for :meth:`embed`.
        """
        network = self._trained()
        if not isinstance(network, ClassifierNetwork):
            raise SettingError("this model knows no classes; run finetune first")
        cite = usable(data)
        target = _same_cells(data, cite) if inplace else None
        if unknown is not None:
            require(is_share(unknown), f"unknown={unknown!r} is no share of the known cells; give 0.01, say")
            require(
                network.novelty.is_calibrated,
                "this model cannot tell unknown cells; fine-tune it with validation_fraction above 0",
            )
        table = self._predictions(network, self._cells(cite), unknown)
        if target is not None:
            target.obs[keys.LABEL] = table["label"].array.copy()
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
        cite = usable(data)
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
            The model knows no such protein or class, it does not vary among the cells, or `cells` is not above 1.
        """
        network = self._trained()
        assert self.features is not None
        require(isinstance(cells, Integral) and cells > 1, f"cells={cells!r} cannot be drawn; give a number above 1")
        chosen = find_target(target, network, self.features.proteins, self.classes)
        cite = usable(data)
        drawn = np.sort(np.random.default_rng(self.config.seed).permutation(cite.rna.n_obs)[:cells])
        codes, names = (None, [""]) if labels is None else usable_labels(cite.obs, labels, learn=False)
        types = None if codes is None else np.array([*names, None], dtype=object)[codes[drawn]]
        is_target = None if types is None or chosen.label is None else types == chosen.name
        return relevance(
            network, self._cells(cite).subset(drawn).loaded(), self.features.table, chosen, choose_device(self.device),
            types=types, is_target=is_target, seed=self.config.seed, **options,
        )  # fmt: skip

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
        by_class = pd.DataFrame(probability, index=index, columns=class_columns(self.classes))
        return pd.concat([pd.DataFrame(told, index=index), by_class], axis=1)


def class_columns(classes: list[str]) -> list[str]:
    """Return the name of each class's column: its own, after ``class `` where another column is called so."""
    taken = {*_TOLD, *classes}

    def free(name: str) -> str:
        return free(f"class {name}") if name in taken else name

    return [free(f"class {name}") if name in _TOLD else name for name in classes]


def _same_cells(data: Data, cite: CiteSeq) -> "AnnData | MuData":
    """Return the caller's object, whose rows are the cells of `cite`; an InputDataError says why they are not."""
    if isinstance(data, StoredCiteSeq):
        raise _not_inplace("a store, which is only read")
    if isinstance(data, CiteSeq):
        raise _not_inplace("a CiteSeq, which holds counts only")
    if data.obs_names.equals(cite.rna.obs_names):
        return data
    there = pd.Index(np.unique(np.concatenate([part.obs_names.to_numpy(str) for part in data.mod.values()])))
    if len(there.symmetric_difference(data.obs_names)):
        raise InputDataError("the MuData was not updated after its modalities changed; call data.update() first")
    raise _not_inplace(f"a MuData with {data.n_obs} cells, {cite.rna.n_obs} of them with RNA")


def _not_inplace(what: str) -> InputDataError:
    return InputDataError(f"results cannot be written into {what}; leave out inplace=True and take what is returned")
