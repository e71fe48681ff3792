"""Plots of AnnData and MuData.

Each function returns matplotlib axes, which can be changed, saved or shown. Without `ax`, axes are created by pyplot,
so that notebooks show them. Values are drawn as stored: nothing is computed or written to the data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData
from numpy.typing import NDArray

from scfusionttt import keys
from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation import confusion as count_confusion
from scfusionttt.evaluation.slots import find_column
from scfusionttt.genome import resolve_antibodies, resolve_genes
from scfusionttt.labels import is_labelled
from scfusionttt.plotting import figures
from scfusionttt.plotting.figures.style import natural_key, new_axes, on_pyplot

__all__ = ["chromosomes", "comparison", "confusion", "genome_strip", "order_study", "training_curves", "umap"]

Data: TypeAlias = "AnnData | MuData"
_MAP_WIDTH = 4.8  # inches, without its legend


def umap(
    data: Data, color: str | Sequence[str], *, basis: str = "X_umap", axes: Axes | Sequence[Axes] | None = None,
    ax: Axes | None = None,
) -> NDArray[Any]:  # fmt: skip
    """Plot an embedding of the cells in two dimensions, such as a UMAP, with one panel per colour.

    Parameters
    ----------
    color
        obs columns, genes or proteins. Write ``rna:CD4`` or ``prot:CD4`` if several modalities have a feature of that
        name. Numbers get a colour bar; other values get a legend, in the colours of ``uns["<column>_colors"]`` if
        present.
    basis
        obsm key of the coordinates, [n, 2], with or without ``X_``.
    axes, ax
        Axes to draw in, one for each colour; `ax` for a single colour, as in scanpy.

    Returns
    -------
    Axes, [colours].

    Raises
    ------
    InputDataError
        There are no such coordinates, or no such column, gene or protein.
    SettingError
        No colour is given, or the numbers of colours and axes differ.
    """
    names = [color] if isinstance(color, str) else [] if color is None else list(color)
    if not names:
        raise SettingError("color is empty; give an obs column, a gene or a protein")
    basis = basis if basis in data.obsm else f"X_{basis.removeprefix('X_')}"
    if basis not in data.obsm:
        remedy = "sc.pp.neighbors(data, use_rep='X_fusionttt'), then sc.tl.umap(data)"
        raise InputDataError(f"there is no obsm['{basis}']; compute it with {remedy}")
    given = ax if axes is None else axes
    panels = np.ravel(np.asarray(given, dtype=object))
    if given is None:
        with on_pyplot():
            panels = new_axes(_MAP_WIDTH * len(names), 4.4, panels=len(names))
    if len(panels) != len(names):
        raise SettingError(f"{len(names)} colours but {len(panels)} axes; give one axes per colour")
    coords = np.asarray(data.obsm[basis])[:, :2]
    for panel, name in zip(panels, names):
        values, unit = _values(data, name)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            figures.umap_continuous(coords, values, unit, title=name, ax=panel)
        else:
            figures.umap(coords, values, title=name, colours=_stored_colours(data, name, values), ax=panel)
    if given is None:
        _make_room(panels)
    return panels


def training_curves(model: Any, *, metric: str = "loss") -> NDArray[Any]:
    """Plot training and validation curves, with one panel per stage.

    Parameters
    ----------
    model
        A :class:`scfusionttt.FusionTTT`, or its `history`.
    metric
        ``loss``, ``accuracy`` or another column of the history, without the prefix ``train_`` or ``val_``.

    Returns
    -------
    Axes, [stages].

    Raises
    ------
    SettingError
        No training was recorded.
    """
    history = getattr(model, "history", model)
    if "stage" not in history:
        raise SettingError("no training was recorded; train the model or pass its history")
    with on_pyplot():
        return figures.training_curves(history, metric=metric)


def confusion(data: Data, labels_key: str, *, predicted: str = keys.LABEL, ax: Axes | None = None) -> Axes:
    """Plot the confusion matrix of known and predicted cell types; cells without a label are left out.

    Parameters
    ----------
    labels_key, predicted
        obs columns with the known and the predicted types; ``model.predict(data, inplace=True)`` writes the latter.

    Raises
    ------
    LabelError
        There is no such column, or no cell is labelled.
    """
    known, predictions = (find_column(data, key) for key in (labels_key, predicted))
    labelled = is_labelled(known)
    if not labelled.any():
        raise LabelError(f"obs['{labels_key}'] labels no cell; there is nothing to compare the predictions with")
    counts = count_confusion(known[labelled], predictions[labelled])
    with on_pyplot():
        return figures.confusion(counts, ax=ax)


def comparison(
    summary: pd.DataFrame, *, protocol: str, metrics: Sequence[str] = ("ARI", "NMI"), dataset: str | None = None
) -> NDArray[Any]:
    """Plot the scores of several methods with their intervals, one panel per metric, the best method at the top.

    Parameters
    ----------
    summary
        The ``results.csv`` of ``scfusionttt benchmark`` or ``ablate``, with the columns protocol, dataset, method,
        metric, mean, low, high.
    protocol, dataset
        Rows to plot; scores of different protocols or data sets are never shown in one panel.

    Returns
    -------
    Axes, [metrics].

    Raises
    ------
    SettingError
        The table lacks a column or has no such rows, or it has several data sets and `dataset` is not given.
    """
    needed = ("protocol", "dataset", "method", "metric", "mean", "low", "high")
    if not isinstance(summary, pd.DataFrame) or not set(needed) <= set(summary):
        raise SettingError(f"summary must be a table as in results.csv, with the columns {', '.join(needed)}")
    rows = summary[summary["protocol"] == protocol]
    rows = rows if dataset is None else rows[rows["dataset"] == dataset]
    kinds = rows[[name for name in ("dataset", "labels", "share") if name in rows]].drop_duplicates()
    if len(kinds) > 1:
        raise SettingError(f"the rows belong to several data sets; select one of: {kinds.to_dict(orient='records')}")
    panels = {name: rows[rows["metric"] == name].set_index("method")[["mean", "low", "high"]] for name in metrics}
    empty = [name for name, table in panels.items() if table.empty]
    if empty:
        available = ", ".join(sorted(rows["metric"].unique())) or "none"
        raise SettingError(f"no {protocol} row has {', '.join(empty)}; available metrics: {available}")
    with on_pyplot():
        return figures.intervals(panels)


def order_study(
    summary: pd.DataFrame, *, protocol: str = "ablation", metric: str = "hidden_gene_r2"
) -> Axes:  # fmt: skip
    """Plot the results of ``scfusionttt ablate order``: the effect of the order in which genes are read.

    Parameters
    ----------
    summary
        The ``results.csv`` of the study. Orders with largely overlapping 95 % intervals cannot be distinguished.
    """
    return comparison(summary, protocol=protocol, metrics=[metric])[0]


def genome_strip(data: Data, cell: str, *, species: str | None = None, named: int = 12, ax: Axes | None = None) -> Axes:
    """Plot the genes of one cell in genome order and, below them, its proteins at their coding genes.

    Parameters
    ----------
    cell
        Name of the cell.
    species
        ``human`` or ``mouse``; inferred from the gene names by default.
    named
        Number of genes to name.
    """
    rna, protein = _modalities(data)
    if cell not in rna.obs_names:
        raise InputDataError(f"there is no cell '{cell}' in obs_names")
    genes, species = _gene_table(rna, species)
    proteins = None
    if protein is not None and cell in protein.obs_names:
        places = resolve_antibodies(protein.var_names, species=species).table
        proteins = places[places["kind"] == "antibody"].assign(
            value=_row(protein, cell)[(places["kind"] == "antibody").to_numpy()]
        )
    with on_pyplot():
        return figures.genome_strip(
            genes, _row(rna, cell), proteins=proteins, unit="RNA, as in X", protein_unit="protein, as in X",
            title=cell, named=named, ax=ax,
        )  # fmt: skip


def chromosomes(data: Data, groupby: str, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot groups of cells along the genome: the mean of each window of genes, relative to the mean over groups.

    X should be log-normalised; raw counts would show the sequencing depth.

    Parameters
    ----------
    groupby
        obs column with the groups.
    species
        ``human`` or ``mouse``; inferred from the gene names by default.
    """
    rna, _ = _modalities(data)
    groups = find_column(data, groupby).reindex(rna.obs_names)
    known = groups.dropna().astype(str)
    if known.empty:
        raise LabelError(f"no cell has a value in obs['{groupby}']")
    names = sorted(known.unique(), key=natural_key)
    member = (groups.astype(object).map(str).to_numpy() == np.array(names, dtype=object)[:, None]).astype(np.float32)
    means = np.asarray(member @ rna.X) / member.sum(axis=1, keepdims=True)
    with on_pyplot():
        return figures.chromosome_heatmap(
            _gene_table(rna, species)[0],
            pd.DataFrame(means, index=names),
            unit="X minus mean over groups",
            ax=ax,
        )


def _stored_colours(data: Data, name: str, values: pd.Series) -> dict[str, str] | None:
    """Return the colours that scanpy has stored for the categories of an obs column."""
    stored = data.uns.get(f"{name}_colors", ())
    if not isinstance(values.dtype, pd.CategoricalDtype) or len(stored) < len(values.cat.categories):
        return None
    return dict(zip(map(str, values.cat.categories), map(str, stored)))


def _make_room(panels: NDArray[Any]) -> None:
    """Widen the figure by its legends, which would otherwise shrink the maps."""
    figure = panels[0].figure
    legends = [legend for panel in panels if (legend := panel.get_legend())]
    widths = [legend.get_window_extent().width / figure.dpi for legend in legends]
    figure.set_figwidth(figure.get_figwidth() + max(widths, default=0.6) * len(panels))


def _modalities(data: Data) -> tuple[AnnData, AnnData | None]:
    if isinstance(data, AnnData):
        return data, None
    pair = [next((data[name] for name in names if name in data.mod), None)
             for names in (keys.RNA_MODALITIES, keys.PROTEIN_MODALITIES)]  # fmt: skip
    if pair[0] is None:
        raise InputDataError(f"no RNA modality among {', '.join(data.mod)}; rename it to {keys.RNA_MODALITIES[0]}")
    return pair[0], pair[1]


def _gene_table(rna: AnnData, species: str | None) -> tuple[pd.DataFrame, str]:
    resolved = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=species)
    return resolved.table, resolved.species


def _row(modality: AnnData, cell: str) -> NDArray[np.float64]:
    return _dense(modality.X[modality.obs_names.get_loc(cell)])


def _values(data: Data, name: str) -> tuple[pd.Series, str]:
    """Return the values of an obs column, gene or protein by cell, and their unit."""
    parts: Mapping[str, AnnData] = _parts(data) or {"": data}
    modality, _, feature = name.partition(":")
    if modality in parts and feature in parts[modality].var_names:
        return _feature(data, parts[modality], feature), f"{modality}, as in X"
    matches = {key: part for key, part in parts.items() if name in part.var_names}
    if len(matches) > 1:
        raise InputDataError(
            f"{name} is in {' and '.join(matches)}; write {' or '.join(f'{key}:{name}' for key in matches)}"
        )
    if matches and name not in data.obs:
        key, part = next(iter(matches.items()))
        return _feature(data, part, name), f"{key}, as in X".strip(", ")
    try:
        return find_column(data, name), name
    except LabelError as error:
        raise InputDataError(f"{name} is neither a gene nor a protein, and {error}") from error


def _feature(data: Data, part: AnnData, name: str) -> pd.Series:
    return pd.Series(_dense(part[:, name].X), index=part.obs_names).reindex(data.obs_names)


def _dense(line: Any) -> NDArray[np.float64]:
    """Return one row or column of a dense or sparse matrix."""
    return np.asarray(line.toarray() if hasattr(line, "toarray") else line, dtype=np.float64).ravel()


def _parts(data: Data) -> Mapping[str, AnnData]:
    return data.mod if isinstance(data, MuData) else {}
