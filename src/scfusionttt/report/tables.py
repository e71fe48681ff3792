"""Tables of a report, formatted for HTML or Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scfusionttt.errors import SettingError
from scfusionttt.evaluation import METRICS, PROTOCOLS


@dataclass(frozen=True)
class Table:
    """A table of a report; the index of `rows` names its rows.

    Attributes
    ----------
    rows
        Values of any type; numeric columns are right-aligned.
    caption
        Caption above the table.
    protocol
        For scores, a key of :data:`scfusionttt.evaluation.PROTOCOLS`.
    notes
        Notes below the table.
    folded
        Whether the table is collapsed until the reader opens it.
    """

    rows: pd.DataFrame
    caption: str = ""
    protocol: str | None = None
    notes: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise SettingError(f"protocol {self.protocol!r} does not exist; choose one of: {', '.join(PROTOCOLS)}")

    @property
    def protocol_meaning(self) -> str:
        """Description of the protocol; empty without one."""
        return PROTOCOLS[self.protocol] if self.protocol else ""

    @property
    def header(self) -> list[str]:
        """Column heads, starting with that of the row names."""
        index = self.rows.index.name
        return ["" if index is None else str(index), *map(str, self.rows.columns)]

    @property
    def body(self) -> list[list[str]]:
        """Rows as text, each starting with its name."""
        columns = [[format_value(value) for value in column] for _, column in self.rows.items()]
        return [list(row) for row in zip(map(str, self.rows.index), *columns)]

    @property
    def numeric(self) -> list[bool]:
        """Which columns are numeric, starting with the row names, which are not."""
        types = pd.api.types
        return [False, *(types.is_numeric_dtype(one) and not types.is_bool_dtype(one) for one in self.rows.dtypes)]

    def markdown(self) -> str:
        """Return the table as Markdown, with caption, protocol and notes."""
        cells = [[_markdown_cell(text) for text in row] for row in [self.header, *self.body]]
        rule = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]
        protocol = f"{self.protocol}: {self.protocol_meaning}" if self.protocol else ""
        heading = ". ".join(part for part in (self.caption, protocol) if part)
        return "\n\n".join(part for part in (heading, "\n".join(lines), self.notes) if part)


def metric_table(
    scores: pd.DataFrame | Mapping[str, Mapping[str, float]], *, protocol: str, caption: str = ""
) -> Table:
    """Return a table of scores with the protocol, the direction of better values, and an explanation of each metric.

    Parameters
    ----------
    scores
        Scores by row and metric (column), as a DataFrame or nested mapping.
    protocol
        A key of :data:`scfusionttt.evaluation.PROTOCOLS`.

    Raises
    ------
    SettingError
        The protocol does not exist.
    """
    rows = scores if isinstance(scores, pd.DataFrame) else pd.DataFrame.from_dict(dict(scores), orient="index")
    shown = [METRICS[name] for name in rows.columns if name in METRICS]
    heads = {name: METRICS[name].heading for name in rows.columns if name in METRICS}
    notes = "; ".join(f"{metric.label}: {metric.description}" for metric in shown)
    return Table(rows.round(3).rename(columns=heads), caption, protocol, notes)


def key_values(items: Mapping[str, Any], *, caption: str = "", folded: bool = False) -> Table:
    """Return a table of names and values; nested mappings are flattened to dotted names."""
    flat = dict(_flatten(items))
    return Table(pd.DataFrame({"": list(flat.values())}, index=list(flat), dtype=object), caption, folded=folded)


def format_value(value: Any) -> str:
    """Format a value for readers: 0.913, 1,069, yes; – if missing."""
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return _format_float(float(value))
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(format_value, value)) or "–"
    return str(value)


def _format_float(value: float) -> str:
    if not np.isfinite(value):
        return "–" if np.isnan(value) else f"{value}"
    if abs(value) < 1e-12:  # rounding error of 0
        value = 0.0
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _flatten(items: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in items.items():
        pairs += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
