import numpy as np
import pandas as pd

from scfusionttt.plotting.figures import dot_plot

MEANS = pd.DataFrame({"CD3E": [2.0, 0.0, 1.0], "$MS4A1$": [0.0, 3.0, 0.0]}, index=["T", "B", "NK"])


def test_groups_are_rows_and_each_feature_is_scaled_by_itself(draw):
    ax = dot_plot(MEANS, pd.DataFrame(0.5, MEANS.index, MEANS.columns))
    assert draw(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["T", "B", "NK"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["CD3E", "$MS4A1$"]
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_array(), [1, 0, 0, 1, 0.5, 0])
    assert set(dots.get_sizes()) == {45.0}


def test_without_fractions_it_is_a_heat_map_with_gaps_where_nothing_was_measured(draw):
    ax = dot_plot(MEANS.assign(CD19=np.nan))
    assert draw(ax)
    values = np.ma.filled(ax.collections[0].get_array(), np.nan).reshape(3, 3)
    np.testing.assert_allclose(values[:, 2], np.nan)
    np.testing.assert_allclose(values[:, 0], [1, 0, 0.5])


def test_no_features_show_the_reason():
    ax = dot_plot(pd.DataFrame(index=["T"]))
    assert [text.get_text() for text in ax.texts] == ["no features to show"]
