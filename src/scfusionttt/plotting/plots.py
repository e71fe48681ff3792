"""Figures from AnnData or MuData: each function returns matplotlib axes, to change, save or show as you like.

Axes that are not given are made by pyplot, so that a notebook shows them. Nothing is computed or written here.
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
    """Draw the map of the cells, a panel per colour.

    Parameters
    ----------
    color
        obs columns, genes or proteins. A name of several modalities is told apart as ``rna:CD4`` and ``prot:CD4``.
        Numbers have a colour bar, everything else a legend, in the colours of ``uns["<column>_colors"]`` if there.
    basis
        obsm key of the map, [n, 2], with or without ``X_``.
    axes, ax
        One for each colour, to draw in; `ax` is that of a single colour, as in scanpy.

    Returns
    -------
    Axes, [colours].

    Raises
    ------
    InputDataError
        When there is no such map, column, gene or protein.
    """
    names = [color] if isinstance(color, str) else [] if color is None else list(color)
    if not names:
        raise SettingError("there is nothing to colour by: name an obs column, a gene or a protein")
    basis = basis if basis in data.obsm else f"X_{basis.removeprefix('X_')}"
    if basis not in data.obsm:
        remedy = "sc.pp.neighbors(data, use_rep='X_fusionttt'), then sc.tl.umap(data)"
        raise InputDataError(f"there is no obsm['{basis}']; make one with {remedy}")
    given = ax if axes is None else axes
    panels = np.ravel(np.asarray(given, dtype=object))
    if given is None:
        with on_pyplot():
            panels = new_axes(_MAP_WIDTH * len(names), 4.4, panels=len(names))
    if len(panels) != len(names):
        raise SettingError(f"{len(names)} colours but {len(panels)} axes; give one for each")
    coords = np.asarray(data.obsm[basis])[:, :2]
    for panel, name in zip(panels, names):
        values, unit = _values(data, name)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            figures.umap_continuous(coords, values, unit, title=name, ax=panel)
        else:
            figures.umap(coords, values, title=name, colours=_kept_colours(data, name, values), ax=panel)
    if given is None:
        _make_room(panels)
    return panels


def training_curves(model: Any, *, metric: str = "loss") -> NDArray[Any]:
    """Draw how training went, a panel per stage.

    Parameters
    ----------
    model
        A :class:`scfusionttt.FusionTTT`, or its `history`.
    metric
        ``loss``, ``accuracy`` or another of the history's columns without ``train_`` and ``val_``.

    Returns
    -------
    Axes, [stages].

    Raises
    ------
    SettingError
        When no training was recorded.
    """
    history = getattr(model, "history", model)
    if "stage" not in history:
        raise SettingError("no training was recorded: pretrain the model, or give its history")
    with on_pyplot():
        return figures.training_curves(history, metric=metric)


def confusion(data: Data, labels: str, *, predicted: str = keys.LABEL, ax: Axes | None = None) -> Axes:
    """Draw known types against predicted ones; cells without a label are left out.

    Parameters
    ----------
    labels, predicted
        obs columns; ``model.predict(data, inplace=True)`` writes the second.
    """
    known, told = (_column(data, key) for key in (labels, predicted))
    labelled = is_labelled(known)
    if not labelled.any():
        raise LabelError(f"no cell of obs['{labels}'] is labelled: there is nothing to compare with")
    counts = count_confusion(known[labelled], told[labelled])
    with on_pyplot():
        return figures.confusion(counts, ax=ax)


def comparison(
    summary: pd.DataFrame, *, protocol: str, metrics: Sequence[str] = ("ARI", "NMI"), dataset: str | None = None
) -> NDArray[Any]:
    """Draw the scores of several methods with their intervals, a panel per metric, the best at the top.

    Parameters
    ----------
    summary
        What ``scfusionttt benchmark`` or ``ablate`` writes as ``results.csv``: columns protocol, dataset, method,
        metric, mean, low, high.
    protocol, dataset
        Which rows; scores of different protocols or data sets never share a panel.

    Returns
    -------
    Axes, [metrics].

    Raises
    ------
    SettingError
        When the table is another, there is no such row, or several data sets and none is chosen.
    """
    needed = ("protocol", "dataset", "method", "metric", "mean", "low", "high")
    if not isinstance(summary, pd.DataFrame) or not set(needed) <= set(summary):
        raise SettingError(f"give the table of results.csv (pandas.read_csv), with the columns {', '.join(needed)}")
    rows = summary[summary["protocol"] == protocol]
    rows = rows if dataset is None else rows[rows["dataset"] == dataset]
    kinds = rows[[name for name in ("dataset", "labels", "share") if name in rows]].drop_duplicates()
    if len(kinds) > 1:
        raise SettingError(f"the rows are of several kinds; keep one of: {kinds.to_dict(orient='records')}")
    panels = {name: rows[rows["metric"] == name].set_index("method")[["mean", "low", "high"]] for name in metrics}
    empty = [name for name, table in panels.items() if table.empty]
    if empty:
        there = ", ".join(sorted(rows["metric"].unique())) or "none"
        raise SettingError(f"no {protocol} row has {', '.join(empty)}; the metrics there are: {there}")
    with on_pyplot():
        return figures.intervals(panels)


def order_study(summary: pd.DataFrame, *, protocol: str = "unsupervised", metric: str = "ARI") -> Axes:
    """Draw what ``scfusionttt ablate order`` found: whether it matters in which order genes are read.

    Parameters
    ----------
    summary
        The study's ``results.csv``. Orders whose 95 % intervals overlap widely are not told apart by it.
    """
    return comparison(summary, protocol=protocol, metrics=[metric])[0]


def genome_strip(data: Data, cell: str, *, species: str | None = None, named: int = 12, ax: Axes | None = None) -> Axes:
    """Draw the genes of one cell in genome order and, below them, its proteins at their coding genes.

    Parameters
    ----------
    cell
        Its name.
    species
        ``human`` or ``mouse``; None: by the gene names.
    named
        How many genes to name.
    """
    rna, protein = _modalities(data)
    if cell not in rna.obs_names:
        raise InputDataError(f"there is no cell named '{cell}'; look in obs_names")
    genes, species = _places(rna, species)
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
    """Draw groups of cells along the genome, each window of genes against the mean of all groups.

    Give log-normalised values in X: raw counts show the depth of sequencing.

    Parameters
    ----------
    groupby
        obs column.
    species
        ``human`` or ``mouse``; None: by the gene names.
    """
    rna, _ = _modalities(data)
    groups = _column(data, groupby).reindex(rna.obs_names)
    known = groups.dropna().astype(str)
    if known.empty:
        raise LabelError(f"no cell has a value in obs['{groupby}']")
    names = sorted(known.unique(), key=natural_key)
    member = (groups.astype(object).map(str).to_numpy() == np.array(names, dtype=object)[:, None]).astype(np.float32)
    means = np.asarray(member @ rna.X) / member.sum(axis=1, keepdims=True)
    with on_pyplot():
        return figures.chromosome_heatmap(
            _places(rna, species)[0], pd.DataFrame(means, index=names), unit="X, against the mean of groups", ax=ax
        )


def _kept_colours(data: Data, name: str, values: pd.Series) -> dict[str, str] | None:
    """Return the colours that scanpy keeps for the categories of an obs column."""
    kept = data.uns.get(f"{name}_colors", ())
    if not isinstance(values.dtype, pd.CategoricalDtype) or len(kept) < len(values.cat.categories):
        return None
    return dict(zip(map(str, values.cat.categories), map(str, kept)))


def _make_room(panels: NDArray[Any]) -> None:
    """Widen the figure by its legends, which would else press the maps together."""
    figure = panels[0].figure
    legends = [legend for panel in panels if (legend := panel.get_legend())]
    widths = [legend.get_window_extent().width / figure.dpi for legend in legends]
    figure.set_figwidth(figure.get_figwidth() + max(widths, default=0.6) * len(panels))


def _modalities(data: Data) -> tuple[AnnData, AnnData | None]:
    if isinstance(data, AnnData):
        return data, None
    found = [next((data[name] for name in names if name in data.mod), None)
             for names in (keys.RNA_MODALITIES, keys.PROTEIN_MODALITIES)]  # fmt: skip
    if found[0] is None:
        raise InputDataError(f"no RNA modality among {', '.join(data.mod)}; name it {keys.RNA_MODALITIES[0]}")
    return found[0], found[1]


def _places(rna: AnnData, species: str | None) -> tuple[pd.DataFrame, str]:
    resolved = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=species)
    return resolved.table, resolved.species


def _row(modality: AnnData, cell: str) -> NDArray[np.float64]:
    return _dense(modality.X[modality.obs_names.get_loc(cell)])


def _column(data: Data, key: str) -> pd.Series:
    """Return an obs column of the whole or of a modality, by cell."""
    tables = [data.obs, *(part.obs for part in _parts(data).values())]
    for table in tables:
        if key in table:
            return table[key].reindex(data.obs_names)
    known = sorted({str(name) for table in tables for name in table.columns})
    raise LabelError(f"there is no obs['{key}']; the columns are: {', '.join(known) or 'none'}")


def _values(data: Data, name: str) -> tuple[pd.Series, str]:
    """Return an obs column or a feature's values by cell, and what they are."""
    parts: Mapping[str, AnnData] = _parts(data) or {"": data}
    modality, _, feature = name.partition(":")
    if modality in parts and feature in parts[modality].var_names:
        return _feature(data, parts[modality], feature), f"{modality}, as in X"
    holding = {key: part for key, part in parts.items() if name in part.var_names}
    if len(holding) > 1:
        raise InputDataError(
            f"{name} is in {' and '.join(holding)}; say {' or '.join(f'{key}:{name}' for key in holding)}"
        )
    if holding and name not in data.obs:
        key, part = next(iter(holding.items()))
        return _feature(data, part, name), f"{key}, as in X".strip(", ")
    try:
        return _column(data, name), name
    except LabelError as error:
        raise InputDataError(f"{name} is no gene and no protein, and {error}") from error


def _feature(data: Data, part: AnnData, name: str) -> pd.Series:
    return pd.Series(_dense(part[:, name].X), index=part.obs_names).reindex(data.obs_names)


def _dense(line: Any) -> NDArray[np.float64]:
    """Return one row or column of a matrix of any kind."""
    return np.asarray(line.toarray() if hasattr(line, "toarray") else line, dtype=np.float64).ravel()


def _parts(data: Data) -> Mapping[str, AnnData]:
    return data.mod if isinstance(data, MuData) else {}
