import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scfusionttt.plotting.figures import genome_strip

HUMAN = [*map(str, range(1, 23)), "X", "Y", "MT"]


def genome(n, seed=0, chromosomes=HUMAN):
    rng = np.random.default_rng(seed)
    names, start = [f"GENE{i}" for i in range(n)], rng.integers(1, 10**8, n)
    table = pd.DataFrame({"name": names, "chromosome": rng.choice(chromosomes, n), "start": start})
    return table, rng.poisson(0.4, n) * rng.gamma(2, 1.0, n)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def overlaps(ax, names):
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in names]
    assert len(boxes) == len(names)
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_4000_genes_with_many_proteins_at_one_position(draw):
    genes, values = genome(4000)
    names = [f"CD{i}" for i in range(14)]
    proteins = pd.DataFrame({"name": names, "chromosome": "11", "start": 5, "value": np.arange(14) / 5})
    ax = genome_strip(genes, values, proteins=proteins, unit="RNA, log1p", protein_unit="protein, CLR", title="Cell A")
    assert draw(ax)
    top = [f"GENE{i}" for i in np.argsort(-values)[:12]]
    assert overlaps(ax, [*top, *names]) == []
    assert overlaps(ax, HUMAN) == []
    assert {"RNA\nlog1p", "protein\nCLR"} <= set(texts(ax))
    assert ax.get_title(loc="left") == "Cell A"
    assert ax.get_xlabel()


def test_bars_are_in_genome_order():
    genes = pd.DataFrame({"chromosome": ["2", "1", "1"], "start": [1, 9, 3]})
    ax = genome_strip(genes, [5.0, 0.0, 7.0])
    bars = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert bars == [[[0.5, 0], [0.5, 7]], [[2.5, 0], [2.5, 5]]]
    assert set(texts(ax)) == {"1", "2", "RNA"}


def test_proteins_are_drawn_below_their_coding_genes():
    genes = pd.DataFrame({"chromosome": ["1", "1", "2"], "start": [1, 5, 3]})
    proteins = pd.DataFrame(
        {"name": ["CD4_TotalSeqB", "CD8"], "chromosome": ["2", "1"], "start": [3, 5], "value": [2.0, 1.0]}
    )
    ax = genome_strip(genes, [1, 2, 3], proteins=proteins)
    dots = ax.collections[-1].get_offsets()
    assert dots[:, 0].tolist() == [2.5, 1.5]
    assert dots[0, 1] < dots[1, 1] < 0
    assert {"CD4", "CD8"} <= set(texts(ax))
    assert [label.get_text() for label in ax.get_yticklabels()].count("0") == 2


@pytest.mark.parametrize("value", [[np.nan, 1.0], [np.nan, np.nan], [-2.0, 3.0], [0.0, 0.0], [-1.0, -2.0]])
def test_missing_negative_and_constant_proteins_are_drawn(draw, value):
    genes, values = genome(50)
    proteins = pd.DataFrame({"name": ["a", "b"], "chromosome": ["1", None], "start": [5, np.nan], "value": value})
    assert draw(genome_strip(genes, values, proteins=proteins))
    assert draw(genome_strip(genes, values - 1, proteins=proteins))


def test_224_proteins_are_drawn(draw):
    genes, values = genome(1000)
    proteins = genes.iloc[:224].assign(value=np.arange(224.0))
    assert draw(genome_strip(genes, values, proteins=proteins))


@pytest.mark.parametrize("n", [1, 2, 13733])
def test_one_gene_and_thousands_are_drawn(draw, n):
    genes, values = genome(n)
    assert draw(genome_strip(genes, values + 1))


def test_one_chromosome_all_unplaced_and_silent_cells(draw):
    genes, values = genome(30, chromosomes=["1"])
    assert draw(genome_strip(genes, np.zeros(30)))
    ax = genome_strip(genes.assign(chromosome=None, start=np.nan), values)
    assert draw(ax)
    assert "unplaced" in texts(ax)


def test_nan_is_blank_and_all_nan_shows_the_reason(draw):
    genes, values = genome(30)
    values = np.where(np.arange(30) < 10, np.nan, 1.0)
    assert len(genome_strip(genes, values).collections[0].get_segments()) == 20
    ax = genome_strip(genes, np.full(30, np.nan))
    assert draw(ax)
    assert texts(ax) == ["no gene was measured in this cell"]


def test_awkward_names_are_drawn(draw, awkward_names):
    genes, _ = genome(len(awkward_names))
    genes["name"] = awkward_names
    values = np.arange(1.0, len(genes) + 1)
    ax = genome_strip(genes, values, proteins=genes.assign(value=values), unit="$x$, y", title="a$b$c")
    assert draw(ax)
    assert texts(ax).count("a$b$c") == 2


def test_given_axes_are_used_and_the_input_is_unchanged():
    genes, values = genome(20)
    before = genes.copy(), values.copy()
    mine = Figure().subplots()
    assert genome_strip(genes, values, ax=mine) is mine
    pd.testing.assert_frame_equal(genes, before[0])
    np.testing.assert_array_equal(values, before[1])
