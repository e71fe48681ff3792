"""Differences between the variants of an ablation, paired by seed: mean, 95 % interval, effect size."""

import pandas as pd

from scfusionttt.comparison.rows import TABLE_KEYS, Row, half_interval, of_labels, scores
from scfusionttt.evaluation import METRICS
from scfusionttt.report.tables import Table

#: Metrics whose differences are shown; the CSV has all.
_SHOWN = (
    "hidden_gene_r2", "hidden_protein_r2", "protein_from_rna_r", "ARI", "NMI", "few_labels_f1", "macro_f1",
    "split_gene_r", "split_protein_r", "split_gene_ridge_r", "split_protein_ridge_r",
)  # fmt: skip
_NOTE = (
    "Mean difference of runs with the same seed ± half of its 95 % interval (Student), and in brackets the effect "
    "size: the mean difference in units of its standard deviation. Nothing corrects for the number of comparisons."
)


def paired(rows: list[Row], reference: str) -> pd.DataFrame:
    """Return the differences of each method from the reference, one line per table, method and metric.

    Seeds that only one of the two has are left out: what varies with the seed (cells held out, weights, clustering) is
    the same in both and cancels.

    Returns
    -------
    difference, low and high (95 %, Student), effect (difference / standard deviation of the differences), n seeds. With
    a single seed only the difference is known; the others are NaN.
    """
    table, by = scores(rows), [*TABLE_KEYS, "metric"]
    base = table[table["method"] == reference].drop(columns="method")
    both = table[table["method"] != reference].merge(base, on=[*by, "seed"], suffixes=("", "_reference"))
    both["difference"] = both["value"] - both["value_reference"]
    lines = both.groupby([*by, "method"], sort=False, dropna=False)["difference"]
    summary = lines.agg(difference="mean", sd="std", n="count").reset_index()
    half = half_interval(summary["sd"], summary["n"])
    effect = summary["difference"] / summary["sd"].where(summary["sd"] > 0)
    return summary.assign(
        low=summary["difference"] - half, high=summary["difference"] + half, effect=effect
    ).drop(columns="sd")  # fmt: skip


def paired_tables(rows: list[Row], reference: str) -> list[Table]:
    """Return a table of the differences for each protocol, data set and share."""
    summary = paired(rows, reference)
    result = []
    for key, lines in summary.groupby(TABLE_KEYS, sort=False, dropna=False):
        protocol, dataset, labels, share = key
        shown = [name for name in _SHOWN if name in set(lines["metric"])]
        cells = lines.assign(text=lines.apply(_text, axis=1)).pivot(index="method", columns="metric", values="text")
        frame = cells.reindex(index=lines["method"].unique(), columns=shown)
        frame.columns = [METRICS[name].heading for name in shown]
        frame["seeds"] = lines.groupby("method")["n"].max().astype(str)
        caption = f"{dataset} ({labels}{of_labels(share)}), difference from {reference}"
        result.append(Table(frame, caption, str(protocol), _NOTE))
    return result


def _text(line: pd.Series) -> str:
    """Return a difference with half of its interval and the effect size, as far as these are known."""
    half = "" if line["n"] < 2 else f" ± {line['high'] - line['difference']:.3f}"
    effect = "" if pd.isna(line["effect"]) else f" ({line['effect']:+.1f})"
    return f"{line['difference']:+.3f}{half}{effect}"
