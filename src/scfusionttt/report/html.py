"""Self-contained HTML reports: without network access or fonts, and with at most one script."""

import base64
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scfusionttt.report.cell_map import CellMap
from scfusionttt.report.tables import Table, format_value

#: Twice the 96 CSS pixels per inch, for high-resolution screens and print.
_DPI = 192


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes
    ----------
    drawing
        A matplotlib figure, axes on one, or an array of axes on one.
    caption
        Caption below the figure.
    alt
        Text alternative.
    """

    drawing: matplotlib.figure.Figure | Axes | NDArray[Any]
    caption: str
    alt: str

    @property
    def figure(self) -> matplotlib.figure.Figure:
        """The figure that contains the drawing."""
        drawing = self.drawing
        if not isinstance(drawing, matplotlib.figure.Figure):
            drawing = np.atleast_1d(np.asarray(drawing, dtype=object)).flat[0].figure
        while not isinstance(drawing, matplotlib.figure.Figure):
            drawing = drawing.figure  # of a subfigure
        return drawing

    @property
    def width(self) -> int:
        """Width in CSS pixels."""
        return round(self.figure.get_figwidth() * 96)

    @property
    def height(self) -> int:
        """Height in CSS pixels."""
        return round(self.figure.get_figheight() * 96)

    @property
    def source(self) -> str:
        """The image as a data URI."""
        return "data:image/png;base64," + base64.b64encode(png(self.figure)).decode()


@dataclass(frozen=True)
class Section:
    """A section of a report: text, followed by a map of cells, tables, figures and code.

    Attributes
    ----------
    text
        Plain text; empty lines separate paragraphs.
    code
        Shown verbatim, for example commands.
    map
        Interactive map; at most one section of a report has one.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    code: str = ""
    map: CellMap | None = None

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs of the text."""
        return [part.strip() for part in self.text.split("\n\n") if part.strip()]


def html_report(
    title: str,
    sections: Sequence[Section],
    *,
    summary: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    footer: str = "",
) -> str:
    """Return a report as one self-contained HTML page.

    All names and texts are escaped: markup in a name from the data has no effect.

    Parameters
    ----------
    title, summary
        Heading, and the lines below it that summarise the results.
    sections
        Sections, in the order of the page and of its table of contents.
    facts
        Key figures by name (cells, genes, time), shown in large type.
    footer
        Last line, for example the version of the package.
    """
    shown = {name: format_value(value) for name, value in (facts or {}).items()}
    templates = _environment()
    script = _script(templates) if any(section.map for section in sections) else ""
    page = templates.get_template("report.html.j2").render(
        title=title, summary=summary, facts=shown, sections=sections, footer=footer,
        script=script, script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    # Names from some files contain lone surrogates, which cannot be encoded.
    return page.encode("utf-8", "replace").decode()


def png(figure: matplotlib.figure.Figure) -> bytes:
    """Return a figure as PNG; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the tables of the page show them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def _script(templates: Environment) -> str:
    """Return the only script of the page. Its content security policy allows no other, by hash."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, "cell_map.js")[0].replace("\r\n", "\n")


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("scfusionttt.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
