"""Scores of what stands in the slots of AnnData or MuData."""

import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.evaluate import Evaluation, Space, evaluate_clusters, evaluate_representation
from scfusionttt.keys import X_FUSIONTTT


def evaluate_slots(
    data: AnnData | MuData,
    *,
    labels: str,
    rep: str | None = None,
    clusters: str | None = None,
    space: Space = "rep",
) -> Evaluation:
    """Score a representation in obsm, or clusters in obs, against labels in obs.

    Parameters
    ----------
    labels, clusters
        obs columns.
    rep
        obsm key; ``X_fusionttt`` where neither it nor `clusters` is given. With `clusters`, the representation in
        which the geometric metrics are computed.
    space
        As for :func:`~scfusionttt.evaluation.evaluate_representation`.

    Raises
    ------
    LabelError, InputDataError
        When a key is not there; the message lists those that are.
    SettingError
        When ``space="umap"`` is asked for clusters.
    """
    truth = _column(data, labels)
    if clusters is None:
        return evaluate_representation(_slot(data, rep or X_FUSIONTTT), truth, space=space)
    if space == "umap":
        raise SettingError("--space umap goes with --rep: clusters are scored in the representation given by --rep")
    return evaluate_clusters(_column(data, clusters), truth, None if rep is None else _slot(data, rep))


def _column(data: AnnData | MuData, key: str) -> pd.Series:
    tables = [data.obs, *(adata.obs for adata in getattr(data, "mod", {}).values())]
    for table in tables:
        if key in table:
            return table[key].reindex(data.obs_names)
    known = sorted({str(column) for table in tables for column in table.columns})
    raise LabelError(f"there is no obs['{key}']; the columns are: {', '.join(known) or 'none'}")


def _slot(data: AnnData | MuData, key: str):
    if key not in data.obsm:
        known = ", ".join(name for name in data.obsm if name not in getattr(data, "mod", {})) or "none"
        raise InputDataError(f"there is no obsm['{key}'] (there is: {known}); write one with `scfusionttt embed`")
    return data.obsm[key]
