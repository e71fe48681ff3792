"""Cells in two dimensions, coloured by class or by value."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from scfusionttt.plotting.figures.style import (
    INK,
    MISSING,
    class_colours,
    encode_labels,
    new_axes,
    shorten,
    shorten_all,
    show_reason,
    tidy,
)

#: Names of at most this length are drawn on the data; longer ones go into a legend.
_SHORT = 3
#: With more classes than this, a legend is numbered, and the numbers are drawn on the data.
_FEW_CLASSES = 8
_LEGEND_ROWS = 20
_FEW_CELLS = 12


def umap(
    coords: ArrayLike,
    labels: ArrayLike | pd.Series,
    *,
    title: str = "",
    colours: Mapping[str, str] | None = None,
    space: str = "UMAP",
    ax: Axes | None = None,
) -> Axes:
    """Draw cells coloured by class.

    Short names, such as cluster numbers, are drawn on the data. Longer ones are listed in a legend with their numbers
    of cells; with more than eight classes, they are also numbered on the data. Cells are drawn in a fixed random order,
    so that no class hides another; unlabelled cells (`labels.UNLABELLED`, NaN) are drawn first, in grey.

    Parameters
    ----------
    coords
        Coordinates [n, 2]. Cells with a non-finite coordinate are left out.
    labels
        Classes [n]. Categories keep their order; other values are sorted, numbers by value.
    colours
        Colours by class, to use the same ones in several figures.
    space
        Name of the coordinates.
    """
    xy, shown = _finite(coords)
    codes, classes = encode_labels(labels)
    palette = class_colours(classes, colours)
    on_data = bool(classes) and max(map(len, classes)) <= _SHORT
    numbered = not on_data and len(classes) > _FEW_CLASSES

    named = [] if on_data else classes
    texts = [f"{name} ({(codes == i).sum():,})" for i, name in enumerate(shorten_all(named))]
    if numbered:  # U+2007 is a space as wide as a digit
        texts = [f"{i:\u2007>2}  {text}" for i, text in enumerate(texts, 1)]
    handles = [_dot(palette[name]) for name in named]
    if (unlabelled := int((codes < 0).sum())) > 0:
        texts.append(f"not labelled ({unlabelled:,})")
        handles.append(_dot(MISSING))

    columns = -(-len(texts) // _LEGEND_ROWS)
    if ax is None:
        widest = max(map(len, texts), default=0)
        ax = new_axes(4.5 + columns * (0.35 + 0.068 * widest), 4.4)[0]
    if not shown.any():
        show_reason(ax, "no cells to show")
    _points(ax, xy[shown & (codes < 0)], MISSING, n=len(xy))
    order = np.random.default_rng(0).permutation(np.flatnonzero(shown & (codes >= 0)))
    _points(ax, xy[order], [palette[classes[code]] for code in codes[order]], n=len(xy))
    if on_data or numbered:
        for i, name in enumerate(classes):
            if (members := shown & (codes == i)).any():
                _write_name(ax, xy[members], name if on_data else str(i + 1))
    if texts:
        _legend(ax, handles, texts, columns)
    _finish(ax, title, space)
    return ax


def umap_continuous(
    coords: ArrayLike, values: ArrayLike, unit: str, *, title: str = "", space: str = "UMAP", ax: Axes | None = None
) -> Axes:
    """Draw cells coloured by a value, with high values on top and missing values below, in grey.

    Parameters
    ----------
    coords
        Coordinates [n, 2]. Cells with a non-finite coordinate are left out.
    values
        Values [n] in `unit`. Colours span the 1st to the 99th percentile.
    space
        Name of the coordinates.
    """
    xy, shown = _finite(coords)
    value = np.asarray(values, dtype=float)
    known = shown & np.isfinite(value)
    ax = new_axes(5.1, 4.4)[0] if ax is None else ax
    _points(ax, xy[shown & ~known], MISSING, n=len(xy))
    if not known.any():
        show_reason(ax, "no values to show")
        _finish(ax, title, space)
        return ax
    order = np.flatnonzero(known)[np.argsort(value[known], kind="stable")]
    low, high = np.percentile(value[known], [1, 99])
    if low == high:  # a gene that almost no cell expresses
        low, high = value[known].min(), value[known].max()
    x, y = xy[order].T
    points = ax.scatter(x, y, c=value[order], vmin=low, vmax=high, cmap="viridis", **_point_style(len(xy)))
    bar = ax.figure.colorbar(points, ax=ax, shrink=0.55, aspect=18, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=2)
    bar.locator = MaxNLocator(nbins=4)
    bar.set_label(shorten(unit, 40), fontsize=8.5, color=INK, parse_math=False)
    _finish(ax, title, space)
    return ax


def _finite(coords: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    xy = np.asarray(coords, dtype=float)
    return xy, np.isfinite(xy).all(axis=1)


def _point_style(n: int) -> dict:
    return {"s": float(np.clip(50_000 / max(n, 1), 0.8, 30)), "linewidths": 0, "rasterized": True}


def _points(ax: Axes, xy: NDArray, colour: str | list[str], *, n: int) -> None:
    if len(xy):
        ax.scatter(xy[:, 0], xy[:, 1], c=colour, **_point_style(n))


def _middle(xy: NDArray) -> NDArray:
    """Return the point nearest to the median, so that a name is never placed between two groups of points."""
    return xy[np.argmin(np.linalg.norm(xy - np.median(xy, axis=0), axis=1))]


def _write_name(ax: Axes, members: NDArray, name: str) -> None:
    """Write a name on its cells, or above them if it would hide them."""
    above = len(members) < _FEW_CELLS
    ax.annotate(
        shorten(name),
        tuple(_middle(members)),
        xytext=(0, 3.5 if above else 0),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "center",
        fontsize=8.5,
        fontweight="bold",
        color=INK,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white", alpha=0.9)],
    )


def _dot(colour: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, markersize=6)


def _legend(ax: Axes, handles: list[Line2D], texts: list[str], columns: int) -> None:
    legend = ax.legend(
        handles,
        ["name"] * len(texts),  # set below: matplotlib drops names that start with an underscore
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=8,
        handletextpad=0.3,
        columnspacing=1.0,
        labelspacing=0.45,
        borderaxespad=0.2,
    )
    for entry, text in zip(legend.get_texts(), texts):
        entry.set(text=text, color=INK, parse_math=False)


def _finish(ax: Axes, title: str, space: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(f"{shorten(space)} 1", loc="left", parse_math=False)
    ax.set_ylabel(f"{shorten(space)} 2", loc="bottom", parse_math=False)
    tidy(ax, title)
