"""Proteins imputed from RNA: values, intervals, units."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt import inference
from scfusionttt.data.cells import CiteSeq, has_rna
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.proteins import protein_columns
from scfusionttt.errors import SettingError, name_some
from scfusionttt.keys import IMPUTED_INTERVALS, PROTEIN_IMPUTED
from scfusionttt.labels import class_names
from scfusionttt.model.dataset import dataset_for
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs

log = logging.getLogger("scfusionttt")

#: Units of imputed proteins.
Units = Literal["log_ratio", "counts"]


@dataclass(frozen=True, eq=False)
class ImputedProteins:
    """Imputed proteins with their uncertainty; DataFrames [n_cells, n_proteins].

    Attributes
    ----------
    mean
        Expected log-ratios; with ``units="counts"``, these as counts, which lie below expected counts.
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


def require_imputable(state: TrainedState, *, intervals: bool, units: str, transform_batch: str | int | None) -> None:
    """Raise SettingError, before the cells are read, if the model cannot impute what is asked for."""
    head = state.network.backbone.protein_head
    if units not in get_args(Units):
        raise SettingError(f"units must be log_ratio or counts (got {units!r})")
    if not len(state.features.proteins):
        raise SettingError("this model was trained without proteins and cannot impute them")
    if head is not None and head.is_fitted:
        if transform_batch is not None:
            _level(state, transform_batch)
        return
    reason = "it is of an earlier version, or too few training cells had proteins; pretrain it again"
    if intervals:
        raise SettingError(f"this model cannot give intervals: {reason}")
    if transform_batch is not None:
        raise SettingError(f"this model cannot impute for a batch: {reason}")
    if not isinstance(state.network, PretrainNetwork):
        raise SettingError(f"this model cannot impute proteins: {reason}")


def _level(state: TrainedState, name: str | int) -> int:
    """Return the level of the batch `name` in the first key.

    Raises
    ------
    SettingError
        The model has no batches, or was not trained on proteins of this one.
    """
    backbone = state.network.backbone
    if not state.cohort.levels:
        raise SettingError("transform_batch needs a model that was pretrained with batch_key; this one has no batches")
    if not backbone.sizes.protein_batches or backbone.protein_head is None:
        raise SettingError("this model cannot impute for a batch; pretrain it again with batch_key")
    has_proteins = backbone.protein_head.measured.any(dim=1).tolist()  # batches that were mapped later come last
    known = {level: code for code, (level, has) in enumerate(zip(state.cohort.first, has_proteins)) if has}
    wanted = class_names([name])[0]  # as in the obs column: 1 is "1"
    if wanted not in known:
        raise SettingError(
            f"transform_batch={name!r} is no batch that the model was trained on with proteins; "
            f"choose one of {name_some(list(known), most=20)}"
        )
    return known[wanted]


def _changes(state: TrainedState, cells: CellDataset, device: torch.device, name: str | int) -> np.ndarray:
    """Return by how much the batch `name` changes the scaled proteins of each cell, [n, p].

    The regressions follow the batches that they were fitted to, so that a cell's own batch is subtracted if it is one
    of these. Both effects are those that :class:`~scfusionttt.nn.correction.BatchCorrection` removes from the latent.
    """
    network, level = state.network, _level(state, name)
    backbone = network.to(device).backbone
    head, correction, view = backbone.protein_head, backbone.correction, backbone.view
    assert head is not None and correction is not None and view is not None
    n_proteins = view.n_proteins
    lacks = ~(head.measured[level] & (correction.kept[-n_proteins:] > 0)).cpu().numpy()
    if lacks.any():
        lacking = state.features.proteins["name"][lacks].tolist()
        log.info("imputed with the staining of the batch alone, since some batch lacks them: %s", name_some(lacking))
    fitted_to = torch.cat([head.measured, head.measured.new_zeros(1, n_proteins)])  # the last row: other batches

    def read(inputs: CellInputs) -> Tensor:
        fused = backbone(inputs.without_proteins().without_batches())
        assert fused.skip is not None
        values = torch.cat([fused.bottleneck, fused.skip], dim=1)
        effects = correction.added(values, inputs.batch, level, backbone.latent)
        own, other = (effect[:, -n_proteins:] / view.protein_scale for effect in effects)
        return other - own * fitted_to[inputs.batch[:, 0].clamp(max=len(head.measured))]

    return np.where(lacks, 0.0, inference.read_cells(network, cells, device, read)).astype(np.float32)


def impute(
    state: TrainedState,
    cite: CiteSeq,
    device: torch.device,
    *,
    units: Units,
    intervals: bool,
    transform_batch: str | int | None = None,
) -> pd.DataFrame | ImputedProteins:
    """Return the result of :meth:`scfusionttt.FusionTTT.impute`."""
    # The regressions read the RNA alone, so cells of any batch are imputed unless another batch's values are asked for.
    batches = state.cohort.no_codes(cite.rna.n_obs) if transform_batch is None else None
    network, head = state.network, state.network.backbone.protein_head
    cells = dataset_for(state, cite, batches=batches, by_rna=head is not None and head.is_fitted)
    if head is None or not head.is_fitted:
        assert isinstance(network, PretrainNetwork)  # of an older version, which used the decoder
        scaled = inference.reconstructed_proteins(network, cells, device)
        return _table(state, cite, scaled, units, np.zeros(scaled.shape[1]))
    mean, sd = _predicted(state, cite, cells, device)
    staining = np.zeros(mean.shape[1])
    if transform_batch is not None:
        mean = mean + _changes(state, cells, device, transform_batch)
        staining = state.preprocessing.staining_of(np.array([_level(state, transform_batch)]))[0]
    values = _table(state, cite, mean, units, staining)
    if not intervals:
        return values
    low, high = (ends.numpy() for ends in head.cpu().interval(torch.from_numpy(mean), torch.from_numpy(sd)))
    return ImputedProteins(
        mean=values,
        sd=_deviations(state, values, mean, sd, units, staining),
        low=_table(state, cite, low, units, staining),
        high=_table(state, cite, high, units, staining),
    )


def _predicted(
    state: TrainedState, cite: CiteSeq, cells: CellDataset, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the regressions' means and standard deviations of the scaled proteins, both [n, p].

    NaN in cells without RNA, and for proteins that too few training cells had.
    """
    network = state.network
    head = network.backbone.protein_head
    assert head is not None
    both = inference.read_cells(
        network, cells, device, lambda inputs: torch.cat(network.backbone.proteins_from_rna(inputs), dim=1)
    )
    lacks_rna = ~has_rna(cite.rna)
    if lacks_rna.any():
        log.info("%d cells have no RNA to impute proteins from; theirs are NaN", lacks_rna.sum())
        both[lacks_rna] = np.nan
    mean, sd = np.split(both, 2, axis=1)
    unfitted = ~head.margins.isfinite().all(dim=0).cpu().numpy()
    if unfitted.any():
        names = state.features.proteins["name"][unfitted].tolist()
        log.info("too few training cells had these proteins to impute them; theirs are NaN: %s", name_some(names))
        mean[:, unfitted] = sd[:, unfitted] = np.nan
    return mean, sd


def obsm_tables(imputed: pd.DataFrame | ImputedProteins) -> dict[str, pd.DataFrame]:
    """Return the tables of imputed proteins by their slots in obsm."""
    if isinstance(imputed, pd.DataFrame):
        return {PROTEIN_IMPUTED: imputed}
    return {PROTEIN_IMPUTED: imputed.mean, **dict(zip(IMPUTED_INTERVALS, (imputed.sd, imputed.low, imputed.high)))}


def _table(
    state: TrainedState, cite: CiteSeq, scaled: np.ndarray, units: Units, staining: np.ndarray
) -> pd.DataFrame:  # fmt: skip
    """Return scaled values [n, p] in other units.

    `staining` [p] is by how much the antibodies stain more than in the mean training cell, in natural logarithms.
    """
    values = state.preprocessing.unscaled_proteins(scaled, staining, as_counts=units == "counts")
    return pd.DataFrame(values, index=cite.rna.obs_names, columns=protein_columns(state.features.proteins["name"]))


def _deviations(
    state: TrainedState, values: pd.DataFrame, mean: np.ndarray, sd: np.ndarray, units: Units, staining: np.ndarray
) -> pd.DataFrame:
    """Return scaled standard deviations [n, p] in other units, to first order; `values` are means [n, p] in these."""
    scaler = state.preprocessing.protein
    deviation = sd * scaler.std
    if units == "counts":
        deviation = deviation * (values.to_numpy() + np.exp(state.preprocessing.log_geometric_mean + staining))
    elif staining.any():
        deviation = deviation * np.exp(staining + mean * scaler.std + scaler.mean - values.to_numpy())
    return pd.DataFrame(deviation, index=values.index, columns=values.columns)
