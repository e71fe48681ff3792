"""Proteins imputed from RNA: values, intervals, units."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from scfusionttt import inference
from scfusionttt.data.cells import CiteSeq, has_rna
from scfusionttt.errors import SettingError, name_some
from scfusionttt.keys import PROTEIN_IMPUTED
from scfusionttt.model.pipeline import dataset_for
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.networks import PretrainNetwork

log = logging.getLogger("scfusionttt")

#: Units of imputed proteins.
Units = Literal["log_ratio", "counts"]


@dataclass(frozen=True, eq=False)
class ImputedProteins:
    """Imputed proteins with their uncertainty; DataFrames [n_cells, n_proteins].

    Attributes
    ----------
    mean
        Expected values.
    sd
        Standard deviation of the values of a cell of another donor.
    low, high
        Ends of the 90 % interval of such a cell: quantiles of the errors in cells that the regression had not seen, in
        units of `sd`.
    """

    mean: pd.DataFrame
    sd: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame


def require_imputable(state: TrainedState, *, intervals: bool, units: str, transform_batch: str | None) -> None:
    """Raise SettingError, before the cells are read, if the model cannot impute what is asked for."""
    head = state.network.backbone.protein_head
    if units not in get_args(Units):
        raise SettingError(f"units must be log_ratio or counts (got {units!r})")
    if not len(state.features.proteins):
        raise SettingError("this model was trained without proteins and cannot impute them")
    if transform_batch is not None:
        _offsets(state, transform_batch)
    if head is not None and head.is_fitted:
        return
    if intervals:
        raise SettingError("this model cannot give intervals; pretrain it again with this version")
    if not isinstance(state.network, PretrainNetwork):
        raise SettingError("this model cannot impute proteins; pretrain it again with this version")


def _offsets(state: TrainedState, name: str) -> np.ndarray:
    """Return what the batch `name` adds to each scaled protein, NaN where it lacks the protein, [p].

    Raises
    ------
    SettingError
        The model has no batches, or does not know this one, or not its proteins.
    """
    if not state.cohort.levels:
        raise SettingError("transform_batch needs a model that was pretrained with batch_key; this one has no batches")
    if not (state.network.backbone.sizes.protein_batches and state.network.backbone.protein_head):
        raise SettingError("this model cannot impute for a batch; pretrain it again with this version")
    known = zip(next(iter(state.cohort.levels.values())), state.network.backbone.protein_head.offsets.cpu().numpy())
    offsets = {level: values for level, values in known if not np.isnan(values).all()}
    if name not in offsets:
        raise SettingError(
            f"transform_batch={name!r} is no batch that the model was trained on with proteins; "
            f"choose one of {name_some(list(offsets), most=20)}"
        )
    return offsets[name]


def impute(
    state: TrainedState,
    cite: CiteSeq,
    device: torch.device,
    *,
    units: Units,
    intervals: bool,
    transform_batch: str | None = None,
) -> pd.DataFrame | ImputedProteins:
    """Return the result of :meth:`scfusionttt.FusionTTT.impute`."""
    network, cells = state.network, dataset_for(state, cite)
    head = network.backbone.protein_head
    if head is None or not head.is_fitted:
        assert isinstance(network, PretrainNetwork)  # of an older version, which used the decoder
        return _table(state, cite, inference.reconstructed_proteins(network, cells, device), units)
    both = inference.read_cells(
        network, cells, device, lambda inputs: torch.cat(network.backbone.proteins_from_rna(inputs), dim=1)
    )
    lacks_rna = ~has_rna(cite.rna)
    if lacks_rna.any():
        log.info("%d cells have no RNA to impute proteins from; theirs are NaN", lacks_rna.sum())
        both[lacks_rna] = np.nan
    mean, sd = np.split(both, 2, axis=1)
    if transform_batch is not None:
        offsets = _offsets(state, transform_batch)
        lacking = state.features.proteins["name"][np.isnan(offsets)].tolist()
        if lacking:
            log.info("imputed as on average, since batch '%s' lacks them: %s", transform_batch, name_some(lacking))
        mean = mean + np.nan_to_num(offsets)
    values = _table(state, cite, mean, units)
    if not intervals:
        return values
    low, high = (ends.numpy() for ends in head.cpu().interval(torch.from_numpy(mean), torch.from_numpy(sd)))
    return ImputedProteins(
        mean=values,
        sd=_deviations(state, values, sd, units),
        low=_table(state, cite, low, units),
        high=_table(state, cite, high, units),
    )


def obsm_tables(imputed: pd.DataFrame | ImputedProteins) -> dict[str, pd.DataFrame]:
    """Return the tables of imputed proteins by their slots in obsm."""
    if isinstance(imputed, pd.DataFrame):
        return {PROTEIN_IMPUTED: imputed}
    return {
        PROTEIN_IMPUTED: imputed.mean,
        **{f"{PROTEIN_IMPUTED}_{name}": getattr(imputed, name) for name in ("sd", "low", "high")},
    }


def _table(state: TrainedState, cite: CiteSeq, scaled: np.ndarray, units: Units) -> pd.DataFrame:
    """Return scaled values [n, p] in other units."""
    scaler = state.preprocessing.protein
    values = scaled * scaler.std + scaler.mean
    if units == "counts":
        values = np.expm1(values).clip(min=0) * np.exp(state.preprocessing.log_geometric_mean)
    return pd.DataFrame(values, index=cite.rna.obs_names, columns=state.features.proteins["name"].tolist())


def _deviations(state: TrainedState, values: pd.DataFrame, scaled: np.ndarray, units: Units) -> pd.DataFrame:
    """Return scaled standard deviations [n, p] in other units; for counts, to first order."""
    deviation = scaled * state.preprocessing.protein.std
    if units == "counts":
        deviation = deviation * (values.to_numpy() + np.exp(state.preprocessing.log_geometric_mean))
    return pd.DataFrame(deviation, index=values.index, columns=values.columns)
