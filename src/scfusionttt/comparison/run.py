"""A comparison from its jobs to its tables.

From Python::

    cells = Cells("pbmc", as_citeseq(mdata), "cell_type")
    methods = choose(["fusionttt", "concat"], models=Path("out/models"))
    tables, _ = run(jobs([cells], methods, tasks(["held-out"], [0.05]), seeds=range(5)), Path("out"))

with queries that the methods do not learn from::

    queries = make_queries([("reference", train), ("query", cells)], preset("default"))
    tables, _ = run(imputation.jobs(queries, imputation.DEFAULT, seeds=range(5)), Path("out"))
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from scfusionttt.comparison import results, rows
from scfusionttt.errors import OutputError
from scfusionttt.report.tables import Table


def run(
    jobs: Sequence[rows.Job], out: Path, *, reference: str | None = None, show: Callable[[str], None] = print
) -> tuple[list[Table], list[Path]]:
    """Compute the rows that the folder `out` lacks, and write the results of all that can be compared with them.

    With the name of a method as `reference`, the differences of the others from it are shown, too; `show` gets a line
    per job.

    Returns
    -------
    The tables, and the files that were written.

    Raises
    ------
    OutputError
        The folder cannot be created.
    """
    folder = out / "rows"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another folder") from error
    rows.run_all(jobs, folder, show=show)
    scored = rows.comparable(rows.read_rows(folder), jobs)
    written = results.write(scored, out, reference=reference)
    return results.tables(scored, reference=reference), written
