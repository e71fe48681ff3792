"""The report as one HTML file that needs nothing beside it: no network, no fonts, one script of its own at most."""

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

#: Twice the 96 pixels that a browser gives an inch, for sharp figures on dense screens and paper.
_DPI = 192


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes
    ----------
    drawing
        A matplotlib figure, axes on one, or an array of axes on one.
    caption
        What is seen.
    alt
        The same for those who cannot see it.
    """

    drawing: matplotlib.figure.Figure | Axes | NDArray[Any]
    caption: str
    alt: str

    @property
    def figure(self) -> matplotlib.figure.Figure:
        """The whole figure on which the drawing stands."""
        drawing = self.drawing
        if not isinstance(drawing, matplotlib.figure.Figure):
            drawing = np.atleast_1d(np.asarray(drawing, dtype=object)).flat[0].figure
        while not isinstance(drawing, matplotlib.figure.Figure):
            drawing = drawing.figure  # a subfigure stands on another
        return drawing

    @property
    def width(self) -> int:
        """Width on a screen, CSS pixels."""
        return round(self.figure.get_figwidth() * 96)

    @property
    def height(self) -> int:
        """Height on a screen, CSS pixels."""
        return round(self.figure.get_figheight() * 96)

    @property
    def source(self) -> str:
        """The picture itself, as a data URI."""
        return "data:image/png;base64," + base64.b64encode(png(self.figure)).decode()


@dataclass(frozen=True)
class Section:
    """A section of a report: text, then a map of cells, tables, figures, and commands or other code.

    Attributes
    ----------
    text
        Plain text; empty lines part paragraphs.
    code
        Shown as it is, such as the commands that made the report.
    map
        Cells to look around in; one section at most has such a map.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    code: str = ""
    map: CellMap | None = None

    @property
    def paragraphs(self) -> list[str]:
        """The text, paragraph by paragraph."""
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

    Everything given is shown as text: markup in a name from the data has no effect.

    Parameters
    ----------
    title, summary
        The heading and the lines below it that say what came out.
    sections
        In the order shown; the page's table of contents lists them.
    facts
        Name and value of what the reader wants first (cells, genes, time taken), shown large.
    footer
        Last line, such as the version that made the report.
    """
    shown = {name: format_value(value) for name, value in (facts or {}).items()}
    templates = _environment()
    script = _script(templates) if any(section.map for section in sections) else ""
    page = templates.get_template("report.html.j2").render(
        title=title, summary=summary, facts=shown, sections=sections, footer=footer,
        script=script, script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    # Names that are not valid Unicode come out of some files as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode()


def png(figure: matplotlib.figure.Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same drawing."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the page's tables show it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def _script(templates: Environment) -> str:
    """Return the page's only script, which the page's policy knows by its hash: no other can run."""
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
