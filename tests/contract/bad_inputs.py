"""The catalogue of broken and odd inputs, each with what must become of it; `docs/reliability.md` is made from it.

``python tests/contract/bad_inputs.py`` writes that page anew.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bad_counts
import bad_files
import bad_labels
import bad_names
from making import Make

#: What other tools make of it; `peers.py` writes it where they are installed.
PEERS = Path(__file__).with_name("peers.tsv")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
DONE = ""


@dataclass(frozen=True, eq=False)
class BadInput:
    """One input and its verdict.

    Parameters
    ----------
    group, what
        Where it belongs, and what it is.
    make
        Makes it from good cells.
    refused
        Whether it must be refused, by one line and exit code 2; else it must be used.
    told
        Words that the line, or the warning, must have; none where there is nothing to tell.
    same
        The result must be that of the good cells, bit for bit, whatever their container, order or names.
    verbs
        Words with which single verbs refuse it all the same (`DONE`: they do not refuse it).
    labels
        obs column with the cell types.
    options
        Of the command line.
    """

    group: str
    what: str
    make: Make
    refused: bool
    told: str = ""
    same: bool = False
    verbs: Mapping[str, str] = field(default_factory=dict)
    labels: str = "cell_type"
    options: str = ""

    def refusal(self, verb: str) -> str | None:
        """Return the words with which a verb must refuse it, None where it must use it."""
        told = self.verbs.get(verb, self.told if self.refused and self._is_judged_by(verb) else DONE)
        return told or None

    def _is_judged_by(self, verb: str) -> bool:
        if self.group == "Labels":
            return verb in ("finetune", "transfer", "evaluate")
        return verb != "evaluate" or self.group == "Files"  # scores slots, whatever the counts


CATALOGUE = [
    BadInput(group, what, **verdict)
    for group, cases in {
        "Files": bad_files.CASES,
        "Counts": bad_counts.CASES,
        "Cells, genes and proteins": bad_names.CASES,
        "Labels": bad_labels.CASES,
    }.items()
    for what, verdict in cases.items()
]


def page() -> str:
    """Return the page that tells users what happens to their input."""
    lines = [
        "# What happens to bad input",
        "",
        f"Each of these {len(CATALOGUE)} inputs is made and given to the command line by `tests/contract`, from which",
        "this page is written (`python tests/contract/bad_inputs.py`). *Refused*: exit code 2 and one line on stderr,",
        "nothing written. *Used*: exit code 0; the words in quotes are told. *Same result*: bit for bit that of the",
        "well-formed input.",
    ]
    for group in dict.fromkeys(case.group for case in CATALOGUE):
        lines += ["", f"## {group}", "", "| Input | What happens |", "|---|---|"]
        lines += [f"| {case.what} | {_verdict(case)} |" for case in CATALOGUE if case.group == group]
    return "\n".join(lines + _peers()) + "\n"


def _peers() -> list[str]:
    """Return the section on other tools: how often each verdict fell, and each input's."""
    if not PEERS.exists():
        return []
    with PEERS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    tools = [column for column in rows[0] if column not in ("group", "input") and not column.endswith("words")]
    refused = {(case.group, case.what) for case in CATALOGUE if case.refused}
    bad = [row for row in rows if (row["group"], row["input"]) in refused]
    counts = {tool: Counter(row[tool] for row in bad) for tool in tools}
    verdicts = list(dict.fromkeys(verdict for count in counts.values() for verdict in sorted(count)))
    lines = [
        "", "## The same input in other tools", "",
        f"What becomes of {len(bad)} of the inputs above that are refused here (`python tests/contract/peers.py`), one",
        "epoch of training or the tutorial's neighbours. *Clear error*: the message comes from the tool or its reader,",
        "which does not make it a good one. *Crash deep inside*: from a library below, or the process ends. *Warning*:",
        "numbers, and a warning that good cells do not get. *Silent wrong result*: numbers, and no word.", "",
        f"| Tool | {' | '.join(verdicts)} |", f"|---|{'---|' * len(verdicts)}",
        *(f"| {tool} | {' | '.join(str(counts[tool][verdict]) for verdict in verdicts)} |" for tool in tools), "",
        f"| Input | {' | '.join(tools)} |", f"|---|{'---|' * len(tools)}",
    ]  # fmt: skip
    return lines + [f"| {row['input']} | {' | '.join(row[tool] for tool in tools)} |" for row in bad]


def _verdict(case: BadInput) -> str:
    told = f': "{case.told}"' if case.told else ""
    verdict = "refused" if case.refused else "same result" if case.same else "used"
    others = [f'`{verb}` refuses: "{words}"' for verb, words in case.verbs.items() if words]
    others += [f"`{verb}` uses it" for verb, words in case.verbs.items() if not words]
    options = f" with `{case.options}`" if case.options else ""
    return "; ".join([verdict + options + told, *others])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
