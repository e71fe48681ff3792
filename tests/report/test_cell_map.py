import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest

from scfusionttt.errors import InputDataError
from scfusionttt.report.cell_map import CellMap, Values
from scfusionttt.report.html import Section, html_report

EVIL = "</script><script>alert(1)</script>"


def unpack(text, dtype):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    coords = rng.normal(size=(33, 2))
    coords[7] = np.nan
    table = pd.DataFrame(rng.normal(size=(33, 2)), columns=["CD3", EVIL])
    table.iloc[4, 0] = np.nan
    labels = np.array(["B", EVIL, "unknown"] * 11)
    names = [f"cell {i}" for i in range(32)] + [EVIL]
    return CellMap(coords, names, {"type": labels}, [Values("protein", "log-ratio", table)], EVIL)


def test_values_are_preserved_up_to_quantisation(cells):
    packed = json.loads(cells.payload)["values"][0]
    levels = unpack(packed["levels"], np.uint8)
    wanted = np.delete(cells.values[0].table["CD3"].to_numpy(), 7)
    values = np.where(levels == 255, np.nan, packed["low"] + (packed["high"] - packed["low"]) * levels / 254)
    np.testing.assert_allclose(values, wanted, atol=(packed["high"] - packed["low"]) / 500)
    assert packed["low"] < packed["from"] < packed["to"] < packed["high"]


def test_cells_without_coordinates_are_left_out(cells):
    packed = json.loads(cells.payload)
    assert packed["n"] == 32
    assert len(unpack(packed["places"], "<u2")) == 64
    names = zlib.decompress(base64.b64decode(packed["cells"])).decode().split("\n")
    assert len(names) == 32
    assert "cell 7" not in names
    codes = unpack(packed["categories"][0]["codes"], "<u2")
    assert packed["categories"][0]["classes"] == [EVIL, "B"]
    assert (codes == 2).sum() == 11, "what is unknown is no class"


def test_a_batch_called_none_is_a_batch(cells):
    """The table of batches listed it, and below the map its cells had the heading "not labelled"."""
    values = np.array(["none", "IFN", None] * 11, dtype=object)
    headings = {"batch": "batch", "flag": "quality"}
    found = CellMap(cells.coords, cells.cells, dict.fromkeys(["batch", "flag"], values), headings=headings)
    batch, flag = json.loads(found.payload)["categories"]
    assert (batch["classes"], batch["absent"]) == (["IFN", "none"], "no batch")
    assert (flag["classes"], flag["absent"]) == (["IFN"], "not flagged")


def test_long_names_that_begin_alike_stay_apart(cells):
    names = [f"{'a population that was named by its markers' * 2} {sign}" for sign in "+-"]
    values = np.array([*names, "B"] * 11)
    found = json.loads(CellMap(cells.coords, cells.cells, {"type": values}).payload)["categories"][0]["classes"]
    assert [name[-1] for name in found] == ["+", "-", "B"]
    assert max(map(len, found)) == 60


def test_a_treatment_none_is_a_class_of_its_column(cells):
    """A column of "none" and one drug was not offered, and its cells "none" were not labelled."""
    values = {"treatment": ["none", "IFN", "IFN"] * 11, "type": ["none", "B", "T"] * 11}
    found = CellMap(cells.coords, cells.cells, values, headings=dict.fromkeys(values, "obs column"))
    treatment, kind = json.loads(found.payload)["categories"]
    assert (treatment["classes"], kind["classes"]) == (["IFN", "none"], ["B", "T"])


def test_both_axes_have_one_scale(cells):
    x, y = unpack(json.loads(cells.payload)["places"], "<u2").reshape(2, -1).astype(float)
    known = np.delete(np.asarray(cells.coords), 7, axis=0)
    assert max(x.max(), y.max()) == 65535
    np.testing.assert_allclose(np.ptp(x) / np.ptp(y), np.divide(*np.ptp(known, axis=0)), rtol=1e-3)


def test_names_cannot_close_the_script_and_the_policy_allows_only_it(cells):
    page = html_report("Cells", [Section("Map", map=cells)])
    assert EVIL not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode().replace("+", r"\+")
    assert re.search(rf"script-src &#39;sha256-{digest}|script-src 'sha256-{digest}", page)
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    assert json.loads(data)["values"][1]["name"] == EVIL


def test_a_page_without_a_map_has_no_script():
    assert "script" not in html_report("Cells", [Section("Text", "words")]).replace("Description", "")


def test_a_page_of_ten_thousand_cells_is_below_8_mb():
    rng = np.random.default_rng(0)
    counts = np.log1p(rng.poisson(0.3, size=(10_000, 150)) * rng.gamma(2, 2, size=(10_000, 1)))
    proteins = rng.gamma(2, 1, size=(10_000, 224))
    names = [f"{i:016x}-1" for i in rng.integers(0, 2**60, 10_000)]
    groups = [Values("gene", "log1p", pd.DataFrame(counts)), Values("protein", "log-ratio", pd.DataFrame(proteins))]
    cells = CellMap(rng.normal(size=(10_000, 2)), names, {"cluster": rng.integers(0, 20, 10_000).astype(str)}, groups)
    assert len(cells.payload) < 6e6


def test_values_of_another_number_of_cells_are_refused():
    with pytest.raises(InputDataError, match="one entry per cell"):
        CellMap(np.zeros((3, 2)), ["a", "b"], {})
