"""Confusion matrix of true and predicted classes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from scfusionttt.plotting.figures.style import INK, MUTED, RULE, new_axes, shorten_all, show_reason, tidy

_WHITE_TEXT_ABOVE = 0.55
#: Width of a letter of a class name, inches.
_LETTER = 0.068


def confusion(counts: pd.DataFrame, *, recall: bool = True, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix: numbers of cells, coloured by the fraction of the true class.

    Rows show the number of cells and, for classes that can be predicted, the recall. A predicted class that is not a
    true class (such as `unknown`) has a column, and a class that is never predicted has a row.

    Parameters
    ----------
    counts
        Numbers of cells [true, predicted]; NaN counts as 0. The order of rows and columns is kept.
    recall
        Whether rows and columns name the same classes. If not, this is a cross-table of labels and predictions.
    """
    cells = counts.fillna(0).to_numpy(dtype=float)
    rows, columns = cells.shape
    if ax is None:
        side = 0.42 if max(rows, columns) <= 14 else 0.3
        # The names of the axes are wider and higher than a small matrix.
        true, predicted = (max(map(len, shorten_all(names)), default=0) for names in counts.axes)
        width = 1.0 + _LETTER * (true + len(f" ({cells.sum():,.0f})")) + max(side * columns, 2.55)
        height = 0.6 + _LETTER * predicted + max(side * rows, 1.3)
        ax = new_axes(max(2.9 + side * columns, width), max(1.7 + side * rows, height))[0]
    if cells.size == 0:
        show_reason(ax, "no predictions to show")
        tidy(ax, title)
        return ax
    totals = cells.sum(axis=1)
    share = np.divide(cells, totals[:, None], out=np.zeros_like(cells), where=totals[:, None] > 0)
    ax.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    for i, j in zip(*np.nonzero(cells)):
        colour = "white" if share[i, j] > _WHITE_TEXT_ABOVE else INK
        ax.text(j + 0.5, i + 0.5, _compact(cells[i, j]), ha="center", va="center", fontsize=6.5, color=colour)
    _name_axes(ax, counts, totals)
    if recall:
        _write_recall(ax, counts, totals, share)
    else:
        ax.set(xlabel="predicted class (colour: fraction of the label)", ylabel="label (number of cells)")
    tidy(ax, title, spines=())
    ax.tick_params(length=0)
    return ax


def _name_axes(ax: Axes, counts: pd.DataFrame, totals: np.ndarray) -> None:
    true, predicted = [str(name) for name in counts.index], [str(name) for name in counts.columns]
    ax.set_xticks(np.arange(len(predicted)) + 0.5, shorten_all(predicted), rotation=90, parse_math=False)
    rows = [f"{name} ({n:,.0f})" for name, n in zip(shorten_all(true), totals)]
    ax.set_yticks(np.arange(len(true)) + 0.5, rows, parse_math=False)
    ax.set(xlabel="predicted class (colour: fraction of the true class)", ylabel="true class (number of cells)")
    ax.axhline(0, color=RULE, linewidth=0.8)


def _write_recall(ax: Axes, counts: pd.DataFrame, totals: np.ndarray, share: np.ndarray) -> None:
    """Outline the correct predictions, and write the recall of each class that can be predicted."""
    true, predicted = [str(name) for name in counts.index], [str(name) for name in counts.columns]
    right = len(predicted) + 0.25
    ax.text(right, -0.15, "recall", fontsize=7.5, color=MUTED, va="bottom")
    for i, name in enumerate(true):
        known = name in predicted and totals[i] > 0
        if known:
            j = predicted.index(name)
            ax.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor=INK, linewidth=0.6))
        ax.text(right, i + 0.5, f"{share[i, j]:.2f}" if known else "–", fontsize=7.5, color=INK, va="center")


def _compact(n: float) -> str:
    """Return a count in about four characters: 12, 950, 1.2k, 31k."""
    if n < 1000:
        return f"{n:.0f}"
    return f"{n / 1000:.1f}k" if n < 9950 else f"{n / 1000:.0f}k"
