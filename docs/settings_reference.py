"""The directive ``{settings-reference}``: every setting, read from the dataclasses and their comments."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from scfusionttt.config import PRESETS, Config

#: A unit in brackets, in front of the full stop or semicolon that it belongs to.
UNIT = re.compile(r" \[([^]]+)\](?=[.;:,])")
KINDS = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}


class SettingsReference(SphinxDirective):
    """Write a section for each section of the settings."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        lines = [line for name in sections() for line in described(name)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def sections() -> dict[str, Any]:
    """Return the default of each section by its name; the settings outside of sections come as ''."""
    defaults = {item.name: getattr(Config(), item.name) for item in fields(Config)}
    return {name: value for name, value in defaults.items() if is_dataclass(value)} | {"": Config()}


def described(section: str) -> list[str]:
    """Return the Markdown lines that describe a section."""
    owner = sections()[section]
    lines = [f"## {section or 'seed'}", "", *([type(owner).__doc__ or "", ""] if section else [])]
    for name, kind in settings(section):
        text = comment(owner, name)
        unit = UNIT.search(text)
        unit_text = f" [{unit.group(1)}]" if unit else ""
        key = f"{section}.{name}" if section else name
        lines += [f"`{key}`", f": {kind}{unit_text}; {defaults(key)}. {UNIT.sub('', text)}", ""]
    return lines


def settings(section: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the type or choices, in words, of each setting of a section."""
    owner = sections()[section]
    hints = get_type_hints(type(owner))
    # Settings of the section itself come before those that it shares with another.
    for item in sorted(fields(owner), key=lambda item: item.name not in type(owner).__annotations__):
        if not is_dataclass(getattr(owner, item.name)):
            yield item.name, _kind(hints[item.name])


def comment(owner: Any, name: str) -> str:
    """Return the comment above a setting as one line; a subclass that changes only the default inherits it."""
    documented = ModuleAnalyzer.for_module("scfusionttt.config.settings").find_attr_docs()
    of_class = next(cls.__name__ for cls in type(owner).__mro__ if (cls.__name__, name) in documented)
    return " ".join(" ".join(documented[of_class, name]).split()).replace("``", "`")


def defaults(key: str) -> str:
    """Return the value in the default preset, and in the presets that have another."""
    values = {preset: _shown(key, config) for preset, config in PRESETS.items()}
    default = values.pop("default")
    others = [f"`{preset}` {value}" for preset, value in values.items() if value != default]
    return ", ".join([f"default {default}", *others])


def _kind(hint: Any) -> str:
    """Return a type in words."""
    options = get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)
    words = []
    for option in options:
        if get_origin(option) is Literal:
            words += [f"`{choice}`" for choice in get_args(option)]
        elif option is not NoneType:
            words.append(KINDS[option])
    return " or ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} or {words[-1]}"


def _shown(key: str, config: Config) -> str:
    """Return a setting's value as a user would write it."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if value is None:
        return "all" if key == "data.n_genes" else "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("settings-reference", SettingsReference)
    return {"parallel_read_safe": True}
