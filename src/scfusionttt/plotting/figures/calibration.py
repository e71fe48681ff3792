"""Reliability diagram of predicted probabilities."""

import pandas as pd
from matplotlib.axes import Axes

from scfusionttt.plotting.figures.style import INK, MUTED, PALETTE, RULE, new_axes, show_reason, tidy


def calibration(bins: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw a reliability diagram: accuracy against the predicted probability.

    Below the diagonal, the model is overconfident. The area of a dot is proportional to the number of its cells.

    Parameters
    ----------
    bins
        `confidence` (mean probability, 0..1), `accuracy` (0..1) and `cells` of each bin with cells, as
        :func:`scfusionttt.evaluation.reliability` gives them.
    """
    ax = new_axes(4.6, 4.2)[0] if ax is None else ax
    if bins.empty:
        show_reason(ax, "no predictions to show")
        tidy(ax, title)
        return ax
    cells, total = bins["cells"].to_numpy(dtype=float), float(bins["cells"].sum())
    gap = (bins["confidence"] - bins["accuracy"]).abs()
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.annotate("perfect calibration", (0.06, 0.06), xytext=(0, 5), textcoords="offset points", rotation=45,
                rotation_mode="anchor", transform_rotates_text=True, fontsize=7.5, color=MUTED)  # fmt: skip
    ax.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=PALETTE[5], linewidth=1.4)
    ax.scatter(bins["confidence"], bins["accuracy"], s=6 + 250 * cells / total, color=PALETTE[0], zorder=3)
    summary = f"expected calibration error {float((gap * cells).sum() / total):.3f}\n{total:,.0f} cells"
    ax.text(0.97, 0.04, summary, transform=ax.transAxes, ha="right", va="bottom", fontsize=8.5, color=INK)
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", xlabel="probability of the predicted class")
    ax.set_ylabel("fraction of cells predicted correctly")
    ax.grid(color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    tidy(ax, title)
    return ax
