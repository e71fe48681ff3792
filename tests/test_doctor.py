import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from scfusionttt import doctor
from scfusionttt.ttt import BACKENDS


@pytest.fixture(scope="module")
def report():
    return doctor.examine()


def test_every_cpu_kernel_agrees_with_the_definition(report):
    rows = {row["kernel"]: row for row in report["kernels"] if row["device"] == "cpu"}
    assert {"chunked", "cpu"} <= set(rows) <= set(BACKENDS)
    for row in rows.values():
        assert row["works"] == "yes", row
        assert float(row["difference"]) <= doctor.TOLERANCE
        assert row["ns per token-head"] > 0


def test_the_report_has_versions_and_devices(report):
    assert report["versions"]["torch"] == version("torch")
    assert report["devices"]["cpu"] == f"{torch.get_num_threads()} threads"


def test_failing_and_differing_kernels_are_reported(monkeypatch):
    run = doctor.ttt_linear

    def broken(*, backend, **arguments):
        if backend == "cpu":
            raise RuntimeError("no compiler\nmore")
        out, loss, state = run(**arguments, backend=backend)
        return (2 * out if backend == "chunked" else out), loss, state

    monkeypatch.setattr(doctor, "ttt_linear", broken)
    rows = {row["kernel"]: row for row in doctor.examine()["kernels"] if row["device"] == "cpu"}
    assert (rows["cpu"]["works"], rows["cpu"]["note"]) == ("no", "no compiler")
    assert rows["chunked"]["works"] == "no"
    assert float(rows["chunked"]["difference"]) >= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_kernel_without_a_device_shows_the_reason(report):
    row = next(row for row in report["kernels"] if row["kernel"] == "gpu")
    assert (row["device"], row["works"], row["note"]) == ("cuda", "no", "there is no CUDA device")


def test_the_command_prints_and_writes_the_report(scfusionttt, tmp_path, monkeypatch, report):
    monkeypatch.setattr(doctor, "examine", lambda: report)
    result = scfusionttt(f"doctor --json {tmp_path}/doctor.json")
    assert (result.code, result.err) == (0, "")
    assert "(on a CPU: per second of one core)" in result.out, "the time of all threads is added up"
    lines = [line.split() for line in result.out.splitlines()]
    assert ["torch", version("torch")] in lines
    assert {"chunked", "cpu"} <= {line[0] for line in lines if line[2:3] == ["yes"]}
    assert json.loads(Path(tmp_path / "doctor.json").read_text()) == report


def test_people_read_tokens_per_second_and_no_missing_numbers():
    works = {"kernel": "cpu", "device": "cpu", "works": "yes", "difference": "7.4e-07", "ns per token-head": 1000}
    absent = {"kernel": "gpu", "device": "cuda", "works": "no", "difference": None, "ns per token-head": None}
    table = doctor.kernel_table([works | {"note": ""}, absent | {"note": "there is no CUDA device"}])
    assert table.loc["cpu"].tolist() == ["cpu", "yes", "7.4e-07", "1,000,000", ""]
    assert table.loc["gpu"].tolist() == ["cuda", "no", "-", "-", "there is no CUDA device"]
