"""Results of a benchmark: mean, spread and interval over seeds, as JSON, CSV, Markdown and figures."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scfusionttt.comparison.pairs import paired, paired_tables
from scfusionttt.comparison.ranks import rank_tables
from scfusionttt.comparison.rows import DONE, SHOWN, TABLE_KEYS, Row, half_interval, of_labels, scores
from scfusionttt.io.atomic import replacing
from scfusionttt.plotting import figures
from scfusionttt.report.html import png
from scfusionttt.report.tables import Table, metric_table

#: What the metrics of cost are divided by in tables.
UNITS = {"seconds": 1.0, "peak_memory": 2.0**30}


def summarise(rows: list[Row]) -> pd.DataFrame:
    """Return one line per table, method and metric: mean, sd (ddof 1), low and high (95 %, Student), n seeds.

    Seconds and peak memory (bytes) are metrics, too. `sd`, `low` and `high` are NaN with a single seed. Only
    rows with status "done" are used.
    """
    table = scores(rows).groupby([*TABLE_KEYS, "method", "metric"], sort=False, dropna=False)["value"]
    summary = table.agg(mean="mean", sd="std", n="count").reset_index()
    half = half_interval(summary["sd"], summary["n"])
    return summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)


def tables(rows: list[Row], *, reference: str | None = None) -> list[Table]:
    """Return a table per protocol, data set and share, mean ± standard deviation over seeds, and tables of mean ranks.

    With the name of a method as `reference`, values are mean ± half the 95 % interval, and tables of the differences
    from the reference follow.
    """
    interval = reference is not None
    result = []
    for key, own in _by_table(rows):
        summary = summarise(own)
        lines = {method: _cells(summary[summary["method"] == method], interval) for method in _methods(own, summary)}
        spread = "95 % interval" if interval else "standard deviation"
        caption = f"{key['dataset']} ({key['labels']}{of_labels(key['share'])}), mean ± {spread} over seeds"
        frame = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")
        last = [name for name in (*UNITS, "seeds") if name in frame]  # some rows may have more metrics than the first
        frame = frame[[*frame.columns.drop(last), *last]]
        table = metric_table(frame, protocol=key["protocol"], caption=caption)
        notes = dict.fromkeys(f"{row['method']}: {row['note']}" for row in own if row["status"] != DONE)
        result.append(replace(table, notes="\n\n".join([table.notes, *notes, *_warn_of_mixed(own)]).strip()))
    return [*result, *(rank_tables(rows) if reference is None else paired_tables(rows, reference))]


def write(rows: list[Row], out: Path, *, reference: str | None = None) -> list[Path]:
    """Write ``results.json``, ``results.csv``, ``results.md`` and a figure per protocol; return their paths.

    With a `reference`, ``paired.csv`` has the differences from it.
    """
    summary = summarise(rows)
    plain = json.loads(summary.to_json(orient="records"))
    text = {
        "results.json": json.dumps({"rows": rows, "summary": plain}, indent=1),
        "results.csv": summary.to_csv(index=False),
        "results.md": markdown(rows, reference=reference),
    }
    if reference is not None:
        text["paired.csv"] = paired(rows, reference).to_csv(index=False)
    written = []
    for name, content in text.items():
        with replacing(out / name) as path:
            path.write_text(content, encoding="utf-8")
        written.append(out / name)
    for protocol in dict.fromkeys(summary["protocol"]):
        with replacing(out / f"{protocol}.png") as path:
            path.write_bytes(png(figure(summary, protocol)[0].figure))
        written.append(out / f"{protocol}.png")
    return written


def markdown(rows: list[Row], *, reference: str | None = None) -> str:
    """Return all tables as Markdown, grouped by protocol."""
    parts: list[str] = []
    for table in tables(rows, reference=reference):
        heading = f"## {table.protocol}"
        parts += [*([] if heading in parts else [heading]), table.markdown()]
    versions = sorted({f"{name} {version}" for row in rows for name, version in row.get("versions", {}).items()})
    return "\n\n".join([*parts, ", ".join(versions)]) + "\n"


def figure(summary: pd.DataFrame, protocol: str) -> Any:
    """Draw the two main metrics of a protocol, a panel per data set, labels and share; return the axes."""
    panels = {}
    own = summary[summary["protocol"] == protocol]
    several = len(own[["dataset", "labels"]].drop_duplicates()) > own["dataset"].nunique()
    for (dataset, labels, share), lines in own.groupby(["dataset", "labels", "share"], sort=False, dropna=False):
        data = f"{dataset} ({labels})" if several else dataset
        for metric in SHOWN[protocol]:
            name = f"{data}, {metric}{of_labels(share)}"
            panels[name] = lines[lines["metric"] == metric].set_index("method")[["mean", "low", "high"]]
    return figures.intervals(panels)


def _by_table(rows: list[Row]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    order = list(SHOWN)
    keys = dict.fromkeys(tuple(row[name] for name in TABLE_KEYS) for row in rows)
    for key in sorted(keys, key=lambda key: order.index(key[0])):
        yield dict(zip(TABLE_KEYS, key)), [row for row in rows if tuple(row[name] for name in TABLE_KEYS) == key]


def _warn_of_mixed(rows: list[Row]) -> list[str]:
    """Return a note each if the rows were computed with several versions of the code or of the cells."""
    n = {name: len({json.dumps(row[name]) for row in rows if name in row}) for name in ("code", "cells")}
    return [f"The rows were computed with {n[name]} versions of the {name}." for name in n if n[name] > 1]


def _methods(rows: list[Row], summary: pd.DataFrame) -> list[str]:
    """Return the methods by decreasing mean of the main metric; methods without a result come last."""
    main = SHOWN[rows[0]["protocol"]][0]
    means = summary[summary["metric"] == main].set_index("method")["mean"].dropna()
    return sorted(dict.fromkeys(row["method"] for row in rows), key=lambda method: -means.get(method, -np.inf))


def _cells(lines: pd.DataFrame, interval: bool) -> dict[str, str]:
    """Return the means and spreads of one method as text, by metric."""
    texts: dict[str, str] = {}
    for line in lines.to_dict(orient="records"):
        metric = str(line["metric"])
        unit, digits = UNITS.get(metric, 1.0), 1 if metric in UNITS else 3
        half = (line["high"] - line["mean"] if interval else line["sd"]) / unit
        spread = "" if np.isnan(half) else f" ± {half:.{digits}f}"
        texts[metric] = f"{line['mean'] / unit:.{digits}f}{spread}"
    return texts | ({"seeds": str(lines["n"].max())} if len(lines) else {})
