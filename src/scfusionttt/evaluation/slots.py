"""Scores of representations and clusters that are stored in AnnData or MuData."""

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.evaluate import Evaluation, Space, evaluate_clusters, evaluate_representation
from scfusionttt.evaluation.integration import integration_scores
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.keys import LABEL, PROTOCOL, RNA_MODALITIES, X_FUSIONTTT, X_PCA


def evaluate_slots(
    data: AnnData | MuData,
    *,
    labels_key: str,
    rep: str | None = None,
    clusters: str | None = None,
    space: Space = "rep",
    batch_key: str | None = None,
) -> Evaluation:
    """Score a representation in obsm, or clusters in obs, against labels in obs.

    The protocol is the one that `embed` wrote to ``uns["fusionttt_protocol"]``, also for clusters, which may come from
    the embedding; without it, and for other representations, the scores are taken as unsupervised.

    Parameters
    ----------
    labels_key, clusters
        obs columns.
    rep
        obsm key; ``X_fusionttt`` if neither `rep` nor `clusters` is given. With `clusters`, the representation for the
        geometric metrics.
    space
        As for :func:`~scfusionttt.evaluation.evaluate_representation`; not with `clusters`.
    batch_key
        obs column with batches: also score their mixing, see :func:`~scfusionttt.evaluation.integration_scores`. PCR is
        relative to ``obsm["X_pca"]``, if present.

    Raises
    ------
    LabelError
        There is no such obs column, or the labels cannot be scored against.
    InputDataError
        There is no such obsm key.
    SettingError
        ``space="umap"`` or `batch_key` is combined with `clusters`, or these are predicted classes.
    """
    if clusters == LABEL:
        raise SettingError(
            f"obs['{LABEL}'] are not clusters but classes that a model predicts, whose scores depend on the labels "
            "that it learned: the report scores them, with a labels key, on the other cells"
        )
    labels, protocol = find_column(data, labels_key), _protocol(data, rep, clusters)
    if clusters is None:
        x_nd = _representation(data, rep or X_FUSIONTTT)
        result = evaluate_representation(x_nd, labels, space=space, protocol=protocol)
        if batch_key is None:
            return result
        before = data.obsm.get(X_PCA)
        return result.with_integration(integration_scores(x_nd, labels, find_column(data, batch_key), before=before))
    if batch_key is not None:
        raise SettingError("batch_key applies to a representation, not to clusters; omit clusters or batch_key")
    if space == "umap":
        raise SettingError("space='umap' applies to a representation, not to clusters; omit clusters or space")
    x = None if rep is None else _representation(data, rep)
    return evaluate_clusters(find_column(data, clusters), labels, x, protocol=protocol)


def find_column(data: AnnData | MuData, key: str) -> pd.Series:
    """Return an obs column of the whole, else of its RNA, else of another modality, in the order of ``data.obs_names``.

    Raises
    ------
    LabelError
        There is no such column; the message lists the existing ones.
    """
    return find_part(data, key).obs[key].reindex(data.obs_names)


def find_part(data: AnnData | MuData, key: str) -> AnnData | MuData:
    """Return the part that has an obs column: the whole, else its RNA, else another modality; errors as above.

    A column without any value yields to one with values, as in training.
    """
    parts = [part for part in _parts(data) if key in part.obs]
    if parts:
        return next((part for part in parts if part.obs[key].notna().to_numpy().any()), parts[0])
    existing = sorted({str(column) for part in _parts(data) for column in part.obs.columns})
    raise LabelError(f"there is no obs['{key}']; the columns are: {', '.join(existing) or 'none'}")


def find_coordinates(data: AnnData | MuData, key: str, cells: pd.Index) -> np.ndarray:
    """Return the first two columns of an obsm entry of the whole, its RNA or another modality, [cells, 2].

    Cells that the entry lacks get NaN. `key` is given with or without ``X_``.

    Raises
    ------
    InputDataError
        There is no such entry, or it has fewer than two columns.
    """
    for part in _parts(data):
        for name in (key, f"X_{key.removeprefix('X_')}"):
            values: np.ndarray = np.asarray(part.obsm[name]) if name in part.obsm else np.empty(0)
            if values.ndim == 2 and values.shape[1] >= 2:
                return pd.DataFrame(values[:, :2], index=part.obs_names).reindex(cells).to_numpy(dtype=float)
    existing = {str(name) for part in _parts(data) for name in part.obsm} - set(getattr(data, "mod", {}))
    raise InputDataError(
        f"there are no coordinates obsm['{key}']; the entries of obsm are: {', '.join(sorted(existing)) or 'none'}"
    )


def _parts(data: AnnData | MuData) -> list[AnnData | MuData]:
    """Return the whole, then its RNA, as training reads obs, then the other modalities."""
    modalities = getattr(data, "mod", {})
    return [
        data,
        *(modalities[name] for name in sorted(modalities, key=lambda name: name.lower() not in RNA_MODALITIES)),
    ]


def _protocol(data: AnnData | MuData, rep: str | None, clusters: str | None) -> Protocol:
    """Return the protocol of the embedding of this package, or of clusters if the data have such an embedding."""
    is_ours = clusters is not None or rep in (None, X_FUSIONTTT)
    return data.uns.get(PROTOCOL, "unsupervised") if is_ours else "unsupervised"


def _representation(data: AnnData | MuData, key: str) -> np.ndarray:
    if key not in data.obsm:
        existing = ", ".join(name for name in data.obsm if name not in getattr(data, "mod", {})) or "none"
        raise InputDataError(f"there is no obsm['{key}'] (existing: {existing}); write one with `scfusionttt embed`")
    return data.obsm[key]
