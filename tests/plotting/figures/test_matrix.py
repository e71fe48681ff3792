from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scfusionttt.plotting.figures import confusion


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_counts_shares_and_recall_are_shown(draw):
    counts = pd.DataFrame([[30, 10], [0, 5]], index=["B", "T"], columns=["B", "T"])
    ax = confusion(counts, title="Held-out cells")
    assert draw(ax)
    assert texts(ax) == ["30", "10", "5", "recall", "0.75", "1.00"]
    assert ax.collections[0].get_array().ravel().tolist() == [0.75, 0.25, 0, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B (40)", "T (5)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["B", "T"]
    assert ax.get_xlabel().startswith("predicted") and ax.get_ylabel().startswith("true")
    assert ax.get_title(loc="left") == "Held-out cells"


def test_a_cross_table_has_no_recall(draw):
    ax = confusion(pd.DataFrame([[30, 10]], index=["0"], columns=["B", "T"]), recall=False)
    assert draw(ax)
    assert texts(ax) == ["30", "10"]
    assert ax.get_ylabel() == "label (number of cells)"


def test_unseen_and_unknown_classes_and_empty_rows(draw):
    counts = pd.DataFrame(
        [[3, 1, np.nan], [0, 0, 0], [1, 0, 1]], index=["B", "empty", "unseen"], columns=["B", "empty", "unknown"]
    )
    ax = confusion(counts)
    assert draw(ax)
    assert texts(ax)[-3:] == ["0.75", "–", "–"]


def test_large_counts_stay_short():
    shown = texts(confusion(pd.DataFrame([[999, 1000, 9949, 9950, 123456]], index=["a"], columns=list("abcde"))))
    assert shown[:5] == ["999", "1.0k", "9.9k", "10k", "123k"]


@pytest.mark.parametrize("k", [1, 35])
def test_names_of_one_class_and_of_many_do_not_overlap(draw, k):
    names = [f"class with a name {i}" for i in range(k)]
    ax = confusion(pd.DataFrame(np.eye(k, dtype=int) * 7, index=names, columns=names))
    assert draw(ax)
    assert len(ax.get_yticklabels()) == k
    ax.figure.draw_without_rendering()
    extents = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in pairwise(extents))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_long_names_leave_room_for_the_matrix(k):
    """Two classes with long names had a matrix of 0.3 inches, and the heading of the recall was outside the figure."""
    names = [f"{i}: classical monocytes of blood" for i in range(k)]
    ax = confusion(pd.DataFrame(np.eye(k) * 97, index=names, columns=names))
    ax.figure.draw_without_rendering()
    assert ax.get_window_extent().width >= 0.4 * k * ax.figure.dpi
    texts = [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]
    whole = ax.figure.bbox
    for box in (text.get_window_extent() for text in texts):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


def test_awkward_names_are_drawn(draw, awkward_names):
    k = len(awkward_names)
    assert draw(confusion(pd.DataFrame(np.ones((k, k)), index=awkward_names, columns=awkward_names)))


def test_an_empty_table_shows_the_reason(draw):
    ax = confusion(pd.DataFrame())
    assert draw(ax)
    assert texts(ax) == ["no predictions to show"]


def test_given_axes_are_used():
    mine = Figure().subplots()
    assert confusion(pd.DataFrame([[1]], index=["a"], columns=["a"]), ax=mine) is mine
