"""The directive ``{cli-reference}``: every verb of the command line with its options, read from the program."""

import re
from typing import Any

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scfusionttt.cli import app as scfusionttt


class CliReference(SphinxDirective):
    """Write a section for each verb."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        lines = [line for name, verb in verbs().items() for line in described(name, verb)]
        section = nodes.section()
        section.document = self.state.document
        self.state.nested_parse(StringList(lines, source="cli"), self.content_offset, section)
        return section.children


def verbs() -> dict[str, Any]:
    """Return the command of each verb by its name, in the order of ``--help``."""
    return typer.main.get_command(scfusionttt).commands  # type: ignore[attr-defined]


def options(verb: Any) -> set[str]:
    """Return the options of a verb, such as ``--out``."""
    return {name for parameter in verb.params for name in parameter.opts if name.startswith("--")} | {"--help"}


def described(name: str, verb: Any) -> list[str]:
    """Return the Markdown lines that describe a verb."""
    text, examples = [], []
    for paragraph in re.split(r"\n\s*\n", verb.help.strip()):
        if paragraph.lstrip().startswith("Example:"):
            examples += [line.strip().removeprefix("Example: ") for line in paragraph.splitlines()]
        else:
            text += [" ".join(paragraph.split()), ""]
    told = []
    for parameter in verb.params:
        shown, help_text = parameter.get_help_record(typer.Context(verb, info_name=name))
        told += [f"`{' '.join(shown.split())}`", f": {' '.join(help_text.split())}", ""]
    return [f"## {name}", "", *text, "```bash", *examples, "```", "", *told]


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True}
