"""Training curves, one panel per run of a stage."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scfusionttt.plotting.figures.style import INK, MUTED, PALETTE, RULE, new_axes, show_reason, tidy

_PHASES = {"train": ("training", PALETTE[0]), "val": ("validation", PALETTE[5])}


def by_run(history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the epochs of each run of a stage by its name; a second run of ``finetune`` is ``finetune 2``."""
    is_first = (history["stage"] != history["stage"].shift()) | (history["epoch"].diff() <= 0)
    runs, times = {}, Counter[str]()
    for _, rows in history.groupby(is_first.cumsum().to_numpy()):
        stage = str(rows["stage"].iloc[0])
        times[stage] += 1
        runs[stage if times[stage] == 1 else f"{stage} {times[stage]}"] = rows
    return runs


def training_curves(
    history: pd.DataFrame, *, metric: str = "loss", axes: Sequence[Axes] | NDArray[Any] | None = None
) -> NDArray[Any]:
    """Draw `train_{metric}` and `val_{metric}` over the epochs, one panel per stage, and mark the best epoch.

    Parameters
    ----------
    history
        One row per epoch: `stage`, `epoch` and metrics, NaN if a stage lacks a metric.
    metric
        The best value is the lowest of a loss and the highest of any other metric.
    axes
        Axes to draw in, one per run.

    Returns
    -------
    Axes, [runs], in their order; a stage that ran again has another panel.
    """
    runs = by_run(history)
    if axes is None:
        axes = new_axes(max(3.4 * len(runs), 3.4), 2.7, panels=max(len(runs), 1))
    panels = np.asarray(axes, dtype=object)
    if not runs:
        show_reason(panels[0], "no training was recorded")
    for ax, (name, rows) in zip(panels, runs.items()):
        _run(ax, rows.set_index("epoch"), metric)
        ax.set_xlabel("epoch")
        tidy(ax, name)
    panels[0].set_ylabel(metric.replace("_", " "))
    tidy(panels[0])
    return panels


def _run(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Draw one run of a stage; `rows` is indexed by epoch."""
    curves = {}
    for phase in _PHASES:
        column = rows.get(f"{phase}_{metric}", pd.Series(dtype=float))
        if len(curve := column.replace([np.inf, -np.inf], np.nan).dropna()):
            curves[phase] = curve
    if not curves:
        show_reason(ax, f"no {metric.replace('_', ' ')} was recorded")
        return
    for phase, curve in curves.items():
        name, colour = _PHASES[phase]
        marker = "o" if len(curve) == 1 else None
        ax.plot(curve.index, curve, label=name, color=colour, linewidth=1.6, marker=marker, markersize=4)
    if "val" in curves:
        _mark_best(ax, curves["val"], lower="loss" in metric)
    ax.margins(x=0.04, y=0.18)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")


def _mark_best(ax: Axes, curve: pd.Series, *, lower: bool) -> None:
    at = int(np.argmin(curve) if lower else np.argmax(curve))
    epoch, best = float(curve.index[at]), float(curve.iloc[at])
    ax.plot([epoch], [best], marker="o", markersize=6, markerfacecolor="white", color=_PHASES["val"][1])
    ax.annotate(
        f"best {best:.3g}, epoch {epoch:g}",
        (epoch, best),
        xytext=(0, -9 if lower else 9),
        textcoords="offset points",
        ha="right" if epoch > np.mean(ax.get_xlim()) else "left",
        va="top" if lower else "bottom",
        fontsize=7.5,
        color=MUTED,
    )
