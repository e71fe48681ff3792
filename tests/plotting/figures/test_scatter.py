import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scfusionttt.plotting.figures import umap, umap_continuous
from scfusionttt.plotting.figures.style import MISSING, PALETTE


def cells(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


def test_few_classes_have_a_legend_with_numbers_of_cells(draw):
    ax = umap(cells(5), ["B", "CD4+ T", "CD4+ T", None, "unknown"], title="Cell type")
    assert draw(ax)
    assert legend_texts(ax) == ["B (1)", "CD4+ T (2)", "not labelled (2)"]
    assert ax.get_title(loc="left") == "Cell type"
    assert len(ax.texts) == 0


def test_cluster_numbers_are_drawn_on_the_data(draw):
    ax = umap(cells(60), np.arange(60) % 20)
    assert draw(ax)
    assert legend_texts(ax) == []
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(20)]


def test_35_classes_are_numbered_on_the_data_and_in_the_legend(draw):
    names = [f"class {i}" for i in range(35)]
    ax = umap(cells(350), np.repeat(names, 10))
    assert draw(ax)
    assert [text.get_text() for text in ax.texts] == [str(i + 1) for i in range(35)]
    assert [text.strip("\u2007") for text in legend_texts(ax)] == [f"{i + 1}  {names[i]} (10)" for i in range(35)]
    ax.figure.draw_without_rendering()
    legend, canvas = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert legend.x1 <= canvas.x1 and legend.y0 >= canvas.y0


@pytest.mark.parametrize("labels", [["only"], [np.nan], ["unknown"]])
def test_one_cell_is_drawn(draw, labels):
    assert draw(umap(cells(1), labels))


def test_no_cell_and_no_finite_cell(draw):
    assert "no cells to show" in umap(np.empty((0, 2)), []).texts[0].get_text()
    ax = umap([[np.nan, 0.0]], ["a"])
    assert draw(ax)
    assert ax.texts[0].get_text() == "no cells to show"


def test_a_name_is_drawn_on_a_cell_of_its_class():
    left, right = cells(50) * 0.1 - 5, cells(50, seed=1) * 0.1 + 5
    xy = np.concatenate([left, right])
    ax = umap(xy, ["1"] * 100)
    assert np.abs(xy - np.array(ax.texts[0].xy)).sum(axis=1).min() == 0


def test_awkward_names_are_shown_as_they_are(draw, awkward_names):
    ax = umap(cells(len(awkward_names)), pd.Series(awkward_names, dtype=object), title="$\\frac{1$")
    assert draw(ax)
    shown = " ".join(legend_texts(ax))
    for name in ("_hidden", "$\\frac{1$", "a$b$c", "γδ T", "<script>", "xxx…"):
        assert name in shown


def test_drawing_order_is_mixed_and_always_the_same():
    labels = np.repeat(["first", "second"], 500)
    first, second = (umap(cells(1000), labels).collections[-1].get_facecolors() for _ in range(2))
    assert (first == second).all()
    is_first = np.array([to_hex(colour) == PALETTE[0] for colour in first])
    assert 400 < is_first[:500].sum() + (~is_first[500:]).sum() < 600


def test_given_colours_are_used_and_unlabelled_cells_are_below():
    ax = umap(cells(3), ["named", None, "named"], colours={"named": "#123456"})
    below, above = ax.collections
    assert to_hex(below.get_facecolors()[0]) == MISSING
    assert {to_hex(colour) for colour in above.get_facecolors()} == {"#123456"}


def test_given_axes_are_used_and_the_input_is_unchanged():
    mine = Figure().subplots()
    xy, labels = cells(4), pd.Series(["a", "b", None, "a"], index=list("wxyz"))
    before = xy.copy(), labels.copy()
    assert umap(xy, labels, ax=mine) is mine
    np.testing.assert_array_equal(xy, before[0])
    pd.testing.assert_series_equal(labels, before[1])
    assert umap_continuous(xy, np.arange(4), "CLR", ax=mine) is mine


@pytest.mark.parametrize(
    "values", [[0, 1, 2, 3], [1, 1, 1, 1], [0, 0, 0, 5], [np.nan, 1, np.inf, 2], [np.nan] * 4, [1e-300, 0, 0, 0]]
)
def test_values_have_a_colour_bar_and_none_a_reason(draw, values):
    ax = umap_continuous(cells(4), values, "CD3E, log1p counts per 10k", title="CD3E")
    assert draw(ax)
    bars = [other for other in ax.figure.axes if other is not ax]
    if np.isfinite(values).any():
        assert bars[0].get_ylabel() == "CD3E, log1p counts per 10k"
    else:
        assert bars == [] and ax.texts[0].get_text() == "no values to show"


def test_high_values_are_drawn_last():
    ax = umap_continuous(cells(5), [3, np.nan, 5, 1, 2], "counts")
    assert ax.collections[-1].get_array().tolist() == [1, 2, 3, 5]
