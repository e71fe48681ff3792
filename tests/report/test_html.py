import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Drawing
from matplotlib.image import imread

from scfusionttt.plotting.figures import confusion, training_curves, umap
from scfusionttt.report.html import Figure, Section, html_report
from scfusionttt.report.tables import Table, key_values, metric_table

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects elements and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(0)
    cells = pd.DataFrame([[9, 1], [0, 5]], index=["B", EVIL], columns=["B", EVIL])
    history = pd.DataFrame({"stage": "pretrain", "epoch": [1, 2], "train_loss": [2.0, 1.0]})
    sections = [
        Section(
            "Clusters",
            "First paragraph.\n\nSecond one.",
            tables=[metric_table({"TTT": {"ARI": 0.83}}, protocol="unsupervised", caption="Scores")],
            figures=[
                Figure(umap(rng.normal(size=(3000, 2)), np.arange(3000) % 7), "Cells by cluster.", "UMAP"),
                Figure(training_curves(history), "Loss.", "Falling curve"),
            ],
        ),
        Section(
            EVIL,
            EVIL,
            tables=[Table(pd.DataFrame({EVIL: [EVIL]}, index=pd.Index([EVIL], name=EVIL)), EVIL, notes=EVIL)],
            figures=[Figure(confusion(cells).figure, f"Caption {EVIL}", f'" onload="{EVIL}')],
            code=f"echo {EVIL}",
        ),
        Section("Settings", tables=[key_values({"a": 1})]),
    ]
    return html_report(EVIL, sections, summary=[EVIL], facts={EVIL: EVIL, "cells": 3000}, footer=EVIL)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_is_one_well_formed_page(text, page):
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("section")) == 3


def test_nothing_is_loaded_from_outside(text, page):
    for _, attrs in page.elements:
        assert (attrs.get("src") or "data:").startswith("data:image/png;base64,"[:5])
        assert (attrs.get("href") or "#").startswith("#")
        assert not {"srcset", "action", "background", "poster"} & set(attrs)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_from_data_are_escaped(text, page):
    assert "<script" not in text
    assert "".join(page.text).count(EVIL) >= 12
    assert not any("onload" in attrs for _, attrs in page.elements)
    assert page.all("img")[2]["alt"] == f'" onload="{EVIL}'


def test_the_page_is_accessible_by_screen_reader_and_keyboard(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"].removeprefix("#") for attrs in page.all("a")} <= set(ids)
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in {"row", "col"} for head in page.all("th"))
    scrolling = [attrs for tag, attrs in page.elements if attrs.get("class") == "table" or tag == "pre"]
    assert scrolling and all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in scrolling)


def test_scores_name_their_protocol(page):
    assert "unsupervised" in page.text
    assert " no labels were used in training" in page.text


def test_figures_have_the_stated_size(page):
    for image in page.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        height, width, _ = imread(io.BytesIO(data), format="png").shape
        assert (width, height) == pytest.approx((2 * int(image["width"]), 2 * int(image["height"])), abs=2)


def test_key_values_have_no_empty_heads(page):
    assert len(page.all("thead")) == 2
    assert len(page.all("table")) == 3


def test_the_page_is_small_and_reproducible(text):
    assert len(text) < 4_000_000
    figure = Figure(umap(np.zeros((1, 2)), ["a"]), "c", "a")
    assert figure.source == figure.source


def test_invalid_unicode_is_replaced():
    page = html_report("bad\udce9byte T細胞", [Section("s")])
    assert "bad?byte T細胞" in page.encode("utf-8").decode()


def test_a_subfigure_shows_its_whole_figure():
    whole = Drawing()
    inner = whole.subfigures(1, 2)[0].subplots()
    assert Figure(inner, "c", "a").figure is whole


def test_a_page_may_have_no_sections():
    assert len(Page(html_report("Empty", [])).all("section")) == 0
