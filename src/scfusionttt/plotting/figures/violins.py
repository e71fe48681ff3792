"""Distributions of a value in groups of cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scfusionttt.plotting.figures.style import (
    INK,
    RULE,
    class_colours,
    new_axes,
    shorten,
    shorten_all,
    show_reason,
    tidy,
)


def violins(
    groups: list[str], values: list[NDArray[np.float64]], *, unit: str = "", title: str = "",
    colours: Mapping[str, str] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw a violin and the median of the values of each group, [groups]; a constant group gets its median alone."""
    palette = class_colours(groups, colours)
    ax = new_axes(1.4 + 0.42 * max(len(groups), 3), 2.9)[0] if ax is None else ax
    known = [one[np.isfinite(one)] for one in values]
    if not any(len(one) for one in known):
        show_reason(ax, "no values to show")
        tidy(ax, title)
        return ax
    drawn = [i for i, one in enumerate(known) if len(one) > 1 and np.ptp(one) > 0]
    if drawn:
        parts = ax.violinplot([known[i] for i in drawn], drawn, widths=0.85, showextrema=False)
        bodies: Any = parts["bodies"]
        for place, body in zip(drawn, bodies):
            body.set(facecolor=palette[groups[place]], alpha=0.75, edgecolor="none")
    medians = [(i, float(np.median(one))) for i, one in enumerate(known) if len(one)]
    ax.plot(*zip(*medians), "_", color=INK, markersize=11, markeredgewidth=1.6)
    ax.set_xticks(range(len(groups)), shorten_all(groups), rotation=90, parse_math=False)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_ylabel(shorten(unit, 40), parse_math=False)
    tidy(ax, title)
    return ax
