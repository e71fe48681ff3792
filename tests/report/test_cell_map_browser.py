"""Every control of the report's map, used in a real browser.

What it looks like at the end of each test is kept in the folder `SCFUSIONTTT_SCREENSHOTS`, where that is set.
"""

import os
import re
import shutil
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from scfusionttt.report.cell_map import CellMap, Values
from scfusionttt.report.html import Figure, Section, html_report
from scfusionttt.report.tables import key_values

N = 600
DONOR = np.where(np.arange(N) < 150, "d1", "d2")
#: The legend of the map.
LEGEND = "[...document.querySelectorAll('.legend button')].map(b => [b.textContent, b.getAttribute('aria-pressed')])"
PICTURE = "document.querySelector('canvas').toDataURL()"
#: Mean of red, green and blue, 0 to 255, of what is drawn.
LIGHT = """(() => {
  const {width, height} = document.querySelector('canvas');
  const pixels = document.querySelector('canvas').getContext('2d').getImageData(0, 0, width, height).data;
  return pixels.reduce((sum, value, i) => sum + (i % 4 < 3 ? value : 0), 0) / (3 * width * height);
})()"""
#: The browser's advice on how these tests read the picture.
ADVICE = "Canvas2D: Multiple readback operations"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    group = np.arange(N) % 3
    coords = np.array([[0, 0], [10, 0], [0, 10]])[group] + rng.normal(0, 0.5, (N, 2))
    values = pd.DataFrame({"CD3": group + rng.normal(0, 0.1, N), "<script>": rng.uniform(size=N)})
    values.iloc[0, 0] = np.nan
    cells = CellMap(
        coords,
        [f"cell-{i}" for i in range(N)],
        {"cluster": group.astype(str), "type": np.array(["T", "B", "unknown"])[group], "donor": DONOR},
        [
            Values("protein", "log-ratio", values[["CD3"]], {"CD3": ["CD3", "CD3E"]}),
            Values("gene", "log1p", values[["<script>"]].assign(CD3E=values["CD3"])),
        ],
        "Simulated cells.",
        headings={"donor": "batch"},
        absent="2 of 9 genes are on this page.",
    )
    settings = key_values({"seed": 0}, caption="Settings", folded=True)
    page = html_report("Cells", [Section("The cells", map=cells), Section("Settings", tables=[settings])])
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def page(chromium, file, request):
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)  # a busy machine is no error
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    page.evaluate("document.querySelector('.map').ready")
    page.wait_for_timeout(100)
    yield page
    if folder := os.environ.get("SCFUSIONTTT_SCREENSHOTS"):
        page.screenshot(path=Path(folder, re.sub(r"\W+", "_", request.node.name) + ".png"), full_page=True)
    page.close()
    assert [text for text in said if not text.startswith(("blob:", ADVICE))] == [], "no error, no message, no request"


def picked(page):
    return page.locator(".picked").inner_text()


def settle(page, what=PICTURE):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate(what)


def wait_for_legend(page, title):
    """Wait for a colour, which is unpacked before it is shown."""
    page.locator(".legend h3").get_by_text(title, exact=True).wait_for()


def test_colours_and_legend_follow_the_choice(page):
    assert page.evaluate(LEGEND) == [["0200", "false"], ["1200", "false"], ["2200", "false"]]
    before = settle(page)
    page.select_option(".by", label="type")
    assert "not labelled: 200" in page.locator(".legend").inner_text()
    page.select_option(".by", label="<script>")
    wait_for_legend(page, "<script>, log1p")
    assert settle(page) != before


def test_a_class_is_selected_by_click_and_by_keyboard(page):
    page.locator(".legend button").first.focus()
    page.keyboard.press("Enter")
    assert "200 of 600 cells selected" in picked(page)
    page.locator(".legend button").nth(1).click()
    assert "400 of 600 cells selected" in picked(page)
    assert page.evaluate(LEGEND)[1][1] == "true"
    page.get_by_role("button", name="Clear selection").click()
    assert picked(page) == ""
    page.locator(".legend button").nth(2).click()
    page.locator("canvas").press("Escape")
    assert picked(page) == ""


def drag(page, path):
    page.mouse.move(*path[0])
    page.mouse.down()
    for point in path[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()


def test_the_lasso_counts_what_lies_in_it(page):
    box = page.locator("canvas").bounding_box()
    x, y, w, h = box["x"], box["y"], box["width"], box["height"]
    page.get_by_role("button", name="Lasso").click()
    left = [(x + 2, y + 2), (x + w / 2, y + 2), (x + w / 2, y + h - 2), (x + 2, y + h - 2)]
    drag(page, left)
    assert "400 of 600 cells selected" in picked(page)
    page.get_by_role("button", name="Move").click()
    page.keyboard.down("Shift")
    drag(page, [(x + w / 2 + 1, y + 2), (x + w - 2, y + 2), (x + w - 2, y + h - 2), (x + w / 2 + 1, y + h - 2)])
    page.keyboard.up("Shift")
    assert "200 of 600 cells selected" in picked(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save cell names").click()
    names = Path(download.value.path()).read_text(encoding="utf-8").split()
    assert names == [f"cell-{i}" for i in range(1, N, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cd3", None),
        ("cell-7", "1 of 600 cells selected"),
        ("T (type)", "200 of 600 cells selected"),
        ("CD99", "is called “CD99”. 2 of 9 genes are on this page."),
    ],
)
def test_the_search_box_finds_features_classes_and_cells(text, message, page):
    page.fill(".find", text)
    page.keyboard.press("Enter")
    if message is None:
        wait_for_legend(page, "CD3, log-ratio")
    else:
        page.wait_for_timeout(50)
        assert message in picked(page)


def test_the_same_search_again_is_answered_again(page):
    """A gene searched for a second time, after another colour was chosen from the list, did not come back."""
    page.fill(".find", "CD3")
    page.keyboard.press("Enter")
    wait_for_legend(page, "CD3, log-ratio")
    page.select_option(".by", label="type")
    wait_for_legend(page, "type")
    page.locator(".find").press("Enter")
    wait_for_legend(page, "CD3, log-ratio")


def test_a_class_that_is_searched_for_is_selected_alone(page):
    """It was added to the classes searched for before, or taken off: the third search here selected d2."""
    for text in ("d1", "d2", "d1"):
        page.fill(".find", text)
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
    assert "150 of 600 cells selected" in picked(page)
    assert page.evaluate(LEGEND) == [["d1150", "true"], ["d2450", "false"]]


def test_a_name_of_a_gene_and_a_protein_is_asked_about(page):
    page.fill(".find", "CD3E")
    page.keyboard.press("Enter")
    assert "“CD3E” is more than one thing" in picked(page)
    page.get_by_role("button", name="CD3E (gene)").click()
    wait_for_legend(page, "CD3E, log1p")
    page.fill(".find", "cd 3")
    page.keyboard.press("Enter")
    wait_for_legend(page, "CD3, log-ratio")


def test_the_selection_is_compared_with_the_other_cells(page):
    page.locator(".legend button").nth(2).click()
    page.get_by_text("proteins, mean").wait_for()
    rows = page.evaluate(
        "[...document.querySelectorAll('.picked .scroll tbody tr')].map(r => r.innerText.split('\\t'))"
    )
    assert rows[0][0] == "CD3"
    assert [float(mean) for mean in rows[0][1:]] == [pytest.approx(2, abs=0.05), pytest.approx(0.5, abs=0.05)]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this table").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "kind,name,mean_selected,mean_others,t"
    assert {line.split(",")[1] for line in lines[1:]} == {'"CD3"', '"CD3E"', '"<script>"'}
    page.locator(".picked th button").first.click()
    wait_for_legend(page, "CD3, log-ratio")
    assert "200 of 600 cells selected" in picked(page), "another colour keeps the selection"
    assert "mean CD3 (log-ratio): " in picked(page)


def test_a_gene_that_the_selected_cell_alone_has_is_its_first_marker(chromium, tmp_path):
    """Without any variance its t was 0, and the gene was not listed."""
    alone = np.arange(N) == 7
    genes = pd.DataFrame({"some": np.random.default_rng(0).uniform(size=N), "ALONE": alone * 2.0, "none": 0.0})
    names = [f"cell-{i}" for i in range(N)]
    cells = CellMap(np.c_[np.arange(N), alone], names, {"donor": DONOR}, [Values("gene", "log1p", genes)])
    (tmp_path / "page.html").write_text(html_report("Cells", [Section("Cells", map=cells)]), encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("document.querySelector('.map').ready")
    page.fill(".find", "cell-7")
    page.keyboard.press("Enter")
    page.get_by_text("genes, mean").wait_for()
    assert page.locator(".picked th button").first.inner_text() == "ALONE"
    page.close()


def bars(page):
    text, label = "r.innerText.trim().split(/\\s+/).join(' ')", "r.querySelector('.stack').getAttribute('aria-label')"
    return page.evaluate(f"[...document.querySelectorAll('.bars tr')].map(r => [{text}, {label}])")


def test_composition_by_batch_and_of_one_batch_alone(page):
    third = "0: 33 % (50), 1: 33 % (50), 2: 33 % (50)"
    assert bars(page) == [["d1 150", third], ["d2 450", third.replace("50", "150")]]
    page.locator(".legend button").first.click()
    assert bars(page)[0] == ["d1 50", "0: 100 % (50)"], "of the selected cells"
    page.select_option(".only", label="d1")
    assert page.evaluate(LEGEND) == [["050", "false"], ["150", "false"], ["250", "false"]]
    assert bars(page) == [["d1 150", third]]
    page.select_option(".of", label="type")
    assert bars(page)[0][1] == "B: 33 % (50), T: 33 % (50), not labelled: 33 % (50)"
    page.select_option(".only", label="all cells")
    assert page.evaluate(LEGEND)[0] == ["0200", "false"]


def test_a_class_is_selected_among_the_cells_that_are_shown(page):
    """Hidden cells were selected and saved as well, and the shares of the types were those of all of them."""
    page.select_option(".only", label="d1")
    page.locator(".legend button").first.click()
    assert "50 of 600 cells selected" in picked(page)
    assert "d1\t50\t100 %" in picked(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save cell names").click()
    assert len(Path(download.value.path()).read_text(encoding="utf-8").split()) == 50


def test_the_whole_map_fits_on_a_laptop_screen(page):
    page.set_viewport_size({"width": 1280, "height": 900})
    box = page.locator("canvas").bounding_box()
    assert box["y"] + box["height"] <= 900


def test_a_wide_figure_scrolls_instead_of_shrinking(chromium, tmp_path):
    """The heat map of 224 proteins was drawn at a fifth of its size, with names that nobody can read."""
    wide = Figure(matplotlib.figure.Figure(figsize=(50, 1)), "Proteins.", "heat map")
    (tmp_path / "r.html").write_text(html_report("Wide", [Section("Markers", figures=[wide])]), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "r.html").as_uri())
    assert page.locator("img").bounding_box()["width"] >= 0.5 * wide.width
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    page.emulate_media(media="print")
    assert page.locator("img").bounding_box()["width"] <= 1280
    page.close()


def test_of_two_colours_asked_for_at_once_the_last_is_shown(page):
    """A protein is unpacked before it is shown: done late, it took the place of what was chosen after it."""
    chosen = """labels => {
        const by = document.querySelector(".by");
        for (const label of labels) {
            by.value = [...by.options].find(option => option.text === label).value;
            by.dispatchEvent(new Event("change"));
        }
    }"""
    page.evaluate(chosen, ["CD3", "type"])
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelector('.by').selectedOptions[0].text") == "type"
    assert "not labelled: 200" in page.locator(".legend").inner_text()


def test_pointing_at_a_cell_tells_of_it(page):
    page.fill(".find", "cell-0")
    page.keyboard.press("Enter")
    settle(page)
    box = page.locator("canvas").bounding_box()
    page.select_option(".by", label="CD3")
    wait_for_legend(page, "CD3, log-ratio")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator(".tip").inner_text()
    assert "cell-0" in tip
    assert "CD3: not measured" in tip
    page.mouse.move(5, 5)
    assert page.locator(".tip").is_hidden()
    page.fill(".find", "cell-1")
    page.keyboard.press("Enter")
    settle(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert re.search(r"CD3: [\d.]+ \(log-ratio\)", page.locator(".tip").inner_text())


def test_what_is_told_of_a_cell_begins_inside_the_map(page):
    """With many obs columns, the name of the cell and the first of them were above the map, and hidden."""
    page.fill(".find", "cell-0")
    page.keyboard.press("Enter")
    settle(page)
    page.add_style_tag(content=".tip { padding-bottom: 300px !important; }")
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator(".tip").bounding_box()["y"] >= box["y"]


def test_a_tap_tells_of_a_cell(chromium, file):
    """On a phone, no cell could be pointed at."""
    phone = chromium.new_context(has_touch=True, viewport={"width": 390, "height": 800})
    page = phone.new_page()
    page.goto(file.as_uri())
    page.evaluate("document.querySelector('.map').ready")
    page.fill(".find", "cell-0")
    page.keyboard.press("Enter")
    settle(page)
    page.locator("canvas").tap()
    assert "cell-0" in page.locator(".tip").inner_text()
    page.locator("canvas").tap(position={"x": 2, "y": 2})
    assert page.locator(".tip").is_hidden()
    phone.close()


def test_zoom_and_move_by_button_wheel_and_keys_and_back(page):
    start, canvas = settle(page), page.locator("canvas")
    for act in (
        lambda: page.get_by_role("button", name="Zoom in").click(),
        lambda: canvas.press("ArrowLeft"),
        lambda: canvas.press("+"),
        lambda: (canvas.focus(), canvas.hover(), page.mouse.wheel(0, -300)),
        lambda: drag(page, [(300, 500), (350, 520)]),
        lambda: page.get_by_role("button", name="Zoom out").click(),
    ):
        page.get_by_role("button", name="Show all").click()
        before = settle(page)
        act()
        page.wait_for_timeout(50)
        assert settle(page) != before
    page.get_by_role("button", name="Show all").click()
    assert settle(page) == start
    page.locator(".named").uncheck()
    assert settle(page) != start


def test_a_name_wider_than_the_map_is_shown_from_its_beginning(page):
    """On a phone, long names of classes were cut off before the words in which they differ."""
    page.set_viewport_size({"width": 390, "height": 800})
    settle(page)
    written = page.evaluate("""() => {
        const pen = document.querySelector("canvas").getContext("2d"), begins = [];
        pen.fillText = (name, x) => begins.push(x - pen.measureText(name).width / 2);
        pen.measureText = () => ({ width: 500 });
        document.querySelector(".whole").click();
        return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(begins))));
    }""")
    assert written and min(written) >= 0


def test_dark_narrow_and_on_paper(page):
    light = settle(page, LIGHT)
    page.emulate_media(color_scheme="dark")
    assert settle(page, LIGHT) < light / 2
    page.pdf()
    assert settle(page, LIGHT) < light / 2, "paper is light, and the screen dark again after it"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("summary", has_text="Settings").click()
    assert page.get_by_text("seed").is_visible()


def test_the_map_keeps_its_proportions_on_paper(page):
    """It was drawn for the screen and stretched: circles were ovals, and names half as large as the text."""
    shape = "(canvas => canvas.width / canvas.height)(document.querySelector('canvas'))"
    drawn = page.evaluate(f"(dispatchEvent(new Event('beforeprint')), {shape})")
    page.emulate_media(media="print")
    box = page.locator("canvas").bounding_box()
    assert drawn == pytest.approx(box["width"] / box["height"], rel=0.01)


def test_the_means_of_a_selection_are_printed_with_their_names(page):
    """The names, which are buttons, were left out with the buttons, and the first page was empty."""
    page.locator(".legend button").nth(2).click()
    page.get_by_text("proteins, mean").wait_for()
    page.emulate_media(media="print")
    assert page.locator(".picked th", has_text="CD3").first.inner_text() == "CD3"
    assert page.get_by_role("button", name="Save cell names").is_hidden()
    assert page.locator(".canvas").bounding_box()["height"] < 350, (
        "a map as high as the tables starts a page of its own"
    )
