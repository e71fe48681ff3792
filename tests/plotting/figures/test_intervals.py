import numpy as np
import pandas as pd

from scfusionttt.plotting.figures import intervals


def test_each_method_has_a_line_and_the_best_is_at_the_top():
    table = pd.DataFrame({"mean": [0.2, 0.9], "low": [0.1, np.nan], "high": [0.3, np.nan]}, index=["a", "b $x$"])
    axes = intervals({"ARI": table, "empty": table.iloc[:0]})
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["a", "b $x$"]
    assert axes[0].get_lines()[0].get_xdata().tolist() == [0.2, 0.9]
    assert axes[1].texts[0].get_text() == "no method has a result"
    assert intervals({})[0].texts[0].get_text() == "no method has a result"
