"""The catalogue of invalid and unusual inputs, each with its expected result.

``python tests/contract/bad_inputs.py`` writes `docs/reliability.md` from it.
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

#: Results of other tools, written by `peers.py` if they are installed.
PEERS = Path(__file__).with_name("peers.tsv")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
DONE = ""


@dataclass(frozen=True, eq=False)
class BadInput:
    """One input and its expected result.

    Parameters
    ----------
    group, what
        Section of the page, and description.
    make
        Creates it from valid cells.
    refused
        Whether it must be refused, with one line and exit code 2; otherwise it must be used.
    message
        Words that the line or the warning must contain, if any.
    same
        The result must be that of the valid cells, bit for bit, whatever their container, order or names.
    verbs
        Words with which particular commands refuse it (`DONE`: they use it).
    labels
        obs column with the cell types.
    options
        Options of the command.
    """

    group: str
    what: str
    make: Make
    refused: bool
    message: str = ""
    same: bool = False
    verbs: Mapping[str, str] = field(default_factory=dict)
    labels: str = "cell_type"
    options: str = ""

    def refusal(self, verb: str) -> str | None:
        """Return the words with which a command must refuse it, or None if it must use it."""
        message = self.verbs.get(verb, self.message if self.refused and self._is_judged_by(verb) else DONE)
        return message or None

    def _is_judged_by(self, verb: str) -> bool:
        if self.group == "Labels":
            return verb in ("finetune", "transfer", "evaluate")
        return verb != "evaluate" or self.group == "Files"  # evaluate does not read counts


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
    """Return the page that describes what happens to each input."""
    lines = [
        "# Invalid and unusual input",
        "",
        f"The tests in `tests/contract` create each of these {len(CATALOGUE)} inputs and pass it to the command line;",
        "this page is generated from them (`python tests/contract/bad_inputs.py`). *Refused*: exit code 2, one line on",
        "stderr, and nothing is written. *Used*: exit code 0; the message or warning contains the words in quotes.",
        "*Same result*: bit for bit that of the valid input.",
    ]
    for group in dict.fromkeys(case.group for case in CATALOGUE):
        lines += ["", f"## {group}", "", "| Input | What happens |", "|---|---|"]
        lines += [f"| {case.what} | {_verdict(case)} |" for case in CATALOGUE if case.group == group]
    # In Markdown, `<script>` would be a tag, and browsers hide all that follows it.
    return "\n".join(lines + _peers()).replace("<", r"\<") + "\n"


def _peers() -> list[str]:
    """Return the section on other tools: the number of inputs per result, and the result of each input."""
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
        f"Results of other tools for {len(bad)} of the inputs above that scfusionttt refuses",
        "(`python tests/contract/peers.py`), after one epoch of training or the neighbours of the tutorial. *Clear",
        "error*: the message comes from the tool or its reader; it may not be helpful. *Crash deep inside*: the",
        "error comes from another library, or the process dies. *Warning*: a result, and a warning that valid cells do",
        "not cause. *Silent wrong result*: a result without any message.", "",
        f"| Tool | {' | '.join(verdicts)} |", f"|---|{'---|' * len(verdicts)}",
        *(f"| {tool} | {' | '.join(str(counts[tool][verdict]) for verdict in verdicts)} |" for tool in tools), "",
        f"| Input | {' | '.join(tools)} |", f"|---|{'---|' * len(tools)}",
    ]  # fmt: skip
    return lines + [f"| {row['input']} | {' | '.join(row[tool] for tool in tools)} |" for row in bad]


def _verdict(case: BadInput) -> str:
    message = f': "{case.message}"' if case.message else ""
    verdict = "refused" if case.refused else "same result" if case.same else "used"
    others = [f'`{verb}` refuses: "{words}"' for verb, words in case.verbs.items() if words]
    others += [f"`{verb}` uses it" for verb, words in case.verbs.items() if not words]
    options = f" with `{case.options}`" if case.options else ""
    return "; ".join([verdict + options + message, *others])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
