"""Rows one by one: each is a file, written whole or not at all, and what is there is not computed again."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import Method
from scfusionttt.comparison.tasks import Task
from scfusionttt.io.atomic import replacing

DONE = "done"
_PACKAGES = ("scfusionttt", "torch", "numpy", "scanpy", "scikit-learn")
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One row to be: a method with a seed on a data set by a protocol."""

    cells: Cells
    method: Method
    task: Task
    seed: int

    @property
    def file(self) -> Path:
        """Where the row is kept, below the folder of all rows."""
        share = "" if self.task.share is None else f"-{self.task.share:g}"
        parts = (f"{self.cells.name}.{self.cells.key}", self.task.protocol + share)
        name = f"{self.method.name}-seed{self.seed}.json"
        return Path(*(re.sub(r"[^\w.=+-]", "_", part) for part in (*parts, name)))

    @property
    def identity(self) -> Row:
        """What the row is about; a row of another is not taken for it."""
        return {
            "dataset": self.cells.name, "labels": self.cells.key, **asdict(self.task), "method": self.method.name,
            "seed": self.seed, "settings": self.method.settings, "cells": self.cells.fingerprint,
        }  # fmt: skip

    def run(self) -> Row:
        """Compute the row; whatever goes wrong is told in it, and the others go on."""
        packages = [*_PACKAGES, *([self.method.library] if self.method.library else [])]
        row: Row = {**self.identity, "metrics": {}, "note": ""}
        if not self.method.installed:
            return row | {"status": "not installed", "note": "not installed: pip install 'scfusionttt[bench]'"}
        if self.method.needs_protein and not self.cells.has_protein:
            return row | {"status": "not applicable", "note": "the data have no proteins"}
        row["versions"] = {name: version(name) for name in packages}
        try:
            scores, cost = self.task.score(self.method, self.cells, self.seed)
        except Exception as error:  # of any library, for any reason
            told = next(iter(str(error).splitlines()), "")
            return row | {"status": "failed", "note": f"{type(error).__name__}: {told}".rstrip(": ")}
        return row | scores | asdict(cost) | {"status": DONE}


def jobs(
    datasets: Sequence[Cells], methods: Sequence[Method], tasks: Sequence[Task], seeds: Sequence[int]
) -> list[Job]:
    """Return what is to be done, every method once before any takes its second seed."""
    return [
        Job(cells, method, task, seed)
        for cells in datasets
        for seed in seeds
        for method in methods
        for task in tasks
        if task.suits(method)
    ]


def run_all(todo: Sequence[Job], folder: Path, *, show: Callable[[str], None]) -> None:
    """Run the jobs whose rows are not in the folder yet; rows that failed are tried again."""
    for number, job in enumerate(todo, 1):
        path = folder / job.file
        row = read_row(path)
        kept = row is not None and row.get("status") == DONE and _same(row, job.identity)
        if not kept:
            row = job.run()
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(row, indent=1), encoding="utf-8")
        assert row is not None
        show(f"[{number}/{len(todo)}] {_line(row)}{' (kept)' if kept else ''}")


def read_row(path: Path) -> Row | None:
    """Return a row, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(folder: Path) -> list[Row]:
    """Return every row below a folder."""
    return [row for row in _readable(folder) if "method" in row]


def _readable(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.rglob("*.json")):
        if (row := read_row(path)) is not None:
            yield row


def _same(row: Row, identity: Row) -> bool:
    return {name: row.get(name) for name in identity} == json.loads(json.dumps(identity))


def _line(row: Row) -> str:
    share = "" if row["share"] is None else f" {row['share']:g}"
    about = f"{row['dataset']} {row['protocol']}{share} {row['method']} seed {row['seed']}"
    if row["status"] != DONE:
        return f"{about}: {row['note']}"
    second = "macro_f1" if row["protocol"] == "held-out" else "NMI"
    scores = ", ".join(f"{name} {row['metrics'][name]:.3f}" for name in ("ARI", second))
    return f"{about}: {scores}, {row['seconds']:.1f} s"
