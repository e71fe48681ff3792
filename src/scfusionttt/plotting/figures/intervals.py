"""Means with intervals, one line per method and one panel per metric."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from scfusionttt.plotting.figures.style import PALETTE, RULE, literal, new_axes, shorten, show_reason, tidy


def intervals(panels: Mapping[str, pd.DataFrame]) -> NDArray[Any]:
    """Draw the mean of each method as a dot and its interval as a line, with the best method at the top.

    Parameters
    ----------
    panels
        Tables by title, with the columns `mean`, `low` and `high` (NaN: no interval) and one row per method.

    Returns
    -------
    Axes, [panels].
    """
    lines = max((len(table) for table in panels.values()), default=0)
    axes = new_axes(max(3.4 * len(panels), 3.4), 1.1 + 0.26 * max(lines, 3), panels=max(len(panels), 1))
    if not panels:
        show_reason(axes[0], "no method has a result")
    for ax, (title, table) in zip(axes, panels.items()):
        rows = table.sort_values("mean")
        if rows.empty:
            show_reason(ax, "no method has a result")
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
