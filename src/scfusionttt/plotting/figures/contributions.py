"""Shares of the features that explain a protein or a class."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scfusionttt.plotting.figures.style import PALETTE, RULE, new_axes, shorten, show_reason, tidy

_RAISES, _LOWERS = PALETTE[5], PALETTE[0]


def contributions(table: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw the share of each feature as a bar, orange if its high values raise the output and blue if they lower it.

    Parameters
    ----------
    table
        Features in the order of the figure, with the columns name, modality, share and score.
    """
    ax = new_axes(5.6, 1.2 + 0.235 * max(len(table), 3))[0] if ax is None else ax
    if table.empty:
        show_reason(ax, "no feature contributes more than expected by chance")
        tidy(ax, title)
        return ax
    colours = [_RAISES if score > 0 else _LOWERS for score in table["score"]]
    rows = range(len(table))
    ax.barh(rows, table["share"], color=colours, height=0.72)
    ax.set_yticks(rows, [shorten(_named(*pair)) for pair in zip(table["name"], table["modality"])], parse_math=False)
    ax.invert_yaxis()
    ax.grid(axis="x", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("share of what the model explains (all features: 1)")
    handles = [Line2D([], [], marker="s", linestyle="", color=colour) for colour in (_RAISES, _LOWERS)]
    ax.legend(handles, ["high values raise it", "high values lower it"], loc="lower right", frameon=False, fontsize=8)
    tidy(ax, title, spines=("bottom",))
    return ax


def _named(name: object, modality: object) -> str:
    return f"{name} (protein)" if modality == "protein" else str(name)
