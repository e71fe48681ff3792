"""Plots of AnnData and MuData.

Each function returns matplotlib axes, which can be changed, saved or shown. Without `ax`, axes are created by pyplot,
so that notebooks show them. Values are drawn as stored: nothing is computed or written to the data.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData
from numpy.typing import NDArray

from scfusionttt import keys
from scfusionttt.data.antibody_matching import proteins_called
from scfusionttt.data.counts import to_dense
from scfusionttt.data.modalities import find_modality, protein_frame, split_features
from scfusionttt.errors import InputDataError, LabelError, SettingError, name_some
from scfusionttt.evaluation import confusion as count_confusion
from scfusionttt.evaluation.slots import find_column, find_part
from scfusionttt.genome import resolve_antibodies, resolve_genes
from scfusionttt.labels import class_names, is_labelled, label_names
from scfusionttt.plotting import figures
from scfusionttt.plotting.figures.style import encode_labels, natural_key, new_axes, on_pyplot

Data: TypeAlias = "AnnData | MuData"
_MAP_WIDTH = 4.8  # inches, without its legend
_IMPUTED = "imputed"  # prefix of imputed proteins
#: Names of the axes by basis; the axes of any other basis have its own name.
_SPACES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PC"}


def umap(
    data: Data, color: str | Sequence[str], *, basis: str = "X_umap", ncols: int = 4,
    axes: Axes | Sequence[Axes] | None = None, ax: Axes | None = None,
) -> NDArray[Any]:  # fmt: skip
    """Plot an embedding of the cells in two dimensions, such as a UMAP, with one panel per colour.

    Parameters
    ----------
    color
        obs columns, genes or proteins. A protein is found by its antigen as well: ``CD3`` for ``CD3_TotalSeqB``. Write
        ``rna:CD4`` or ``prot:CD4`` to choose the modality (proteins in obsm are ``prot``), and ``imputed:CD4`` for what
        ``model.impute(data, inplace=True)`` wrote. Numbers get a colour bar; other values get a legend, in the colours
        of ``uns["<column>_colors"]`` if present.
    basis
        obsm key of the coordinates, [n, 2], with or without ``X_``.
    ncols
        Number of panels in a row.
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
    panels = _panels(given, names, "colour", ncols=ncols, size=(_MAP_WIDTH, 4.4))
    coords, basis = np.asarray(data.obsm[basis])[:, :2], basis.removeprefix("X_")
    space = _SPACES.get(basis, basis)
    for panel, name in zip(panels, names):
        values, unit = _values(data, name)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            figures.umap_continuous(coords, values, unit, title=name, space=space, ax=panel)
        else:
            colours = _stored_colours(data, name, values)
            figures.umap(coords, values, title=name, colours=colours, space=space, ax=panel)
    if given is None:
        _make_room(panels)
    return panels


def dotplot(data: Data, features: str | Sequence[str], groupby: str, *, ax: Axes | None = None) -> Axes:
    """Plot the mean of genes and proteins (columns) in groups of cells (rows), with the fraction of cells above zero.

    X should be log-normalised. Cells in which a protein was not measured do not count. Imputed proteins, which have no
    zeros, are drawn as squares if they are alone.

    Parameters
    ----------
    features
        Genes, proteins, imputed proteins or obs columns of numbers, as in :func:`umap`.
    groupby
        obs column with the groups.
    """
    names, groups, values = _by_group(data, features, groupby)
    means = pd.DataFrame({name: column.groupby(groups).mean() for name, column in values.items()}).reindex(names)
    positive = {name: (column > 0).astype(float).where(column.notna()) for name, column in values.items()}
    above = pd.DataFrame({name: column.groupby(groups).mean() for name, column in positive.items()}).reindex(names)
    imputed = all(name.startswith(f"{_IMPUTED}:") for name in values)
    with on_pyplot():
        return figures.dot_plot(means, None if imputed else above, ax=ax)


def violin(
    data: Data, features: str | Sequence[str], groupby: str, *, ncols: int = 4, axes: Sequence[Axes] | None = None
) -> NDArray[Any]:
    """Plot the distribution of genes and proteins in groups of cells, with one panel per feature.

    The groups have the colours of :func:`umap`.

    Parameters
    ----------
    features, groupby
        As in :func:`dotplot`.
    ncols
        Number of panels in a row.
    axes
        Axes to draw in, one for each feature.

    Returns
    -------
    Axes, [features].
    """
    names, groups, values = _by_group(data, features, groupby)
    colours = _stored_colours(data, groupby, find_column(data, groupby))
    panels = _panels(axes, values, "feature", ncols=ncols, size=(1.4 + 0.42 * max(len(names), 3), 2.9))
    for panel, (name, column) in zip(panels, values.items()):
        own = [column[(groups == group).to_numpy()].to_numpy(dtype=float) for group in names]
        figures.violins(names, own, unit=_values(data, name)[1], title=name, colours=colours, ax=panel)
    return panels


def contributions(table: pd.DataFrame, *, n_features: int = 15, title: str = "", ax: Axes | None = None) -> Axes:
    """Plot the features of the highest share, and whether their high values raise or lower the protein or class.

    Parameters
    ----------
    table
        The result of :meth:`scfusionttt.FusionTTT.explain`, or the .csv of ``scfusionttt explain``.
    n_features
        Number of features.

    Raises
    ------
    SettingError
        The table lacks a column.
    """
    needed = ("name", "modality", "share", "score")
    rows = table.reset_index() if isinstance(table, pd.DataFrame) and "name" not in table else table
    if not isinstance(rows, pd.DataFrame) or not set(needed) <= set(rows):
        raise SettingError(f"table must be the result of explain, with the columns {', '.join(needed)}")
    with on_pyplot():
        return figures.contributions(rows.head(n_features), title=title, ax=ax)


def training_curves(model: Any, *, metric: str = "loss") -> NDArray[Any]:
    """Plot training and validation curves, with one panel per stage; a stage that ran again has another one.

    Parameters
    ----------
    model
        A :class:`scfusionttt.FusionTTT`, or its `history`.
    metric
        ``loss``, ``accuracy`` or another column of the history, without the prefix ``train_`` or ``val_``.

    Returns
    -------
    Axes, [runs].

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
    classes = encode_labels(known[labelled])[1]
    counts = counts.loc[classes, [*classes, *sorted(counts.columns.difference(classes), key=natural_key)]]
    with on_pyplot():
        return figures.confusion(counts, ax=ax)


def comparison(
    summary: pd.DataFrame,
    *,
    protocol: str,
    metrics: str | Sequence[str] = ("ARI", "NMI"),
    dataset: str | None = None,
) -> NDArray[Any]:
    """Plot the scores of several methods with their intervals, one panel per metric, the best method at the top.

    A method of a single run has no interval and is grey.

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
    names = [metrics] if isinstance(metrics, str) else metrics
    panels = {name: rows[rows["metric"] == name].set_index("method")[["mean", "low", "high"]] for name in names}
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
    return comparison(summary, protocol=protocol, metrics=metric)[0]


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
        obs column with the groups. Cells without a label (missing, ``unknown``) are left out.
    species
        ``human`` or ``mouse``; inferred from the gene names by default.
    """
    rna, _ = _modalities(data)
    column = find_column(data, groupby).reindex(rna.obs_names)
    codes, names = encode_labels(column)
    if not names:
        raise LabelError(f"no cell has a value in obs['{groupby}']")
    member = (codes == np.arange(len(names))[:, None]).astype(np.float32)
    means = np.asarray(member @ _matrix(rna)) / member.sum(axis=1, keepdims=True)
    with on_pyplot():
        return figures.chromosome_heatmap(
            _gene_table(rna, species)[0],
            pd.DataFrame(means, index=names),
            unit="X minus mean over groups",
            ax=ax,
        )


def volcano(
    data: AnnData | pd.DataFrame, group: str | int, *, key: str = keys.RANKED, fold: float = 1.0,
    level: float = 0.05, named: int = 10, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Plot the fold change and the p-value of each gene or protein in a group.

    Parameters
    ----------
    data
        The result of :func:`scfusionttt.differential`, or an AnnData (a modality) with it, or with that of scanpy.
    group
        Name of the group.
    key
        Name in ``uns``.
    fold, level
        Features with at least this fold change (base 2), and at most this adjusted p-value, are coloured.
    named
        Number of features to name on each side.

    Raises
    ------
    InputDataError, LabelError
        There is no such result, or no such group in it.
    """
    if isinstance(data, pd.DataFrame):
        table = data
    elif key not in data.uns:
        raise InputDataError(f"there is no uns['{key}']; run scfusionttt.differential(..., inplace=True) first")
    else:
        import scanpy as sc

        table = sc.get.rank_genes_groups_df(data, None, key=key)
        if "group" not in table:  # of a single group
            table["group"] = data.uns[key]["names"].dtype.names[0]
    (name,), groups = class_names([group]), class_names(table["group"])
    if name not in groups:
        raise LabelError(f"the result has no group '{group}'; it has {', '.join(dict.fromkeys(groups))}")
    rows = table[groups == name].reset_index(drop=True)
    with on_pyplot():
        return figures.volcano(rows, title=name, fold=fold, level=level, named=named, ax=ax)


def _stored_colours(data: Data, name: str, values: pd.Series) -> dict[str, str] | None:
    """Return the colours that scanpy has stored for the categories of an obs column, where the column is."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return None
    stored = find_part(data, name).uns.get(f"{name}_colors", ())
    if len(stored) < len(values.cat.categories):
        return None
    return dict(zip(class_names(values.cat.categories), map(str, stored)))


def _panels(
    axes: Axes | Sequence[Axes] | None, names: Collection[str], kind: str, *, ncols: int, size: tuple[float, float]
) -> NDArray[Any]:
    """Return one axes per name: the given ones, or new ones in rows of `ncols`, each of this size in inches."""
    if axes is None:
        columns = max(1, min(ncols, len(names)))
        width, height = size[0] * columns, size[1] * -(-len(names) // columns)
        with on_pyplot():
            return new_axes(width, height, panels=len(names), ncols=columns)
    panels = np.ravel(np.asarray(axes, dtype=object))
    if len(panels) != len(names):
        raise SettingError(f"{len(names)} {kind}s but {len(panels)} axes; give one axes per {kind}")
    return panels


def _make_room(panels: NDArray[Any]) -> None:
    """Widen the figure by its legends, which would otherwise shrink the maps."""
    figure, columns = panels[0].figure, panels[0].get_gridspec().ncols
    legends = [legend for panel in panels if (legend := panel.get_legend())]
    widths = [legend.get_window_extent().width / figure.dpi for legend in legends]
    figure.set_figwidth(figure.get_figwidth() + max(widths, default=0.6) * columns)


def _modalities(data: Data) -> tuple[AnnData, AnnData | None]:
    """Return the RNA and the proteins, if there are any."""
    parts = _parts(data) or {keys.RNA_MODALITIES[0]: data}
    rna, protein = (find_modality(parts, names) for names in (keys.RNA_MODALITIES, keys.PROTEIN_MODALITIES))
    if rna is None:
        raise InputDataError(f"no RNA modality among {', '.join(parts)}; rename it to {keys.RNA_MODALITIES[0]}")
    return parts[rna], None if protein is None else parts[protein]


def _gene_table(rna: AnnData, species: str | None) -> tuple[pd.DataFrame, str]:
    resolved = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids"), species=species)
    return resolved.table, resolved.species


def _row(modality: AnnData, cell: str) -> NDArray[np.float64]:
    return _dense(_matrix(modality[cell]))


def _values(data: Data, name: str) -> tuple[pd.Series, str]:
    """Return the values of an obs column, gene or protein by cell, and their unit."""
    table = {} if _parts(data) else _proteins_in_obsm(data)
    parts: Mapping[str, AnnData] = _parts(data) or {"": data, **table}

    def values_in(key: str, feature: str) -> tuple[pd.Series, str]:
        place = "obsm" if key in table else "X"
        return _feature(data, parts[key], feature), f"{key}, as in {place}".strip(", ")

    modality, _, feature = name.partition(":")
    if modality == _IMPUTED and feature:
        return _imputed(data, feature), "imputed, as in obsm"
    if modality in parts and (found := _find(parts[modality], feature)):
        return values_in(modality, found)
    matches = [key for key, part in parts.items() if name in part.var_names]
    if len(matches) > 1 and not table:  # beside a table of proteins, a name is first that of a gene
        raise InputDataError(
            f"{name} is in {' and '.join(matches)}; write {' or '.join(f'{key}:{name}' for key in matches)}"
        )
    if matches and name not in data.obs:
        return values_in(matches[0], name)
    try:
        return find_column(data, name), name
    except LabelError as error:
        protein = find_modality(parts, keys.PROTEIN_MODALITIES)
        if protein and (antibody := _find(parts[protein], name)):
            return values_in(protein, antibody)
        for key, part in parts.items():
            if part.raw is not None and name in part.raw.var_names:
                values = pd.Series(_dense(part.raw[:, name].X), index=part.obs_names)
                return values.reindex(data.obs_names), f"{key}, as in raw".strip(", ")
        raise InputDataError(f"{name} is neither a gene nor a protein, and {error}") from error


def _find(part: AnnData, name: str) -> str | None:
    """Return the feature of this name, or the only antibody of this antigen."""
    if name in part.var_names:
        return name
    matches = proteins_called(name, pd.DataFrame({"name": part.var_names.astype(str)}))
    return str(part.var_names[matches[0]]) if len(matches) == 1 else None


def _proteins_in_obsm(data: AnnData) -> dict[str, AnnData]:
    """Return the table of proteins in obsm as a modality, if there is one of numbers."""
    table = None
    with suppress(InputDataError):
        table, _ = protein_frame(data, None)
    if table is None:
        return {}
    var = pd.DataFrame(index=table.columns.astype(str))
    return {keys.PROTEIN_MODALITIES[0]: AnnData(to_dense(table), obs=data.obs[[]], var=var)}


def _imputed(data: Data, name: str) -> pd.Series:
    parts = [
        part.obsm[keys.PROTEIN_IMPUTED] for part in (data, *_parts(data).values()) if keys.PROTEIN_IMPUTED in part.obsm
    ]
    if not parts:
        raise InputDataError(f"there is no obsm['{keys.PROTEIN_IMPUTED}']; run model.impute(data, inplace=True)")
    table = parts[0]
    matches = proteins_called(name, pd.DataFrame({"name": table.columns.astype(str)}))
    if len(matches) != 1:
        raise InputDataError(f"{name} is not among the imputed proteins: {name_some(list(table.columns), 5)}")
    return table.iloc[:, matches[0]].reindex(data.obs_names)


def _by_group(
    data: Data, features: str | Sequence[str], groupby: str
) -> tuple[list[str], pd.Series, dict[str, pd.Series]]:
    """Return the names of the groups, the group of each cell, and the values of each feature, without other cells."""
    wanted = [features] if isinstance(features, str) else list(features)
    if not wanted:
        raise SettingError("features is empty; give a gene, a protein or an obs column")
    column = find_column(data, groupby)
    groups = pd.Series(label_names(column), index=data.obs_names)
    labelled = (groups != "").to_numpy()
    if not labelled.any():
        raise LabelError(f"no cell has a value in obs['{groupby}']")
    values = {name: _numbers(data, name)[labelled] for name in wanted}
    return encode_labels(column)[1], groups[labelled], values


def _numbers(data: Data, name: str) -> pd.Series:
    try:
        return _values(data, name)[0].astype(float)
    except (TypeError, ValueError) as error:
        raise InputDataError(f"obs['{name}'] is not a column of numbers, the only ones to plot by group") from error


def _feature(data: Data, part: AnnData, name: str) -> pd.Series:
    own = part[:, name]
    if own.n_vars > 1:
        raise InputDataError(f"{own.n_vars} features are called {name}; call var_names_make_unique() first")
    return pd.Series(_dense(_matrix(own)), index=part.obs_names).reindex(data.obs_names)


def _matrix(part: AnnData) -> Any:
    """Return X in memory."""
    if part.X is None:
        raise InputDataError("there is no X, whose values are plotted; set it to log-normalised counts")
    return part.X.to_memory() if hasattr(part.X, "to_memory") else part.X


def _dense(line: Any) -> NDArray[np.float64]:
    """Return one row or column of a dense or sparse matrix."""
    return np.asarray(line.toarray() if hasattr(line, "toarray") else line, dtype=np.float64).ravel()


def _parts(data: Data) -> Mapping[str, AnnData]:
    """Return the modalities by name; of an AnnData, genes and antibodies, if its feature types tell of both."""
    if isinstance(data, MuData):
        return data.mod
    is_antibody = split_features(data)[1]
    if is_antibody.all() or not is_antibody.any():
        return {}
    parts = zip((keys.RNA_MODALITIES[0], keys.PROTEIN_MODALITIES[0]), (~is_antibody, is_antibody))
    return {name: data[:, features] for name, features in parts}
