import base64
import json
import re
import struct

import pytest

from scfusionttt.demo import WRITTEN, Size, _is_demo, run_demo
from scfusionttt.errors import OutputError
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

SMALL = Size(cells=120, genes=200, proteins=4, types=3, query=60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small demo: its folder, and the titles of what it showed."""
    out = tmp_path_factory.mktemp("demo") / "new"
    shown = []
    page = run_demo(out, show=lambda title, table: shown.append((title, table)), size=SMALL)
    assert page == out / "report.html"
    return out, shown


def pictures(page):
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def test_the_page_is_the_report_of_the_model_with_its_transfer(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings[:3] == ["Cells", "Cell types", "Clusters"]
    assert headings[-3:] == ["Transfer to RNA-only cells", "One cell", "Settings, versions and commands"]
    commands = re.search(r"<code>(.*)</code>", page, re.S)[1].splitlines()
    assert [line.split()[1] for line in commands] == ["pretrain", "finetune", "report"]
    assert "<summary>Settings of the model</summary>" in page
    for picture in pictures(page):
        assert picture.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", picture[16:24])
        assert min(width, height) > 200
        assert len(picture) > 5000, "an empty figure is smaller"


def test_the_page_is_self_contained(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"<(?:script src|link|iframe)|@import|url\((?!['\"]?data:)", page)


def test_scores_shown_and_written_are_the_same(demo):
    out, shown = demo
    assert [title.split(":")[0] for title, _ in shown] == [
        "stage 1, unsupervised",
        "stage 2, held-out",
        "stage 3, held-out",
        "stage 3, zero-shot",
    ]
    scores = json.loads((out / "metrics.json").read_text())
    assert set(scores) == {"unsupervised", "finetune", "transfer", "zero-shot"}
    protocols = {name: result["protocol"] for name, result in scores.items()}
    assert protocols == {
        "unsupervised": "unsupervised", "finetune": "held-out", "transfer": "held-out", "zero-shot": "zero-shot",
    }  # fmt: skip
    assert scores["finetune"]["metrics"]["macro_f1"] == shown[1][1]["macro_f1"].item()
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in ("finetune", "transfer", "zero-shot"):
        assert f"{scores[name]['metrics']['macro_f1']:.3f}" in page
    assert scores["transfer"]["n_cells"] == scores["zero-shot"]["n_cells"], "the same cells"


def test_data_and_models_can_be_loaded(demo):
    out, _ = demo
    for name, stage in {"pretrained": "pretrain", "finetuned": "finetune", "transferred": "transfer"}.items():
        assert FusionTTT.load(out / name).stage == stage
    assert read(out / "citeseq.h5mu").n_obs == SMALL.cells
    assert FusionTTT.load(out / "transferred").predict(read(out / "rna.h5ad")).shape == (SMALL.query, 5)


@pytest.mark.parametrize("existing", [["rna.h5ad", "report.html"], ["citeseq.h5mu", "thesis.tex"]])
def test_a_folder_with_other_files_is_left_alone(existing, tmp_path):
    """`demo --out .` had replaced the user's own report.html, rna.h5ad and models of those names."""
    for name in existing:
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="other content and is not overwritten"):
        run_demo(tmp_path, show=print, size=SMALL)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(existing, "mine")


def test_an_earlier_demo_is_recognised(demo):
    out, _ = demo
    assert _is_demo(out) and {path.name for path in out.iterdir()} == set(WRITTEN)


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be created .*; choose another folder"):
        run_demo(tmp_path / "file" / "demo", show=lambda *_: None, size=SMALL)


@pytest.mark.slow
def test_the_full_demo_learns_the_cell_types(tmp_path, scfusionttt):
    result = scfusionttt(f"demo --out {tmp_path}/demo")
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"open {tmp_path}/demo/report.html in a browser"
    scores = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert scores["unsupervised"]["metrics"]["NMI"] > 0.7
    assert scores["finetune"]["metrics"]["macro_f1"] > 0.85
    assert scores["transfer"]["metrics"]["macro_f1"] > 0.5
