"""The rows of a benchmark: each is one file, written atomically and not computed again unless its inputs change."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scfusionttt.comparison.cost import Cost
from scfusionttt.comparison.fingerprints import code_version, short_hash
from scfusionttt.comparison.systems import System
from scfusionttt.errors import NotInstalledError, missing_extra, name_some
from scfusionttt.io.atomic import replacing

log = logging.getLogger("scfusionttt")

DONE = "done"
#: Rows that differ in one of these are never shown in one table.
TABLE_KEYS = ["protocol", "dataset", "labels", "share"]
#: Metrics of cost, which a row has beside its scores.
COSTS = ("seconds", "peak_memory")
#: The two main metrics of each protocol; the first of its table orders the methods.
SHOWN = {
    "unsupervised": ("ARI", "NMI"),
    "held-out": ("ARI", "macro_f1"),
    "zero-shot": ("accuracy", "macro_f1"),
    "imputation": ("impute_protein_r", "impute_cell_r"),
    "count-splitting": ("split_gene_r", "split_protein_r"),
    "paper": ("ARI", "NMI"),
    "ablation": ("ARI", "hidden_gene_r2"),
}
_PACKAGES = ("scfusionttt", "torch", "numpy", "scanpy", "scikit-learn")
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One row to compute: a method with a seed on a data set under a protocol.

    Attributes
    ----------
    inputs
        What determines the row besides the code: dataset, labels, protocol, share, method, seed, settings, cells.
    score
        Returns the scores, plain values for JSON, and the cost of the run without the scoring.
    library
        Required distribution from the extra ``bench``, or the system that runs elsewhere; empty if none.
    unsuited
        Why the method cannot be scored; empty if it can.
    """

    inputs: Row
    score: Callable[[], tuple[Row, Cost]]
    library: str | System = ""
    unsuited: str = ""

    @property
    def file(self) -> Path:
        """Path of the row within the folder of all rows."""
        row = self.inputs
        task = row["protocol"] if row["share"] is None else f"{row['protocol']}-{row['share']:g}"
        data = f"{row['dataset']}.{row['labels']}"
        return Path(_file_name(data), _file_name(task), f"{_file_name(row['method'])}-seed{row['seed']}.json")

    @property
    def identity(self) -> Row:
        """What determines the row: a stored row is reused only if all of this is the same."""
        return {**self.inputs, "code": code_version()}

    def run(self) -> Row:
        """Compute the row; an error is recorded in it, so that the other rows are computed all the same."""
        row: Row = {**self.identity, "metrics": {}, "note": ""}
        if self.unsuited:
            return row | {"status": "not applicable", "note": self.unsuited}
        try:
            row["versions"] = {name: version(name) for name in _PACKAGES} | _versions(self.library)
        except PackageNotFoundError:
            return row | {"status": "not installed", "note": str(missing_extra("bench", "not installed"))}
        except NotInstalledError as error:
            return row | {"status": "not installed", "note": str(error)}
        try:
            scores, cost = self.score()
        except Exception as error:  # of any library, for any reason
            first_line = next(iter(str(error).splitlines()), "")
            return row | {"status": "failed", "note": f"{type(error).__name__}: {first_line}".rstrip(": ")}
        if isinstance(self.library, System):
            cost = replace(cost, peak_memory=None)  # that of this process says nothing about another
        return row | scores | asdict(cost) | {"status": DONE}


def _file_name(name: str) -> str:
    """Return a name that any file can have, with a hash if it differs from `name`, as others may change to the same."""
    plain = re.sub(r"[^\w.=+-]", "_", name)
    return plain if plain == name else f"{plain}-{short_hash(name.encode('utf-8', 'surrogatepass'))[:8]}"


def _versions(library: str | System) -> dict[str, str]:
    if isinstance(library, System):
        return library.versions()
    return {library: version(library)} if library else {}


def run_all(jobs: Sequence[Job], folder: Path, *, show: Callable[[str], None]) -> None:
    """Run the jobs whose rows are not in the folder yet or have failed; `show` gets one line per job."""
    for number, job in enumerate(jobs, 1):
        path = folder / job.file
        row = read_row(path)
        reused = row is not None and row.get("status") == DONE and _same(row, job.identity)
        if not reused:
            row = job.run()
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(row, indent=1), encoding="utf-8")
        assert row is not None
        show(f"[{number}/{len(jobs)}] {_line(row)}{' (already computed)' if reused else ''}")


def read_row(path: Path) -> Row | None:
    """Return a row, or None if there is no readable file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(folder: Path) -> list[Row]:
    """Return every row in a folder and its subfolders."""
    rows = [read_row(path) for path in sorted(folder.rglob("*.json"))]
    return [row for row in rows if row is not None and "method" in row]


def comparable(rows: Sequence[Row], jobs: Sequence[Job]) -> list[Row]:
    """Return the rows that can be in one table with those of the jobs, and log which are left out.

    Rows of a job's data set have its cells and batches, and those of its method and protocol its settings, too.
    """
    known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for job in jobs:
        known |= _origin(json.loads(json.dumps(job.identity)))
    agree = [all(known.get(key, value) == value for key, value in _origin(row).items()) for row in rows]
    others = dict.fromkeys(f"{row['method']} on {row['dataset']}" for row, same in zip(rows, agree) if not same)
    if others:
        log.info("rows of other cells, batches or settings are left out of the tables: %s", name_some(list(others)))
    return [row for row, same in zip(rows, agree) if same]


def scores(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line per row that is done and metric: the keys of the table, method, seed, metric, value."""
    names = [*TABLE_KEYS, "method", "seed"]
    lines = [
        [*(row[name] for name in names), metric, value]
        for row in rows
        if row["status"] == DONE
        for metric, value in {**row["metrics"], **{name: row[name] for name in COSTS}}.items()
        if value is not None
    ]
    return pd.DataFrame(lines, columns=[*names, "metric", "value"])


def half_interval(sd: pd.Series, n: pd.Series) -> pd.Series:
    """Return half of the 95 % interval (Student) of means of `n` values with standard deviation `sd`; NaN for one."""
    return stats.t.ppf(0.975, n.clip(lower=2) - 1) * sd / np.sqrt(n)


def of_labels(share: Any) -> str:
    """Return what a caption says of the share of labels that a row was learned from, if it has one."""
    return "" if share is None or share != share else f", {100 * share:g}% of the labels"


def _origin(row: Row) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what rows of one table agree in: by data set, cells and batches; by method and protocol, settings, too."""
    data = row["dataset"], row["labels"]
    method = *data, row["protocol"], row["method"]
    return {data: (row.get("cells"), row.get("batches")), method: (row.get("settings"),)}


def _same(row: Row, identity: Row) -> bool:
    return {name: row.get(name) for name in identity} == json.loads(json.dumps(identity))


def _line(row: Row) -> str:
    share = "" if row["share"] is None else f" {row['share']:g}"
    job = f"{row['dataset']} {row['protocol']}{share} {row['method']} seed {row['seed']}"
    if row["status"] != DONE:
        return f"{job}: {row['note']}"
    shown = [name for name in SHOWN[row["protocol"]] if name in row["metrics"]]
    scores = ", ".join(f"{name} {row['metrics'][name]:.3f}" for name in shown)
    return f"{job}: {scores}, {row['seconds']:.1f} s"
