import importlib.util
import json
from pathlib import Path

import pytest

from scfusionttt.ttt.parity import TOLERANCES

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels cannot be tried")


@pytest.fixture
def gpu_parity(tmp_path):
    """Run the script on the CPU with Triton's interpreter; return its exit code and its output."""
    path = Path(__file__).parents[2] / "benchmarks" / "gpu_parity.py"
    spec = importlib.util.spec_from_file_location("benchmarks.gpu_parity", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run():
        files = tmp_path / "gpu.json", tmp_path / "gpu.md"
        code = module.main(["--device", "cpu", "--quick", "--json", str(files[0]), "--markdown", str(files[1])])
        return code, json.loads(files[0].read_text()), files[1].read_text()

    return run


def test_it_shows_parity_and_speed(gpu_parity):
    code, figures, markdown = gpu_parity()
    assert code == 0
    assert [row["holds"] for row in figures["parity"]] == [True, True]
    assert all(row["gradients"] < 1e-5 for row in figures["parity"])
    assert {row["what"]: row["faster"] is not None for row in figures["speed"]}["chunked"]
    assert markdown.count("| SDPA float32 |") == 1


def test_no_speed_is_reported_if_parity_fails(gpu_parity, monkeypatch, capsys):
    monkeypatch.setitem(TOLERANCES, "highest", 0)
    code, figures, _ = gpu_parity()
    assert code == 1
    assert "not timed, because the parity check failed: head size 32, precision highest" in capsys.readouterr().out
    assert not any(row["what"].startswith("gpu") or row["faster"] for row in figures["speed"])
