"""The genes and proteins of one cell along the genome."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from scfusionttt.genome.antibody_names import antigen
from scfusionttt.plotting.figures.style import (
    INK,
    MUTED,
    PALETTE,
    SHADE,
    new_axes,
    shorten,
    show_reason,
    tidy,
    without_overlap,
)
from scfusionttt.plotting.figures.track import Track

_BLUES = (PALETTE[0], "#5b9fc9")
_ORANGE = PALETTE[5]
_MOST_PROTEIN_NAMES = 40
#: Width of a vertical name, as a fraction of the width of the plot.
_NAME_GAP = 0.0135


def genome_strip(
    genes: pd.DataFrame,
    values: ArrayLike,
    *,
    proteins: pd.DataFrame | None = None,
    unit: str = "RNA",
    protein_unit: str = "protein",
    title: str = "",
    named: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw the genes of one cell in genome order and, below them, its proteins at their coding genes.

    All genes have the same width, so the width of a chromosome is its number of genes. Alternate chromosomes are
    shaded; unplaced genes and proteins are at the end. The most highly expressed genes are named.

    Parameters
    ----------
    genes
        Table [g] with `chromosome` and `start` (bp), in any order, missing or empty for unplaced genes; and optionally
        `name`.
    values
        Values [g] in `unit`; NaN (not measured) is left blank.
    proteins
        Table [p] with `name`, `chromosome` and `start` (bp) of the coding gene, and `value` in `protein_unit`; NaN is
        drawn as a hollow dot.
    named
        Number of genes to name.
    """
    ax = new_axes(11.0, 3.0 if proteins is None else 4.4)[0] if ax is None else ax
    track = Track(genes)
    value = np.asarray(values, dtype=float)[track.order]
    if not np.isfinite(value).any():
        show_reason(ax, "no gene was measured in this cell")
        tidy(ax, title)
        return ax
    top, bottom = max(float(np.nanmax(value)), 0.0), min(float(np.nanmin(value)), 0.0)
    height = (top - bottom) or 1.0
    _bars(ax, value, track.parity)
    ax.axhline(0, color=MUTED, linewidth=0.7)
    ceiling, floor = top + 0.05 * height, bottom - 0.03 * height
    if "name" in genes:
        names = genes["name"].to_numpy(dtype=object)[track.order]
        chosen = [i for i in np.argsort(-np.nan_to_num(value, nan=0), kind="stable")[:named] if value[i] > 0]
        marks = [(i + 0.5, value[i], names[i]) for i in chosen]
        ceiling = _name_marks(ax, marks, ceiling, track.size, up=height)
    ticks = {tick: f"{tick:g}" for tick in _round_ticks(bottom, top)}
    if proteins is not None and len(proteins):
        floor, protein_ticks = _hang_proteins(ax, proteins, track, bottom - 0.14 * height, height, protein_unit)
        ticks |= protein_ticks
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set(xlim=(0, max(track.size, 1)), ylim=(floor, ceiling))
    name_chromosomes(ax, track)
    tidy(ax, title, spines=())
    _name_lane(ax, (top + bottom) / 2, unit, MUTED)
    ax.tick_params(axis="x", length=0)
    return ax


def _bars(ax: Axes, value: NDArray, parity: NDArray) -> None:
    drawn = np.flatnonzero(np.nan_to_num(value))
    ax.add_collection(
        LineCollection(
            [((i + 0.5, 0.0), (i + 0.5, value[i])) for i in drawn],
            colors=[_BLUES[parity[i]] for i in drawn],
            linewidths=float(np.clip(560 / max(len(value), 1), 0.6, 6.0)),
            rasterized=True,
        )
    )


def _name_marks(ax: Axes, marks: list[tuple[float, float, object]], level: float, size: int, *, up: float) -> float:
    """Write vertical names beyond `level` without overlap, each connected to its mark; return where they end."""
    ordered = sorted(marks, key=lambda mark: mark[0])
    gaps = np.full(len(ordered), size * min(_NAME_GAP, 1 / max(len(ordered), 1)))
    places = without_overlap(np.array([x for x, _, _ in ordered]), gaps, (0, size))
    knee = level + 0.08 * up
    longest = 0
    for place, (x, y, name) in zip(places, ordered):
        ax.plot([x, x, place], [y, level, knee], color=MUTED, linewidth=0.5, solid_joinstyle="round")
        text = shorten(name, 14)
        longest = max(longest, len(text))
        align = "bottom" if up > 0 else "top"
        ax.text(
            place, knee + 0.02 * up, text, rotation=90, ha="center", va=align, fontsize=7, color=INK, parse_math=False
        )
    return knee + (0.06 + 0.055 * longest) * up


def _hang_proteins(
    ax: Axes, proteins: pd.DataFrame, track: Track, lane: float, height: float, unit: str
) -> tuple[float, dict[float, str]]:
    """Draw proteins downwards from `lane` on their own scale; return where they end, and their ticks."""
    value = proteins["value"].to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(value)
    low, high = min(value[known], default=0.0), max(value[known], default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    depth = 0.62 * height
    scale = depth / ((high - low) or 1.0)
    zero = lane + low * scale

    x, end = track.locate(proteins), zero - np.where(known, value, 0.0) * scale
    ax.axhline(zero, color=_ORANGE, linewidth=0.6)
    ax.vlines(x, zero, end, color=_ORANGE, linewidth=1.3)
    ax.scatter(x, end, s=16, color=np.where(known, _ORANGE, "white"), edgecolors=_ORANGE, zorder=3)

    names = [antigen(str(name)) for name in proteins["name"]]
    highest = np.argsort(-np.where(known, value, -np.inf), kind="stable")[:_MOST_PROTEIN_NAMES]
    marks = [(x[i], end[i], names[i]) for i in highest]
    floor = _name_marks(ax, marks, lane - depth - 0.05 * height, track.size, up=-height)
    _name_lane(ax, lane - depth / 2, unit, _ORANGE)
    return floor, {zero - tick * scale: f"{tick:g}" for tick in _round_ticks(low, high)}


def _name_lane(ax: Axes, middle: float, unit: str, colour: str) -> None:
    """Write the unit of a lane to the left of its tick labels."""
    where = ax.get_yaxis_transform() + ScaledTranslation(-28 / 72, 0, ax.figure.dpi_scale_trans)
    text = "\n".join(part.strip() for part in shorten(unit, 60).split(",", 1))
    ax.text(
        0, middle, text, transform=where, rotation=90, ha="right", va="center", ma="center", fontsize=8.5,
        color=colour, parse_math=False,
    )  # fmt: skip


def _round_ticks(low: float, high: float) -> list[float]:
    """Return a few round values within a range that includes 0."""
    ticks = MaxNLocator(nbins=3, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) + 0.0 for tick in ticks if low <= tick <= high]


def name_chromosomes(ax: Axes, track: Track, *, shade: bool = True) -> None:
    """Shade alternate chromosomes and write their names below, on several lines if they would overlap."""
    ax.set_xticks([])
    ends: list[float] = []
    for i, (name, first, end) in enumerate(track.bands):
        if shade and i % 2 == 0:
            ax.axvspan(first, end, color=SHADE, linewidth=0, zorder=0)
        middle, half = (first + end) / 2 / track.size, 0.0035 * len(name) + 0.002
        row = next((row for row, taken in enumerate(ends) if middle - half > taken), len(ends))
        ends[row : row + 1] = [middle + half]
        text = ax.annotate(
            name,
            (middle * track.size, 0),
            xytext=(0, -5 - 9 * row),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="top",
        )
        text.set(fontsize=7.5, color=INK)
    ax.set_xlabel("genes in genome order, by chromosome", labelpad=6 + 9 * len(ends))
