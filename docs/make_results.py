"""Write ``docs/results.md`` from results of ``scfusionttt benchmark`` stored in ``docs/results.json``.

python docs/make_results.py                        # from the stored rows
python docs/make_results.py DIR [DIR ...]          # add the rows of these folders, or replace stored ones
"""

import json
import sys
from pathlib import Path

from scfusionttt.comparison.results import markdown
from scfusionttt.comparison.rows import read_rows

HERE = Path(__file__).parent
STORED = HERE / "results.json"
#: Fields that name a row; a new row replaces the stored one of the same name.
NAME = ("dataset", "labels", "batches", "protocol", "share", "method", "seed")
#: Fields of a row that only decide whether it must be recomputed.
LEFT_OUT = ("settings", "cells", "code")
PREFACE = (HERE / "_results_preface.md").read_text(encoding="utf-8").strip()


def main() -> None:
    """Store the rows of the folders given as arguments, if any, and write the page from the stored rows."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    rows = [row for folder in sys.argv[1:] for row in read_rows(Path(folder) / "rows")]
    if rows:
        new = [{name: value for name, value in row.items() if name not in LEFT_OUT} for row in rows]
        stored = list({tuple(map(row.get, NAME)): row for row in [*stored, *new]}.values())
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(f"{PREFACE}\n\n{markdown(stored)}", encoding="utf-8")


if __name__ == "__main__":
    main()
