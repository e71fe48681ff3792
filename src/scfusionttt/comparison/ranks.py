"""Methods ranked over several data sets: means of their places, by data set and by metric."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from scfusionttt.comparison.rows import Row, of_labels, scores
from scfusionttt.evaluation import METRICS
from scfusionttt.report.tables import Table

#: Metrics in which methods are ranked. Correlations with the counts that a representation was learned from are left
#: out: they reward noise that it kept.
RANKED = {
    "unsupervised": ("ARI", "NMI", "kNN", "probe_f1"),
    "count-splitting": ("split_gene_r", "split_protein_r", "split_gene_ridge_r", "split_protein_ridge_r"),
    "held-out": ("ARI", "macro_f1"),
}
_NOTE = (
    "1 is the best of {n} methods; a method's place is that of its mean over seeds, averaged over {metrics} and, in "
    "the last columns, over the data sets. Methods without all of these metrics on every data set are left out."
)


def rank_tables(rows: list[Row]) -> Iterator[Table]:
    """Yield a table of mean ranks per protocol and share of the labels, if there are several data sets and methods."""
    table = scores(rows)
    is_ranked = [metric in RANKED.get(name, ()) for name, metric in zip(table["protocol"], table["metric"])]
    table = table[np.array(is_ranked, dtype=bool)]  # no columns would be chosen from a table without rows otherwise
    table["dataset"] += " (" + table["labels"] + ")"
    for (protocol, share), own in table.groupby(["protocol", "share"], sort=False, dropna=False):
        means = own.groupby(["dataset", "metric", "method"], sort=False)["value"].mean().unstack()
        ranks = means.dropna(axis="columns").rank(axis="columns", ascending=False)
        by_set = ranks.groupby("dataset", sort=False).mean().T.rename_axis(index="method", columns=None)
        if by_set.shape[1] < 2 or len(by_set) < 2:
            continue
        by_metric = ranks.groupby("metric", sort=False).mean().T.rename(columns=lambda name: METRICS[name].label)
        places = pd.concat([by_set.mean(axis=1).rename("mean rank"), by_set, by_metric], axis=1)
        lines = places.sort_values("mean rank").map("{:.2f}".format).rename_axis("method")
        metrics = ", ".join(METRICS[name].label for name in means.index.unique("metric"))
        yield Table(lines, f"mean ranks{of_labels(share)}", str(protocol), _NOTE.format(n=len(lines), metrics=metrics))
