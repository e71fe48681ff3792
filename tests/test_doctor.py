import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from scfusionttt import doctor
from scfusionttt.ttt import BACKENDS


@pytest.fixture(scope="module")
def findings():
    return doctor.examine()


def test_every_kernel_of_the_processor_agrees_with_the_definition(findings):
    rows = {row["kernel"]: row for row in findings["kernels"] if row["device"] == "cpu"}
    assert {"chunked", "cpu"} <= set(rows) <= set(BACKENDS)
    for row in rows.values():
        assert row["works"] == "yes", row
        assert float(row["difference"]) <= doctor.TOLERANCE
        assert row["ns per token-head"] > 0


def test_versions_and_devices(findings):
    assert findings["versions"]["torch"] == version("torch")
    assert findings["devices"]["cpu"] == f"{torch.get_num_threads()} threads"


def test_a_kernel_that_fails_or_differs_is_found(monkeypatch):
    run = doctor._run

    def broken(inputs, backend):
        if backend == "cpu":
            raise RuntimeError("no compiler\nmore")
        return [2 * part if backend == "chunked" else part for part in run(inputs, backend)]

    monkeypatch.setattr(doctor, "_run", broken)
    rows = {row["kernel"]: row for row in doctor.examine()["kernels"] if row["device"] == "cpu"}
    assert (rows["cpu"]["works"], rows["cpu"]["note"]) == ("no", "no compiler")
    assert (rows["chunked"]["works"], rows["chunked"]["difference"]) == ("no", "1.0e+00")


def test_the_command_shows_it_and_writes_it(scfusionttt, tmp_path, monkeypatch, findings):
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    result = scfusionttt(f"doctor --json {tmp_path}/doctor.json")
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["torch", version("torch")] in lines
    assert {"chunked", "cpu"} <= {line[0] for line in lines if line[2:3] == ["yes"]}
    assert json.loads(Path(tmp_path / "doctor.json").read_text()) == findings
