"""What bad and odd input gets, from the command line: one line and exit code 2, or a correct result."""

import os
import shlex
import shutil

import numpy as np
import pytest
from bad_inputs import CATALOGUE, PAGE, page
from making import write
from markdown_it import MarkdownIt

from scfusionttt.io.quiet_warnings import quiet

FAST = "--preset fast --epochs 1 --set network.width=16 --set network.encoder_blocks=1"
VERBS = {
    "validate": "validate {input} {options}",
    "pretrain": f"pretrain {{input}} --out out/model {FAST} {{options}}",
    "finetune": "finetune {input} --model model --labels {labels} --out out/model {options}",
    "transfer": "transfer {input} --model typed --labels {labels} --out out/model {options}",
    "embed": "embed {input} --model model --out out/z.npy {options}",
    "predict": "predict {input} --model typed --out out/t.csv {options}",
    "evaluate": "evaluate {input} --labels {labels} --clusters {labels}",
}
#: Options that a verb does not have.
WITHOUT = {"validate": ("--drop-empty",), "evaluate": ("--",)}


def is_quick(verb, case):
    """Return whether a verb gets an input in every run of the tests, and not with the slow ones alone."""
    if case.group == "Labels":
        return verb == ("finetune" if case.refused else "evaluate")
    return verb == "validate" or (verb == "embed" and (case.same or case.group == "Counts"))


PAIRS = [
    pytest.param(verb, case, id=f"{verb}: {case.what}", marks=() if is_quick(verb, case) else pytest.mark.slow)
    for verb in VERBS for case in CATALOGUE
    if not any(option in case.options for option in WITHOUT.get(verb, ()))
]  # fmt: skip


@pytest.fixture(scope="session")
def place(tmp_path_factory, trained):
    """A folder with models."""
    place = tmp_path_factory.mktemp("catalogue")
    trained.pretrained.save(place / "model")
    trained.finetuned.save(place / "typed")
    (place / "out").mkdir()
    return place


@pytest.fixture(scope="session")
def z(trained, cells):
    """The representation of the good cells."""
    return trained.pretrained.embed(cells)


@pytest.fixture(scope="session")
def made(place, cells):
    """Return a function that makes a case once."""
    paths = {}

    def make(case):
        if case not in paths:
            folder = place / f"{len(paths)}"
            folder.mkdir()
            with quiet():
                data = cells.copy()
                result = case.make(data, folder)
                paths[case] = (
                    write(data if result is None else result, folder / "cells")
                    if not hasattr(result, "exists")
                    else result
                )
        return paths[case]

    return make


@pytest.fixture
def given(place, made, scfusionttt, monkeypatch):
    """Give a case to a verb; check exit code and lines; return its output."""
    monkeypatch.chdir(place)

    def run(verb, case):
        path = made(case)
        if case.what == "no permission to read" and os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
        shutil.rmtree(place / "out")  # with whatever an earlier case left there
        (place / "out").mkdir()
        result = scfusionttt(
            VERBS[verb].format(input=shlex.quote(str(path)), options=case.options, labels=shlex.quote(case.labels))
        )
        output, refusal = result.out + result.err, case.refusal(verb)
        if refusal is None:
            assert result.code == 0, output
            return output
        assert result.code == 2, output
        *notes, line = result.err.splitlines()
        assert line.startswith("scfusionttt: ") and refusal in line, output
        assert not any(note.startswith(("scfusionttt:", "Traceback")) for note in notes)
        assert not list((place / "out").iterdir()), "a refusal writes nothing"
        return output

    return run


@pytest.mark.parametrize(("verb", "case"), PAIRS)
def test_an_input_of_the_catalogue(verb, case, given, place, z):
    output = given(verb, case)
    if case.refusal(verb) is not None:
        return
    if verb == "validate" and not case.refused:
        assert case.message in output
    if verb == "embed":
        found = np.load(place / "out" / "z.npy")
        assert np.isfinite(found).all()
        if case.same:
            np.testing.assert_array_equal(found, z)


def test_the_page_is_that_of_the_catalogue():
    assert len(CATALOGUE) >= 80
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tests/contract/bad_inputs.py`"


def test_a_browser_shows_all_rows_of_the_page():
    """An input called <script> hid the 124 rows after it on the page of the documentation."""
    html = MarkdownIt().enable("table").render(page())
    assert "<td>a gene called &lt;script&gt;</td>" in html
