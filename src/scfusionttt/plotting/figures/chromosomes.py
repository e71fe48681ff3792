"""Groups of cells along the genome, and positions of genes and proteins on the chromosomes."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from scfusionttt.genome.antibody_names import antigen
from scfusionttt.plotting.figures.strip import name_chromosomes
from scfusionttt.plotting.figures.style import (
    INK,
    PALETTE,
    RULE,
    new_axes,
    shorten,
    show_reason,
    tidy,
    without_overlap,
)
from scfusionttt.plotting.figures.track import SCAFFOLDS, UNPLACED, Track

#: Number of adjacent genes that are averaged, as single genes are noisy.
_WINDOW = 20
_MEGABASE = 1e6
#: Letters of a name that fit across the plot.
_LETTERS = 145
#: Height of a line of names, relative to the distance between chromosomes, and how much of a line is filled at most.
_NAME_LINE, _MOST_FILLED = 0.36, 0.6


def chromosome_heatmap(
    genes: pd.DataFrame, values: pd.DataFrame, *, unit: str = "", title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw groups of cells (rows) along the genome (columns): windows of 20 genes, relative to the mean over groups.

    Windows do not cross chromosomes. Red is above and blue below the mean over groups, after subtraction of the median
    of each group, so that groups with more RNA are not red throughout.

    Parameters
    ----------
    genes
        Table [g] with `chromosome` and `start` (bp), in any order; missing for unplaced genes.
    values
        Mean of each gene in each group [groups, g], with columns in the order of `genes`.
    unit
        Unit of the values.
    """
    ax = new_axes(11.0, 1.6 + 0.24 * max(len(values), 3))[0] if ax is None else ax
    track = Track(genes)
    if values.empty:
        show_reason(ax, "no cells to show")
        tidy(ax, title)
        return ax
    mean = values.to_numpy(dtype=float)[:, track.order]
    mean = mean - np.nanmean(mean, axis=0) if len(mean) > 1 else mean
    edges = _windows(track)
    windows = np.stack([mean[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1)
    windows -= np.median(windows, axis=1, keepdims=True)
    most = float(np.nanpercentile(np.abs(windows), 99)) or 1.0
    drawn = ax.pcolormesh(
        edges, np.arange(len(values) + 1), windows, cmap="RdBu_r", vmin=-most, vmax=most, rasterized=True
    )
    ax.vlines([first for _, first, _ in track.bands[1:]], 0, len(values), color=INK, linewidth=0.5)
    ax.invert_yaxis()
    ax.set_yticks(np.arange(len(values)) + 0.5, [shorten(name) for name in values.index], parse_math=False)
    bar = ax.figure.colorbar(drawn, ax=ax, aspect=14, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7.5, labelcolor=INK, length=2)
    bar.locator = MaxNLocator(nbins=5)
    bar.set_label(shorten(unit, 40), fontsize=8, color=INK, parse_math=False)
    name_chromosomes(ax, track, shade=False)
    tidy(ax, title, spines=())
    ax.tick_params(length=0)
    return ax


def gene_places(
    genes: pd.DataFrame, *, proteins: pd.DataFrame | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw each chromosome as a line with a tick per gene, and proteins by name below their coding genes.

    Features on scaffolds or without a chromosome are counted below.

    Parameters
    ----------
    genes
        Table [g] with `chromosome` and `start` (bp).
    proteins
        Table [p] with `name`, and `chromosome` and `start` (bp) of the coding gene.
    """
    track = Track(genes)
    start = pd.to_numeric(genes["start"], errors="coerce").to_numpy(float, na_value=np.nan)
    shown = [name for name, _, _ in track.bands if name not in (SCAFFOLDS, UNPLACED)]
    if not shown:
        ax = new_axes(11.0, 2.1)[0] if ax is None else ax
        show_reason(ax, "no gene has a known position")
        tidy(ax, title)
        return ax
    named = _place_names(genes.iloc[:0].assign(name="") if proteins is None else proteins, shown, start)
    lines = named.groupby("row")["line"].max().reindex(range(len(shown)), fill_value=0).to_numpy()
    at = np.arange(len(shown)) + _NAME_LINE * (np.cumsum(lines) - lines)  # lower where names fill several lines
    bottom = at[-1] + _NAME_LINE * lines[-1] + 0.7
    ax = new_axes(11.0, 0.9 + 0.3 * max(bottom + 0.3, 3))[0] if ax is None else ax
    for row, name in zip(at, shown):
        own = start[(track.chromosome == name).to_numpy()] / _MEGABASE
        ax.plot([0, own.max()], [row, row], color=RULE, linewidth=5, solid_capstyle="round", zorder=1)
        ticks = [[(x, row - 0.28), (x, row + 0.28)] for x in own]
        ax.add_collection(LineCollection(ticks, colors=PALETTE[0], linewidths=0.5, alpha=0.55, rasterized=True))
        ax.text(1.005, row, f"{len(own):,}", transform=ax.get_yaxis_transform(), fontsize=7.5, color=INK, va="center")
    ax.text(1.005, -0.9, "genes", transform=ax.get_yaxis_transform(), fontsize=7.5, color=INK, va="center")
    _name_proteins(ax, named, at)
    ax.set_yticks(at, shown)
    ax.set(ylim=(bottom, -0.9), xlabel="position, million base pairs")
    ax.margins(x=0.01)
    words = {SCAFFOLDS: f"on {SCAFFOLDS}", UNPLACED: UNPLACED}
    left_out = [f"{end - first} {words[name]}" for name, first, end in track.bands if name in words]
    if left_out:
        ax.set_xlabel(f"position, million base pairs (genes not shown: {', '.join(left_out)})")
    tidy(ax, title, spines=())
    return ax


def _place_names(proteins: pd.DataFrame, shown: list[str], start: np.ndarray) -> pd.DataFrame:
    """Place the names of proteins below their genes, in as many lines as they need.

    Returns a table of the proteins on the chromosomes shown: `row` of the chromosome, `x` of the gene and of its name
    (`name_x`) in million base pairs, `text`, and `line`, 0 for the first.
    """
    table = proteins.assign(row=Track(proteins).chromosome.map({name: row for row, name in enumerate(shown)}))
    table = table.dropna(subset=["row", "start"]).sort_values(["row", "start"], ignore_index=True)
    table["x"] = table["name_x"] = pd.to_numeric(table["start"]).to_numpy(dtype=float) / _MEGABASE
    table["text"] = [shorten(antigen(str(name)), 14) for name in table["name"]]
    length = np.nanmax([*start / _MEGABASE, *table["x"]])
    width = (table["text"].map(len).astype(float) + 1.5) * length / _LETTERS
    n_lines = np.ceil(width.groupby(table["row"]).transform("sum") / (_MOST_FILLED * length))
    table["line"] = table.groupby("row").cumcount() % n_lines
    for _, own in table.groupby(["row", "line"]):
        table.loc[own.index, "name_x"] = without_overlap(own["x"].to_numpy(), width[own.index].to_numpy(), (0, length))
    return table


def _name_proteins(ax: Axes, named: pd.DataFrame, at: np.ndarray) -> None:
    """Mark proteins on chromosomes, which are at these heights, and write the names at their places."""
    row = at[named["row"].astype(int)]
    below = row + 0.36 + _NAME_LINE * named["line"].to_numpy()
    ax.plot(named["x"], row, "o", color=PALETTE[5], markersize=3.5, zorder=3)
    leaders = [[gene, name] for gene, name in zip(zip(named["x"], row), zip(named["name_x"], below))]
    ax.add_collection(LineCollection(leaders, colors=PALETTE[5], linewidths=0.5, zorder=2))
    for x, y, name in zip(named["name_x"], below, named["text"]):
        text = ax.text(x, y, name, fontsize=6.5, color=INK, ha="center", va="top", zorder=4, parse_math=False)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.3})  # above leaders of names below


def _windows(track: Track) -> np.ndarray:
    """Return the edges of windows of `_WINDOW` genes that do not cross chromosomes."""
    inner = [np.arange(first, end, _WINDOW) for _, first, end in track.bands]
    return np.unique(np.concatenate([*inner, [track.size]]))
