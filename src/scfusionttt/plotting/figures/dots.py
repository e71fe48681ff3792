"""Mean values of features in groups of cells: a dot plot or, without fractions, a heat map."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from scfusionttt.plotting.figures.style import INK, MUTED, new_axes, shorten, shorten_all, show_reason, tidy

_LARGEST = 90.0  # area of the dot of a feature that all cells of a group have, in square points


def dot_plot(
    means: pd.DataFrame, fractions: pd.DataFrame | None = None, *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw the mean of each feature (columns) in each group (rows), scaled from its lowest to its highest mean.

    Parameters
    ----------
    means
        Means [groups, features], NaN where a feature was not measured.
    fractions
        Fraction of the cells of a group that have the feature, 0 to 1, as the area of a dot; None: squares.
    """
    rows, columns = means.shape
    ax = new_axes(2.6 + 0.235 * columns, 1.5 + 0.235 * rows)[0] if ax is None else ax
    if means.size == 0:
        show_reason(ax, "no features to show")
        tidy(ax, title)
        return ax
    low, span = means.min(), (means.max() - means.min()).replace(0, 1)
    scaled = ((means - low) / span).to_numpy(dtype=float)
    colours: dict = {"cmap": "Reds", "vmin": -0.1, "vmax": 1}
    if fractions is None:
        edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
        drawn = ax.pcolormesh(*edges, scaled, edgecolors="white", **colours)
    else:
        y, x = np.indices(means.shape)
        area = _LARGEST * fractions.to_numpy(dtype=float)
        drawn = ax.scatter(x, y, area, scaled, linewidths=0.4, edgecolors=MUTED, **colours)
        _name_sizes(ax)
    ax.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6))
    ax.set_xticks(range(columns), [shorten(name, 20) for name in means.columns], rotation=90, parse_math=False)
    ax.set_yticks(range(rows), shorten_all(means.index), parse_math=False)
    bar = ax.figure.colorbar(drawn, ax=ax, aspect=10, shrink=0.6 if rows > 8 else 1, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.yaxis.set_major_locator(FixedLocator([0, 1]))
    bar.ax.set_ylim(0, 1)
    bar.ax.set_yticklabels(["lowest", "highest"])
    bar.ax.tick_params(labelsize=7.5, labelcolor=INK, length=0)
    tidy(ax, title, spines=())
    ax.tick_params(length=0)
    return ax


def _name_sizes(ax: Axes) -> None:
    """Explain the areas of the dots above the axes."""
    sizes = [0.1, 0.5, 1.0]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=MUTED, markersize=np.sqrt(_LARGEST * size), label=f"{size:.0%}")
        for size in sizes
    ]
    ax.legend(
        handles=handles, title="cells above 0", loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False,
        fontsize=7.5, title_fontsize=7.5, handletextpad=0.2, columnspacing=0.9,
    )  # fmt: skip
