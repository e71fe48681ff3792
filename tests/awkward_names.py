import matplotlib as mpl
import numpy as np
import pytest

from scfusionttt.report.html import png

AWKWARD = (
    "_hidden",
    "$\\frac{1$",
    "a$b$c",
    "γδ T",
    "T細胞",
    "two\nlines",
    "bad\udce9byte",
    "x" * 200,
    "<script>",
    "10",
    "2",
)


@pytest.fixture
def awkward_names():
    """Names that upset legends, formulas, fonts and markup."""
    return list(AWKWARD)


@pytest.fixture
def draw():
    """Draw the figure of some axes as a report would; return its PNG."""

    def draw(axes):
        return png(np.atleast_1d(np.asarray(axes, dtype=object)).flat[0].figure)

    return draw


@pytest.fixture(autouse=True)
def nothing_global():
    """No figure may touch the user's settings or pyplot's figures."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
