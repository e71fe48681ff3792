"""Means with their intervals, one line per method, one panel per score."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from scfusionttt.plotting.figures.style import PALETTE, RULE, literal, new_axes, say_nothing_to_show, shorten, tidy


def intervals(panels: Mapping[str, pd.DataFrame]) -> NDArray[Any]:
    """Draw a panel per score: the mean of each method as a dot, its interval as a line, the best at the top.

    Parameters
    ----------
    panels
        Title to a table with the columns `mean`, `low` and `high` (NaN: no interval), one row per method.

    Returns
    -------
    Axes, [panels].
    """
    lines = max((len(table) for table in panels.values()), default=0)
    axes = new_axes(max(3.4 * len(panels), 3.4), 1.1 + 0.26 * max(lines, 3), panels=max(len(panels), 1))
    if not panels:
        say_nothing_to_show(axes[0], "no method has a result")
    for ax, (title, table) in zip(axes, panels.items()):
        rows = table.sort_values("mean")
        if rows.empty:
            say_nothing_to_show(ax, "no method has a result")
        ax.hlines(range(len(rows)), rows["low"], rows["high"], color=PALETTE[0], linewidth=1.6)
        ax.plot(rows["mean"], range(len(rows)), "o", color=PALETTE[0], markersize=5)
        ax.set_yticks(range(len(rows)), [shorten(name) for name in rows.index])
        for label in ax.get_yticklabels():
            literal(label)
        ax.grid(axis="x", color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.margins(x=0.08, y=0.08)
        tidy(ax, title)
    return axes
