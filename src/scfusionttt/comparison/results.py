"""Rows to results: mean, spread and interval over seeds, as JSON, CSV, Markdown and figures, one table per protocol."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scfusionttt.comparison.rows import DONE, Row
from scfusionttt.comparison.tasks import PROTOCOLS
from scfusionttt.io.atomic import replacing
from scfusionttt.plotting import figures
from scfusionttt.report.html import png
from scfusionttt.report.tables import Table, metric_table

#: What makes a table: figures of different values of these are never in one.
TABLE = ["protocol", "dataset", "labels", "share"]
COSTS = {"seconds": 1.0, "peak_memory": 2.0**30}
_SHOWN = {"unsupervised": ("ARI", "NMI"), "held-out": ("ARI", "macro_f1"), "paper": ("ARI", "NMI")}


def summarise(rows: list[Row]) -> pd.DataFrame:
    """Return one line per table, method and metric: mean, sd (ddof 1), low and high (95 %, Student), n seeds.

    Seconds and peak memory (bytes) are among the metrics. `sd`, `low` and `high` are NaN with a single seed. Rows that
    are not done are left out.
    """
    long = [
        {**{name: row[name] for name in TABLE}, "method": row["method"], "metric": metric, "value": value}
        for row in rows
        if row["status"] == DONE
        for metric, value in {**row["metrics"], **{name: row[name] for name in COSTS}}.items()
        if value is not None
    ]
    by = [*TABLE, "method", "metric"]
    table = pd.DataFrame(long, columns=[*by, "value"]).groupby(by, sort=False, dropna=False)["value"]
    found = table.agg(mean="mean", sd="std", n="count").reset_index()
    half = stats.t.ppf(0.975, found["n"].clip(lower=2) - 1) * found["sd"] / np.sqrt(found["n"])
    return found.assign(low=found["mean"] - half, high=found["mean"] + half)


def tables(rows: list[Row], *, interval: bool = False) -> list[Table]:
    """Return a table per protocol, data set and share: mean ± sd over seeds, or with `interval` ± half of the 95 %."""
    summary = summarise(rows)
    found = []
    for about, own in _by_table(rows):
        here = summary[(summary[TABLE].astype(object).fillna("") == pd.Series(about).fillna("")).all(axis=1)]
        lines = {method: _cells(here[here["method"] == method], interval) for method in _methods(own)}
        share = "" if about["share"] is None else f", {about['share']:.0%} of the labels"
        spread = "95 % interval" if interval else "standard deviation"
        caption = f"{about['dataset']} ({about['labels']}{share}), mean ± {spread} over seeds"
        frame = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")
        table = metric_table(frame, protocol=about["protocol"], caption=caption)
        missing = dict.fromkeys(f"{row['method']}: {row['note']}" for row in own if row["status"] != DONE)
        found.append(replace(table, notes="\n\n".join([table.notes, *missing]).strip()))
    return found


def write(rows: list[Row], out: Path, *, interval: bool = False) -> list[Path]:
    """Write ``results.json``, ``results.csv``, ``results.md`` and a figure per protocol; returns what was written."""
    summary = summarise(rows)
    plain = json.loads(summary.to_json(orient="records"))
    text = {
        "results.json": json.dumps({"rows": rows, "summary": plain}, indent=1),
        "results.csv": summary.to_csv(index=False),
        "results.md": markdown(rows, interval=interval),
    }
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


def markdown(rows: list[Row], *, interval: bool = False) -> str:
    """Return every table, those of a protocol under its heading."""
    parts: list[str] = []
    for table in tables(rows, interval=interval):
        heading = f"## {table.protocol}"
        parts += [*([] if heading in parts else [heading]), table.markdown()]
    packages = {name: told for row in rows for name, told in row.get("versions", {}).items()}
    return "\n\n".join([*parts, ", ".join(f"{name} {told}" for name, told in sorted(packages.items()))]) + "\n"


def figure(summary: pd.DataFrame, protocol: str) -> Any:
    """Draw the two main metrics of a protocol, a panel per data set and share; returns the axes."""
    panels = {}
    own = summary[summary["protocol"] == protocol]
    for (dataset, share), lines in own.groupby(["dataset", "share"], sort=False, dropna=False):
        for metric in _SHOWN[protocol]:
            name = f"{dataset}, {metric}" + ("" if share != share else f", {share:.0%} of labels")
            panels[name] = lines[lines["metric"] == metric].set_index("method")[["mean", "low", "high"]]
    return figures.intervals(panels)


def _by_table(rows: list[Row]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    order = list(PROTOCOLS)
    keys = dict.fromkeys(tuple(row[name] for name in TABLE) for row in rows)
    for key in sorted(keys, key=lambda key: order.index(key[0])):
        yield dict(zip(TABLE, key)), [row for row in rows if tuple(row[name] for name in TABLE) == key]


def _methods(rows: list[Row]) -> list[str]:
    """Return the methods, best ARI first, those without a result last."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["method"], []).append(row["metrics"].get("ARI", -np.inf))
    return sorted(scores, key=lambda method: -max(float(np.mean(scores[method])), -2.0))


def _cells(lines: pd.DataFrame, interval: bool) -> dict[str, str]:
    """Return one method's means and spreads by metric, as text."""
    told: dict[str, str] = {}
    for line in lines.to_dict(orient="records"):
        metric = str(line["metric"])
        unit, digits = COSTS.get(metric, 1.0), 1 if metric in COSTS else 3
        half = (line["high"] - line["mean"] if interval else line["sd"]) / unit
        spread = "" if np.isnan(half) else f" ± {half:.{digits}f}"
        told[metric] = f"{line['mean'] / unit:.{digits}f}{spread}"
    return told | ({"seeds": str(lines["n"].max())} if len(lines) else {})
