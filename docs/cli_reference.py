"""The directive ``{cli-reference}``: every command with its options, read from the program."""

import re
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scfusionttt.cli import app as scfusionttt


class CliReference(SphinxDirective):
    """Write a section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        lines = [line for name, verb in verbs().items() for line in described(name, verb)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def verbs() -> dict[str, Any]:
    """Return the commands by name, in the order of ``--help``."""
    return typer.main.get_command(scfusionttt).commands  # type: ignore[attr-defined]


def described(name: str, verb: Any) -> list[str]:
    """Return the Markdown lines that describe a command."""
    text, examples = [], []
    for paragraph in re.split(r"\n\s*\n", verb.help.strip()):
        if paragraph.lstrip().startswith("Example:"):
            examples += [line.strip().removeprefix("Example: ") for line in paragraph.splitlines()]
        else:
            text += [" ".join(paragraph.split()), ""]
    documented = []
    for parameter in verb.params:
        shown, help_text = parameter.get_help_record(typer.Context(verb, info_name=name))
        documented += [f"`{' '.join(shown.split())}`", f": {' '.join(help_text.split())}", ""]
    return [f"## {name}", "", *text, "```bash", *examples, "```", "", *documented]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True}
