"""Means with intervals, one line per method and one panel per metric."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from scfusionttt.plotting.figures.style import MUTED, PALETTE, RULE, new_axes, shorten, show_reason, tidy

#: Least width of an axis, so that differences of a few thousandths look as small as they are.
_SPAN = 0.1


def intervals(panels: Mapping[str, pd.DataFrame]) -> NDArray[Any]:
    """Draw the mean of each method as a dot and its interval as a line, with the best method at the top.

    A method without an interval, as of a single run, is grey. Scores that are at most 1 have no interval beyond 1, and
    an axis spans at least 0.1.

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
        limit = 1.0 if (rows["mean"] <= 1).all() else float("inf")
        ax.hlines(range(len(rows)), rows["low"], rows["high"].clip(upper=limit), color=PALETTE[0], linewidth=1.6)
        alone = rows["low"].isna().to_numpy()
        for own, colour in ((~alone, PALETTE[0]), (alone, MUTED)):
            ax.plot(rows["mean"].where(own), range(len(rows)), "o", color=colour, markersize=5)
        ax.set_yticks(range(len(rows)), [shorten(name) for name in rows.index], parse_math=False)
        ax.grid(axis="x", color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.margins(x=0.08, y=0.08)
        tidy(ax, title)
        low, high = ax.get_xlim()
        if not rows.empty and limit == 1 and high - low < _SPAN:
            ax.set_xlim((low + high - _SPAN) / 2, (low + high + _SPAN) / 2)
    return axes
