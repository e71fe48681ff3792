"""Growth of time and memory with the length of the sequence: exponents and a figure.

python benchmarks/scaling.py --figure scaling.png                           # measures
python benchmarks/scaling.py --results operator.json --figure scaling.png   # uses the results of operator.py

An exponent is the slope of log time (or memory) over log tokens by least squares: 1 is linear, 2 quadratic.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from benchmarks import operator as layers
from benchmarks.contenders import BACKWARD, BF16, BOTH, CHUNKED, CONTENDERS, DEFINITION, FORWARD, TTT
from benchmarks.measure import print_table, write_json
from benchmarks.targets import EXPONENT
from scfusionttt.plotting.figures.style import INK, PALETTE, RULE, new_axes, tidy

LENGTHS = (1000, 2000, 4000, 8192, 20000)
QUICK = (100, 200, 400)
#: From this length on, the overhead of a call is negligible.
LONG = 2048
#: Layers that should meet the target exponent.
LINEAR = (TTT, BF16, BOTH, CHUNKED)
CURVES = {"forward": (FORWARD, "ms"), "training": (BACKWARD, "ms"), "training memory": (BACKWARD, "MB")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or read, fit, print, draw; returns the exit code."""
    parser = layers.make_parser(__doc__)
    parser.add_argument("--results", type=Path, help="use the results of operator.py; measure nothing")
    parser.add_argument("--figure", type=Path, help="draw time and memory against sequence length into this file")
    given = layers.fill_in(parser.parse_args(arguments), lengths=LENGTHS, quick=QUICK)
    torch.set_num_threads(1)
    if given.results:
        figures = json.loads(given.results.read_text(encoding="utf-8"))
        if "results" not in figures:
            print(
                f"{given.results}: contains no times, because the layers failed the correctness check", file=sys.stderr
            )
            return 1
        results = pd.DataFrame(figures["results"])
        notes = [note for note in figures["notes"] if not note.startswith(DEFINITION)]
        fitted = results[results["tokens"].between(LENGTHS[0], LENGTHS[-1]) & (results["layer"] != DEFINITION)]
    else:
        if not layers.passes_check(given):
            return 1
        names = _without_definition()
        results, notes = layers.measure(given.lengths, repeats=given.repeats, limit=given.limit, names=names)
        if given.memory:
            results["MB"] = layers.peaks(results)
        fitted = results
    exponents = fit(fitted)
    span = f"{fitted['tokens'].min():,} to {fitted['tokens'].max():,} tokens"
    print_table(exponents, f"exponents, {span}; on the right, from {LONG:,}", notes)
    write_json(given.json, exponents=exponents.reset_index(), results=results, notes=notes)
    if given.figure:
        draw(results, given.figure)
    return 0


def _without_definition() -> list[str]:
    return [name for name in CONTENDERS if name != DEFINITION]


def fit(results: pd.DataFrame) -> pd.DataFrame:
    """Return each layer's exponents of time (forward; training, which is forward + backward) and of memory.

    Parameters
    ----------
    results
        Columns layer, tokens, pass, ms and MB, as returned by `benchmarks.operator.measure`.
    """
    rows = {}
    for name, own in results.groupby("layer", sort=False):
        row: dict[str, object] = {}
        for suffix, part in (("", own), (f" ≥ {LONG:,}", own[own["tokens"] >= LONG])):
            row |= {f"{title}{suffix}": exponent(curve_of(part, title)) for title in CURVES}
        held = name in LINEAR and row["training"] is not None
        rows[name] = row | {"target": f"training ≤ {EXPONENT}" if held else None, "met": None}
        if held:
            rows[name]["met"] = row["training"] <= EXPONENT  # type: ignore[operator]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def curve_of(results: pd.DataFrame, title: str) -> pd.Series:
    """Return one of `CURVES` of one layer, by number of tokens."""
    kind, quantity = CURVES[title]
    return results[results["pass"] == kind].set_index("tokens")[quantity].astype(float).dropna()


def exponent(curve: pd.Series) -> float | None:
    """Return the slope of log value over log tokens; None for fewer than two lengths."""
    if len(curve) < 2:
        return None
    return float(np.polyfit(np.log(curve.index.to_numpy(float)), np.log(curve.to_numpy()), 1)[0])


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draw time and, if measured, memory of training against sequence length, one line per layer."""
    shown = [title for title in ("training", "training memory") if len(curve_of(results, title))]
    axes = new_axes(5.6 * len(shown), 4.2, panels=len(shown))
    for ax, title in zip(axes, shown):
        _panel(ax, results, title)
    axes[0].figure.savefig(path, dpi=150)


def _panel(ax: Axes, results: pd.DataFrame, title: str) -> None:
    ends = {}
    for i, name in enumerate(_without_definition()):
        curve = curve_of(results[results["layer"] == name], title)
        if len(curve):
            width = 2.6 if name == TTT else 1.3
            ax.plot(curve.index, curve, color=PALETTE[i], marker="osD^vPX*"[i], markersize=4.5, linewidth=width)
            ends[name] = curve.index[-1], float(curve.iloc[-1]), PALETTE[i]
    ax.set(xscale="log", yscale="log", xlabel="tokens per cell")
    ticks = sorted(results["tokens"].unique())
    ax.set_xticks(ticks, [f"{tick / 1000:.2g}k" if tick >= 1000 else str(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_ylabel({"ms": "ms per cell", "MB": "MB per cell"}[CURVES[title][1]])
    tidy(ax, {"ms": "Time of forward + backward", "MB": "Peak memory of forward + backward"}[CURVES[title][1]])
    _label(ax, ends)


def _label(ax: Axes, ends: dict[str, tuple[float, float, str]]) -> None:
    """Write the name of each line at its end, from bottom to top, without overlap."""
    low, high = np.log(ax.get_ylim())
    at = -np.inf
    for name, (x, y, colour) in sorted(ends.items(), key=lambda end: end[1][1]):
        at = max((np.log(y) - low) / (high - low), at + 0.05)
        ax.annotate(
            name,
            (x, y),
            xytext=(1.05, at),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK,
            fontweight="bold" if name == TTT else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkB": 3, "relpos": (0, 0.5)},
        )


if __name__ == "__main__":
    sys.exit(main())
