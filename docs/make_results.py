"""Write ``docs/results.md`` from the results of ``scfusionttt benchmark``, which are kept in ``docs/results.json``.

python docs/make_results.py                        # from what is kept
python docs/make_results.py DIR [DIR ...]          # first keep the rows of these folders
"""

import json
import sys
from pathlib import Path

from scfusionttt.comparison.results import markdown
from scfusionttt.comparison.rows import read_rows

HERE = Path(__file__).parent
KEPT = HERE / "results.json"
#: Of a row, what only tells whether it must be computed again.
LEFT_OUT = ("settings", "cells")
PREFACE = (HERE / "_results_preface.md").read_text(encoding="utf-8").strip()


def main() -> None:
    """Keep the rows of the folders that are named, and write the page from those that are kept."""
    rows = [row for folder in sys.argv[1:] for row in read_rows(Path(folder) / "rows")]
    if rows:
        plain = [{name: value for name, value in row.items() if name not in LEFT_OUT} for row in rows]
        KEPT.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    told = json.loads(KEPT.read_text(encoding="utf-8"))
    (HERE / "results.md").write_text(f"{PREFACE}\n\n{markdown(told)}", encoding="utf-8")


if __name__ == "__main__":
    main()
