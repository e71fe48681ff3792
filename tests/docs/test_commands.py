"""Every command that README and the pages name exists, with every option they give it."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: A verb, and all that follows it up to the end of the line, of the code, or of a comment.
COMMAND = re.compile(r"scfusionttt ([a-z]+)((?: +(?![#|`])[^\s`#|]+)*)")


@pytest.fixture(scope="module")
def verbs():
    import typer

    from scfusionttt.cli import app

    return typer.main.get_command(app).commands


def commands(text):
    """Return (verb, options) of each command in code: a fenced block or between backticks, its lines unwrapped."""
    fenced = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    inline = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    for code in [*fenced, *inline]:
        for verb, rest in COMMAND.findall(code.replace("\\\n", " ")):
            yield verb, set(re.findall(r"(?<=\s)--[a-z-]+", rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_of_a_page_exists(page, verbs):
    for verb, options in commands(page.read_text(encoding="utf-8")):
        assert verb in verbs, f"{page.name}: scfusionttt {verb}"
        known = {name for parameter in verbs[verb].params for name in parameter.opts}
        assert options <= known | {"--help"}, f"{page.name}: scfusionttt {verb} {options - known}"


def test_the_readme_shows_every_verb(verbs):
    shown = {verb for verb, _ in commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert set(verbs) - shown <= {"demo"}  # which `make demo` runs


def test_commands_are_found_in_code_and_options_are_told_apart():
    fenced = "```bash\nscfusionttt embed a --out b  # scfusionttt --x\n```\n"
    text = f"{fenced}and `scfusionttt\npredict c --model d`, scfusionttt z"
    assert list(commands(text)) == [("embed", {"--out"}), ("predict", {"--model"})]


def test_the_command_line_page_is_written_from_the_program(monkeypatch, verbs):
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    import cli_reference

    lines = cli_reference.described("embed", verbs["embed"])
    assert lines[0] == "## embed"
    assert "scfusionttt embed pbmc.h5mu --model pbmc-model --out fused.h5mu" in lines
    assert "`--model MODEL`" in lines
    assert all(cli_reference.described(name, verb) for name, verb in verbs.items())


def test_the_settings_page_has_every_setting_with_its_default_and_every_number_with_its_unit(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    import settings_reference

    from scfusionttt.config import Config

    lines = [line for section in settings_reference.sections() for line in settings_reference.described(section)]
    entries = dict(pairwise(lines))
    config = Config().to_dict()
    names = [f"{section}.{key}" for section in config if section != "seed" for key in config[section]]
    for name in [*names, "seed"]:
        text = entries[f"`{name}`"]
        assert "; default " in text, name
        assert not text.startswith((": whole number;", ": number;", ": whole number or `auto`;")), f"{name} has no unit"
        assert text.endswith("."), name
    assert entries["`network.patch`"].startswith(
        ": whole number [genes]; default 40, `paper` 10, `scmmae` 10, `whole` 1. "
    )
