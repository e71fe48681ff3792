"""Differences between groups and their p-values."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scfusionttt.plotting.figures.style import INK, MUTED, PALETTE, RULE, new_axes, show_reason, tidy

#: Smallest p-value that is drawn at its height.
_LEAST = 1e-300
#: Largest fold change that is drawn at its place (log2).
_MOST = 10.0


def volcano(
    table: pd.DataFrame, *, title: str = "", fold: float = 1.0, level: float = 0.05, named: int = 10,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw the fold change and the p-value of each feature, and name those with the smallest p-values.

    Parameters
    ----------
    table
        Columns names, logfoldchanges (base 2) and pvals_adj. Fold changes beyond 10, as of features without counts in
        one group, are drawn at the edge.
    fold, level
        Features with at least this fold change, and at most this p-value, are coloured.
    named
        Number of features to name on each side.
    """
    ax = new_axes(4.8, 4.2)[0] if ax is None else ax
    known = table[np.isfinite(table["logfoldchanges"]) & np.isfinite(table["pvals_adj"])]
    tidy(ax, title)
    if known.empty:
        show_reason(ax, "no feature was tested")
        return ax
    change, height = known["logfoldchanges"].clip(-_MOST, _MOST), -np.log10(known["pvals_adj"].clip(lower=_LEAST))
    passes = (change.abs() >= fold) & (known["pvals_adj"] <= level)
    for chosen, colour in ((~passes, RULE), (passes & (change < 0), PALETTE[0]), (passes & (change > 0), PALETTE[1])):
        ax.scatter(change[chosen], height[chosen], s=7, color=colour, linewidths=0, rasterized=len(known) > 5000)
    for side in (change < 0, change > 0):
        best = known[passes & side].sort_values("pvals_adj", kind="stable").index[:named]
        for row in best:
            ax.annotate(
                str(known.loc[row, "names"]), (change[row], height[row]), xytext=(3, 2), textcoords="offset points",
                fontsize=7, color=INK, parse_math=False,
            )  # fmt: skip
    for x in (-fold, fold):
        ax.axvline(x, color=MUTED, linewidth=0.6, linestyle=":")
    ax.axhline(-np.log10(level), color=MUTED, linewidth=0.6, linestyle=":")
    beyond = (known["logfoldchanges"].abs() > _MOST).any()
    clipped = f" (beyond {_MOST:g}: at the edge)" if beyond else ""
    ax.set(xlabel=f"log2 fold change{clipped}", ylabel="-log10 adjusted p-value")
    return ax
