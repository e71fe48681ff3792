"""Tables and figures of rows."""

import numpy as np
import pytest

from comparison_runs import row
from scfusionttt.comparison import results
from scfusionttt.comparison.pairs import paired, paired_tables
from scfusionttt.comparison.ranks import RANKED, rank_tables
from scfusionttt.evaluation import METRICS


def test_intervals_are_students_t_over_seeds():
    rows = [row(seed=seed, metrics={"ARI": value}) for seed, value in enumerate((0.1, 0.2, 0.6))]
    line = results.summarise(rows).set_index("metric").loc["ARI"]
    assert (line["mean"], line["n"]) == (pytest.approx(0.3), 3)
    assert line["high"] - line["mean"] == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert results.tables(rows[:1])[0].rows.loc["m", "ARI ↑"] == "0.100"


def test_tables_and_panels_of_other_labels_or_shares_are_told_apart():
    """A figure had the methods of two columns of labels in one panel; captions had no share, or rounded it to 0 %."""
    rows = [
        row(protocol="held-out", labels=labels, share=share, method=method, metrics={"ARI": 0.5, "macro_f1": 0.5})
        for labels in ("type", "state") for share in (0.001, 0.0015) for method in ("base", "other")
    ]  # fmt: skip
    axes = results.figure(results.summarise(rows), "held-out")
    assert [len(ax.get_yticklabels()) for ax in axes] == [2] * 8
    assert axes[1].get_title(loc="left") == "d (type), macro_f1, 0.1% of the labels"
    captions = [table.caption for table in results.tables(rows, reference="base")]
    assert len(set(captions)) == 8
    assert captions[-1] == "d (state, 0.15% of the labels), difference from base"


def test_a_seed_that_failed_does_not_move_its_method_to_the_end():
    rows = [
        row(method="worse", metrics={"ARI": 0.1}),
        row(method="better", metrics={"ARI": 0.5}),
        row(method="better", seed=1, metrics={}, status="failed", note="out of memory"),
    ]
    assert list(results.tables(rows)[0].rows.index) == ["better", "worse"]


def test_all_versions_of_a_package_are_listed():
    """Only that of the last row was, also if the folder had rows computed with an earlier one."""
    rows = [row(seed=seed, metrics={"ARI": 0.5}, versions={"torch": f"2.{seed}"}) for seed in (1, 2)]
    assert results.markdown(rows).endswith("torch 2.1, torch 2.2\n")


@pytest.mark.parametrize("name", ["coverage", "own_batch"])
def test_scores_whose_best_value_is_in_the_middle_have_no_arrow(name):
    """A coverage of 1 looked better than the 0.9 that is right, and removing too much of the batches better than 1."""
    assert METRICS[name].heading == METRICS[name].label


def test_methods_are_ranked_over_data_sets():
    values = {"first": (0.9, 0.8), "second": (0.7, 0.9), "third": (0.5, 0.1), "elsewhere": (0.99, None)}
    rows = [
        row(dataset=name, labels="type", protocol="held-out", share=0.05, method=method, seed=seed,
            metrics={"ARI": value + seed / 100, "macro_f1": 0.5 if method == "third" else value})
        for method, pair in values.items() for name, value in zip("ab", pair) if value is not None for seed in (0, 1)
    ]  # fmt: skip
    (table,) = rank_tables(rows)
    assert table.caption == "mean ranks, 5% of the labels"
    assert list(table.rows.columns) == ["mean rank", "a (type)", "b (type)", "ARI", "macro F1"]
    assert table.rows.T.to_dict("list") == {
        "first": ["1.50", "1.00", "2.00", "1.50", "1.50"], "second": ["1.50", "2.00", "1.00", "1.50", "1.50"],
        "third": ["3.00"] * 5,
    }  # fmt: skip
    assert not list(rank_tables([one for one in rows if one["dataset"] == "a"]))
    assert not list(rank_tables([one | {"status": "failed"} for one in rows]))


def test_differences_are_paired_by_seed():
    """The spread over seeds, common to both, had hidden a difference that every seed shows."""
    values = {"base": (0.1, 0.9, 0.5), "other": (0.12, 0.93, 0.51)}
    rows = [
        row(protocol="ablation", share=0.05, method=method, seed=seed, metrics={"hidden_gene_r2": value})
        for method, of_seeds in values.items() for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    lone = rows[-1] | {"seed": 7, "metrics": {"hidden_gene_r2": 0.0}}
    line = paired([*rows, lone], "base").set_index("metric").loc["hidden_gene_r2"]
    assert (line["n"], line["difference"]) == (3, pytest.approx(0.02))
    assert line["effect"] == pytest.approx(2)  # differences 0.02, 0.03, 0.01
    assert line["high"] - line["low"] == pytest.approx(2 * 4.302653 * 0.01 / np.sqrt(3))
    table = paired_tables(rows, "base")[0]
    assert table.rows.loc["other", "hidden genes R² ↑"] == "+0.020 ± 0.025 (+2.0)"


def test_differences_that_are_not_defined_are_left_out():
    """A method without one of the metrics ended the tables of differences; equal scores had an effect size of nan."""
    same = [row(method=method, seed=seed, metrics={"ARI": 0.5}) for method in ("base", "other") for seed in (0, 1)]
    more = [row(method=method, metrics={"ARI": 0.5, "NMI": 0.75}) for method in ("base", "third")]
    (table,) = paired_tables([*same[1:], *more], "base")
    assert table.header == ["method", "ARI ↑", "NMI ↑", "seeds"]
    assert table.body == [["other", "+0.000 ± 0.000", "–", "2"], ["third", "+0.000", "+0.000", "1"]]


def test_differences_under_count_splitting_are_shown():
    """Their table had no metric, only the number of seeds."""
    metrics = dict.fromkeys(RANKED["count-splitting"], 0.5)
    rows = [row(protocol="count-splitting", method=method, metrics=metrics) for method in ("base", "other")]
    (table,) = paired_tables(rows, "base")
    assert table.header == ["method", *(METRICS[name].heading for name in metrics), "seeds"]
    assert table.body == [["other", "+0.000", "+0.000", "+0.000", "+0.000", "1"]]
