"""Colours, text and axes shared by all figures; global state of matplotlib is not changed.

Names from data are drawn with ``parse_math=False``: a `$` in them does not begin a formula.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from scfusionttt.labels import class_names, label_names

INK = "#1f2430"
MUTED = "#667085"
RULE = "#d5d9e0"
SHADE = "#f1f3f7"
#: Colour of unlabelled cells and missing values.
MISSING = "#ced2d9"

#: The first six are from Okabe and Ito (2008). Each further colour is the one farthest in OKLab from all before it,
#: under normal vision, protanopia, deuteranopia and tritanopia (Machado et al. 2009), among those visible on white.
# fmt: off
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#73003a", "#4a5a00", "#31298c",
    "#6bde84", "#8c526b", "#847be6", "#31e6ff", "#9cad84", "#ded642", "#633100", "#733a9c", "#004a63",
    "#737b52", "#ef9cbd", "#bd4a8c", "#a52931", "#5a8c00", "#f77b4a", "#9c94c5", "#a5bdff", "#5a1973",
    "#9c5a29", "#ffbd9c", "#6b739c", "#5a5ac5", "#9c9c29", "#84216b", "#006b52", "#bdbd5a", "#5ab55a",
)
# fmt: on


def class_colours(classes: Sequence[str], colours: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return one colour per class; `colours` takes precedence. Colours repeat after 36 classes."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(classes)} | dict(colours or {})


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key with which cluster 2 comes before cluster 10; only the same text has the same key."""
    parts = re.split(r"([0-9]+)", text)
    return [*((int(part), "") if i % 2 else (-1, part.casefold()) for i, part in enumerate(parts)), (-2, text)]


def ordered_classes(values: pd.Series, names: NDArray[Any]) -> list[str]:
    """Return the classes of a column, whose text is given, "" if missing.

    These are in natural order (2 before 10), or in that of the categories, unless it is alphabetical: pandas' default.
    """
    present = set(names) - {""}
    order = list(class_names(values.cat.categories)) if isinstance(values.dtype, pd.CategoricalDtype) else []
    if order == sorted(order):
        order = sorted(present, key=natural_key)
    return [name for name in dict.fromkeys(order) if name in present]


def encode_labels(
    labels: ArrayLike | pd.Series, as_text: Callable[[pd.Series], NDArray[Any]] = label_names
) -> tuple[NDArray[np.intp], list[str]]:
    """Return a code per cell (-1: not labelled, "" as text) and the classes, in the order of `ordered_classes`."""
    series = pd.Series(labels)
    names = as_text(series)
    classes = ordered_classes(series, names)
    return pd.Index(classes, dtype=object).get_indexer(pd.Index(names, dtype=object)), classes


def shorten(name: object, most: int = 28) -> str:
    """Return a name on one line, with at most `most` characters, all of them valid Unicode."""
    text = _one_line(name)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def shorten_all(names: Iterable[object], most: int = 28) -> list[str]:
    """Return names as `shorten` does; those that would look alike are cut in their middle, or else not at all."""
    full = [_one_line(name) for name in names]
    ends = [shorten(name, most) for name in full]
    middles = [name if len(name) <= most else f"{name[: most // 2]}…{name[-((most - 1) // 2) :]}" for name in full]
    short = [middle if ends.count(end) > 1 else end for end, middle in zip(ends, middles)]
    return [name if short.count(text) > 1 else text for name, text in zip(full, short)]


def _one_line(name: object) -> str:
    return " ".join(str(name).encode("utf-8", "replace").decode().split())


def without_overlap(
    centers: NDArray[np.float64], widths: NDArray[np.float64], between: tuple[float, float] = (-np.inf, np.inf)
) -> NDArray[np.float64]:
    """Return positions of labels that do not overlap, as near to their sorted centres as possible (least squares).

    Labels that would cross one of the limits are moved inside them.
    """
    offsets = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2)])
    blocks: list[list[float]] = []  # of adjacent labels that touch: sum of the places of their first, and their number
    for place in centers - offsets:
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + size]
    at = np.concatenate([np.full(int(size), total / size) for total, size in blocks] or [np.empty(0)]) + offsets
    low, high = between[0] + widths[:1] / 2 + offsets, between[1] - widths[-1:] / 2 - offsets[-1] + offsets
    return np.minimum(np.maximum(at, low), high)


_figure: ContextVar[Callable[..., Figure]] = ContextVar("_figure", default=Figure)


@contextmanager
def on_pyplot() -> Iterator[None]:
    """Create figures with pyplot in this context, so that notebooks show them."""
    from matplotlib import pyplot

    before = _figure.set(pyplot.figure)
    try:
        yield
    finally:
        _figure.reset(before)


def new_axes(width: float, height: float, *, panels: int = 1, ncols: int | None = None) -> NDArray[Any]:
    """Return `panels` empty axes, [panels], on a new figure of the given size in inches, in rows of `ncols`."""
    figure = _figure.get()(figsize=(width, height), layout="constrained", facecolor="white")
    columns = min(ncols or panels, panels)
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.set_axis_off()
    return axes[:panels]


def tidy(ax: Axes, title: str = "", *, spines: Sequence[str] = ("left", "bottom")) -> None:
    """Apply the common style: light spines and ticks, a title at the left."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in spines)
        spine.set_color(RULE)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=8, length=3, width=0.8)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=MUTED, fontsize=8.5)
    if title:
        text = shorten(title, 90)
        ax.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8, parse_math=False)


def show_reason(ax: Axes, reason: str) -> None:
    """Write the reason why axes are empty into them."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, reason, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize=9)
