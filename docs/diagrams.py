"""Drawings for `how_it_works.md`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from scfusionttt import simulate
from scfusionttt.genome import resolve_antibodies
from scfusionttt.plotting.figures.strip import genome_strip
from scfusionttt.plotting.figures.style import INK, MUTED, PALETTE, RULE

RNA, PROTEIN, FUSED = PALETTE[0], PALETTE[5], PALETTE[2]


def order() -> Figure:
    """Draw one simulated cell along the genome, its proteins at their coding genes."""
    mdata = simulate(40, 1200, 16, 4, seed=3)
    genes = mdata["rna"].var.rename_axis("name").reset_index()
    places = resolve_antibodies(mdata["prot"].var_names, species="human").table
    proteins = places[["name", "chromosome", "start"]].assign(value=np.log1p(mdata["prot"].X[0]))
    rna = np.log1p(mdata["rna"].X[0].toarray().ravel())
    units = {"unit": "RNA, log1p of counts", "protein_unit": "protein, log1p of counts"}
    return genome_strip(genes, rna, proteins=proteins, title="A cell as the network reads it", **units).figure


def inner_model() -> Figure:
    """Draw a TTT layer over four tokens: the state is updated by each token, then queried."""
    ax = _canvas(9, 2.7, (-0.75, 9.4), (-0.35, 2.75))
    for i in range(4):
        x = 2.2 * i
        _box(ax, x, 0, f"token {i + 1}", RNA, width=1.25)
        _box(ax, x, 1.2, f"$W_{i + 1}$", FUSED, width=0.8)
        _arrow(ax, (x, 0.28), (x, 0.92), "k, v, q" if i == 0 else "")
        _arrow(ax, (x, 1.48), (x, 2.2), "")
        ax.text(x, 2.3, f"$f_{{W_{i + 1}}}(q)$", ha="center", va="bottom", color=INK, fontsize=10)
        _arrow(ax, (x + 0.42, 1.2), (x + 1.78, 1.2), r"$-\eta\,\nabla\ell$")
    ax.text(8.35, 1.2, "…", ha="left", va="center", color=INK, fontsize=14)
    return ax.figure


def fusion() -> Figure:
    """Draw how each modality reads the other."""
    ax = _canvas(9, 2.9, (-0.9, 9.3), (-0.5, 2.7))
    for y, own, colour, count in ((1.9, "RNA", RNA, "genes, in patches"), (0.3, "proteins", PROTEIN, "one token each")):
        _box(ax, 0, y, f"{own}\n{count}", colour, width=1.7)
        _box(ax, 2.6, y, "encoder\nTTT blocks", colour, width=1.6)
        _box(ax, 5.2, y, "fusion\nTTT block", FUSED, width=1.6)
        _arrow(ax, (0.87, y), (1.78, y), "")
        _arrow(ax, (3.42, y), (4.38, y), "")
        _arrow(ax, (6.02, y), (7.28, 1.1 + (0.12 if y > 1 else -0.12)), "")
    _arrow(ax, (3.42, 1.75), (4.4, 0.55), "")
    _arrow(ax, (3.42, 0.45), (4.4, 1.65), "")
    _box(ax, 8.1, 1.1, "bottleneck\n32 units", FUSED, width=1.6)
    return ax.figure


def stages() -> Figure:
    """Draw the three stages: input, trained parts, result."""
    ax = _canvas(9, 2.5, (-1.5, 8.1), (-0.95, 1.35))
    rows = (
        ("1  pretrain", "CITE-seq\nno labels", "everything", "embedding"),
        ("2  fine-tune", "CITE-seq\nwith labels", "head, optionally\nnetwork", "cell types"),
        ("3  transfer", "RNA only,\nlabels or none", "head, optionally\nprojection", "cell types\nwithout proteins"),
    )
    for i, (name, goes_in, trains, out) in enumerate(rows):
        x = 3.3 * i
        ax.text(x, 1.15, name, ha="center", va="center", color=INK, fontsize=11, fontweight="bold")
        _box(ax, x, 0.62, goes_in, RNA, width=2.5)
        _box(ax, x, 0.0, f"trains: {trains}", FUSED, width=2.5)
        _box(ax, x, -0.62, out, PROTEIN, width=2.5)
        if i:
            _arrow(ax, (x - 2.03, 0), (x - 1.27, 0), "")
    return ax.figure


def _canvas(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.set(xlim=x, ylim=y)
    ax.axis("off")
    return ax


def _box(ax: Axes, x: float, y: float, text: str, colour: str, *, width: float, height: float = 0.52) -> None:
    corner = (x - width / 2, y - height / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": f"{colour}18", "edgecolor": colour}
    ax.add_patch(FancyBboxPatch(corner, width, height, linewidth=1.2, **style))
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=9, linespacing=1.25)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1})
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        box = {"facecolor": "white", "edgecolor": RULE, "boxstyle": "round,pad=0.2", "linewidth": 0.6}
        ax.text(*middle, text, ha="center", va="center", color=MUTED, fontsize=8.5, bbox=box)
