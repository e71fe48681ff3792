import numpy as np
import pandas as pd

from scfusionttt.plotting.figures import intervals


def test_each_method_has_a_line_and_the_best_is_at_the_top():
    table = pd.DataFrame({"mean": [0.2, 0.9], "low": [0.1, np.nan], "high": [0.3, np.nan]}, index=["a", "b $x$"])
    axes = intervals({"ARI": table, "empty": table.iloc[:0]})
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["a", "b $x$"]
    with_interval, alone = axes[0].get_lines()
    np.testing.assert_array_equal(with_interval.get_xdata(), [0.2, np.nan])
    np.testing.assert_array_equal(alone.get_xdata(), [np.nan, 0.9])
    assert with_interval.get_color() != alone.get_color()
    assert axes[1].texts[0].get_text() == "no method has a result"
    assert intervals({})[0].texts[0].get_text() == "no method has a result"


def test_small_differences_look_small_and_no_interval_passes_one():
    """Orders that differ by 0.002 had filled the axis, and an accuracy had an interval up to 1.03."""
    rows = pd.DataFrame({"mean": [0.99, 0.992], "low": [0.95, 0.98], "high": [1.03, 1.004]}, index=["a", "b"])
    (ax,) = intervals({"accuracy": rows})
    assert max(float(x) for line in ax.collections[0].get_segments() for x in line[:, 0]) == 1
    close = rows.assign(low=rows["mean"] - 0.001, high=rows["mean"] + 0.001)
    (ax,) = intervals({"accuracy": close})
    assert np.ptp(ax.get_xlim()) >= 0.1 - 1e-9
    (ax,) = intervals({"CHI": close + 1000})
    assert np.ptp(ax.get_xlim()) < 0.1
