import numpy as np
import pandas as pd
import pytest

from scfusionttt.plotting.figures import chromosome_heatmap, gene_places


@pytest.fixture
def genes():
    """63 genes of three chromosomes in random order, three of them unplaced."""
    chromosome = ["2"] * 25 + ["10"] * 30 + ["X"] * 5 + [None] * 3
    table = pd.DataFrame({"chromosome": chromosome, "start": [*range(100, 160), None, None, None]})
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def test_a_gained_chromosome_is_visible_at_its_position(genes):
    values = pd.DataFrame(np.ones((3, 63)), index=["0", "1", "$gained$"])
    values.loc["$gained$", genes.index[genes["chromosome"] == "10"]] = 4.0
    ax = chromosome_heatmap(genes, values, unit="log1p")
    drawn = ax.collections[0].get_array().reshape(3, -1)
    # chromosomes 2, 10, X and unplaced genes take two, two, one and one windows
    np.testing.assert_allclose(drawn[2], [0, 0, 2, 2, 0, 0])
    np.testing.assert_allclose(drawn[0], [0, 0, -1, -1, 0, 0])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "$gained$"]
    ax.figure.draw_without_rendering()


def test_an_empty_table_shows_the_reason(genes):
    ax = chromosome_heatmap(genes, pd.DataFrame(columns=range(63)))
    assert [text.get_text() for text in ax.texts] == ["no cells to show"]


def test_every_chromosome_has_a_line_and_every_placed_gene_a_tick(genes):
    proteins = pd.DataFrame({"name": ["CD3", "lost"], "chromosome": ["10", None], "start": [130, None]})
    ax = gene_places(genes, proteins=proteins)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "10", "X"]
    assert [len(lines.get_segments()) for lines in ax.collections] == [25, 30, 5, 1], (
        "and a line from a protein's gene to its name"
    )
    texts = [text.get_text() for text in ax.texts]
    assert "CD3" in texts
    assert "lost" not in texts
    assert "not shown: 3 unplaced" in ax.get_xlabel()
    ax.figure.draw_without_rendering()


def test_a_name_at_the_end_of_the_longest_chromosome_ends_before_the_number_of_genes():
    """Half of the name PD-1, whose gene is the last of chromosome 2, was hidden under the number."""
    genes = pd.DataFrame({"chromosome": "2", "start": np.linspace(1e6, 242e6, 20)})
    ax = gene_places(genes, proteins=pd.DataFrame({"name": ["PD-1_TotalSeqB"], "chromosome": ["2"], "start": [242e6]}))
    ax.figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert boxes["PD-1"].x1 < boxes["20"].x0


def test_names_of_a_large_panel_do_not_overlap_and_stay_on_the_chromosomes():
    """The names of 224 proteins ran into each other, and the axis began at -70 million base pairs."""
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(
        {"chromosome": np.repeat(["1", "19"], 30), "start": rng.uniform(0, [[248e6], [58e6]], (2, 30)).ravel()}
    )
    names = [f"CD{i}a.{i % 3}" for i in range(50)]
    proteins = pd.DataFrame({"name": names, "chromosome": ["1"] * 32 + ["19"] * 18, "start": rng.uniform(0, 58e6, 50)})
    ax = gene_places(genes, proteins=proteins)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in names]
    assert len(boxes) == 50
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert ax.get_xlim()[0] > -5


def test_unplaced_genes_show_the_reason():
    ax = gene_places(pd.DataFrame({"chromosome": [None], "start": [None]}))
    assert [text.get_text() for text in ax.texts] == ["no gene has a known position"]
