import json

import pytest

from benchmarks import gpu_parity
from scfusionttt.ttt.parity import TOLERANCES

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels cannot be tried")


def run(folder):
    """Run the script on the CPU with Triton's interpreter; return its exit code and its output."""
    files = folder / "gpu.json", folder / "gpu.md"
    code = gpu_parity.main(["--device", "cpu", "--quick", "--json", str(files[0]), "--markdown", str(files[1])])
    return code, json.loads(files[0].read_text()), files[1].read_text()


def test_it_shows_parity_and_speed(tmp_path):
    code, figures, markdown = run(tmp_path)
    assert code == 0
    assert [row["holds"] for row in figures["parity"]] == [True, True]
    assert all(row["gradients"] < 1e-5 for row in figures["parity"])
    assert {row["what"]: row["faster"] is not None for row in figures["speed"]}["chunked"]
    assert markdown.count("| SDPA float32 |") == 1


def test_no_speed_is_reported_if_parity_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TOLERANCES, "highest", 0)
    code, figures, _ = run(tmp_path)
    assert code == 1
    assert "not timed, because the parity check failed: head size 32, precision highest" in capsys.readouterr().out
    assert not any(row["what"].startswith("gpu") or row["faster"] for row in figures["speed"])
