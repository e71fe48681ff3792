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
    literal,
    new_axes,
    shorten,
    show_reason,
    tidy,
)
from scfusionttt.plotting.figures.track import SCAFFOLDS, UNPLACED, Track

#: Number of adjacent genes that are averaged, as single genes are noisy.
_WINDOW = 20
_MEGABASE = 1e6


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
    ax.set_yticks(np.arange(len(values)) + 0.5, [shorten(name) for name in values.index])
    for label in ax.get_yticklabels():
        literal(label)
    bar = ax.figure.colorbar(drawn, ax=ax, aspect=14, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7.5, labelcolor=INK, length=2)
    bar.locator = MaxNLocator(nbins=5)
    literal(bar.ax.yaxis.label).set(text=shorten(unit, 40), fontsize=8, color=INK)
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
    chromosome, start = (
        track.chromosome,
        pd.to_numeric(genes["start"], errors="coerce").to_numpy(float, na_value=np.nan),
    )
    shown = [name for name, _, _ in track.bands if name not in (SCAFFOLDS, UNPLACED)]
    ax = new_axes(11.0, 1.2 + 0.3 * max(len(shown), 3))[0] if ax is None else ax
    if not shown:
        show_reason(ax, "no gene has a known position")
        tidy(ax, title)
        return ax
    for row, name in enumerate(shown):
        own = start[(chromosome == name).to_numpy()] / _MEGABASE
        ax.plot([0, own.max()], [row, row], color=RULE, linewidth=5, solid_capstyle="round", zorder=1)
        ticks = [[(x, row - 0.28), (x, row + 0.28)] for x in own]
        ax.add_collection(LineCollection(ticks, colors=PALETTE[0], linewidths=0.5, alpha=0.55, rasterized=True))
        ax.text(1.005, row, f"{len(own):,}", transform=ax.get_yaxis_transform(), fontsize=7.5, color=INK, va="center")
    ax.text(1.005, -0.9, "genes", transform=ax.get_yaxis_transform(), fontsize=7.5, color=INK, va="center")
    named = 0.0
    if proteins is not None and len(proteins):
        named = _name_proteins(ax, proteins, shown, letter=float(np.nanmax(start)) / _MEGABASE / 145)
    ax.set_yticks(range(len(shown)), shown)
    ax.set(ylim=(len(shown) - 0.3, -0.9), xlabel="position, million base pairs")
    ax.margins(x=0.01)
    ax.set_xlim(right=max(ax.get_xlim()[1], named))
    words = {SCAFFOLDS: f"on {SCAFFOLDS}", UNPLACED: UNPLACED}
    left_out = [f"{end - first} {words[name]}" for name, first, end in track.bands if name in words]
    if left_out:
        ax.set_xlabel(f"position, million base pairs (genes not shown: {', '.join(left_out)})")
    tidy(ax, title, spines=())
    return ax


def _name_proteins(ax: Axes, proteins: pd.DataFrame, shown: list[str], *, letter: float) -> float:
    """Mark proteins, and name them below their genes; return the position where the last name ends.

    `letter` is the width of a letter in million base pairs.
    """
    places = proteins.assign(row=Track(proteins).chromosome.map({name: row for row, name in enumerate(shown)}))
    places = places.dropna(subset=["row", "start"]).sort_values(["row", "start"])
    end = 0.0
    for row in range(len(shown)):
        own = places[places["row"] == row]
        if own.empty:
            continue
        x = own["start"].to_numpy(dtype=float) / _MEGABASE
        names = [shorten(antigen(str(name)), 14) for name in own["name"]]
        widths = np.array([letter * (len(name) + 1.5) for name in names])
        at = without_overlap(x, widths)
        ax.plot(x, [row] * len(x), "o", color=PALETTE[5], markersize=3.5, zorder=3)
        leaders = [[(gene, row), (label, row + 0.36)] for gene, label in zip(x, at)]
        ax.add_collection(LineCollection(leaders, colors=PALETTE[5], linewidths=0.5, zorder=2))
        for label, name in zip(at, names):
            literal(ax.text(label, row + 0.36, name, fontsize=6.5, color=INK, ha="center", va="top", zorder=4))
        end = max(end, float((at + widths / 2).max()))
    return end


def without_overlap(centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return positions of labels that do not overlap, as near to their sorted centres as possible (least squares)."""
    offsets = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2)])
    blocks: list[list[float]] = []  # of adjacent labels that touch: sum of the places of their first, and their number
    for place in centres - offsets:
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + size]
    return np.concatenate([np.full(int(size), total / size) for total, size in blocks] or [np.empty(0)]) + offsets


def _windows(track: Track) -> np.ndarray:
    """Return the edges of windows of `_WINDOW` genes that do not cross chromosomes."""
    inner = [np.arange(first, end, _WINDOW) for _, first, end in track.bands]
    return np.unique(np.concatenate([*inner, [track.size]]))
