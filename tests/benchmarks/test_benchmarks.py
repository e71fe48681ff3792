"""The benchmarks at small sizes; no speed-up is reported if the implementations differ."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import checks, contenders, epoch, scaling, step, targets, training
from benchmarks import operator as layers
from benchmarks.measure import ROOT, peak_memory
from scfusionttt.config import preset
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate
from scfusionttt.ttt import TTTOutput, ttt_linear
from scfusionttt.ttt.parity import make_case

TINY = ["--quick", "--lengths", "33", "70"]


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def wrong(*tensors, **options):
    out = ttt_linear(*tensors, **options).out
    return TTTOutput(out * (1 + 1e-3), None, None)


@pytest.fixture
def few_cells(monkeypatch):
    monkeypatch.setattr(contenders, "TOKENS", 256)


@pytest.mark.slow
def test_every_layer_is_timed_at_every_length(tmp_path, capsys, few_cells):
    assert layers.main([*TINY, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    timed = {(row["layer"], row["tokens"], row["pass"]) for row in figures["results"] if row["ms"] > 0}
    assert len(timed) == len(contenders.CONTENDERS) * 2 * 2
    assert all(row["holds"] for row in figures["check"])
    assert {"date", "cpu", "threads", "versions"} <= figures["environment"].keys()
    assert "times slower than TTT" in capsys.readouterr().out


@pytest.mark.slow
def test_no_speed_up_is_reported_if_the_layers_differ(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checks, "ttt_linear_reference", wrong)
    assert layers.main([*TINY, "--json", str(tmp_path / "figures.json")]) == 1
    printed = capsys.readouterr().out
    assert "nothing was timed, because these checks failed" in printed
    assert "slower" not in printed
    assert json.loads((tmp_path / "figures.json").read_text()).keys() == {"environment", "check"}
    assert scaling.main(["--results", str(tmp_path / "figures.json")]) == 1


def test_a_difference_of_nan_fails_the_check():
    assert not checks.Check("", float("nan"), 1e-5).holds


@pytest.mark.parametrize("script", ["operator.py", "end_to_end.py"])
def test_scripts_do_not_shadow_modules_of_the_same_name(script):
    call = [sys.executable, ROOT / "benchmarks" / script, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mask", [None, torch.arange(2 * 37).view(2, 37) % 5 > 0])
@pytest.mark.parametrize("way", [{}, {"reverse": True}, {"both": True}])
@pytest.mark.parametrize("causal", [False, True])
def test_the_reference_loop_computes_the_operator(causal, way, mask):
    case = make_case(cells=2, tokens=37, head=8, dtype=torch.float64) | {"mask": mask}
    expected = ttt_linear(**case, causal=causal, **way, backend="definition").out
    found = contenders.ttt_linear_reference(**case, causal=causal, **way).out
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_states_of_ssd_are_those_of_a_loop_over_tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = contenders.SSD().double()
        tokens = torch.randn(2, 83, contenders.WIDTH, dtype=torch.float64)
    found = layer(tokens, torch.ones(2, 83, dtype=torch.bool))
    q, k, v = layer.qkv(tokens).unflatten(-1, (3, contenders.HEADS, -1)).unbind(2)
    step = torch.nn.functional.softplus(layer.step(tokens))
    state, mixed = 0.0, []
    for t in range(83):
        left = (-step[:, t] * layer.log_rate.exp()).exp()[..., None, None]
        state = left * state + (step[:, t, :, None] * k[:, t])[..., None] * v[:, t, :, None]
        mixed.append((q[:, t, :, None] @ state).flatten(1))
    torch.testing.assert_close(found, layer.out(layer.norm(torch.stack(mixed, 1))))


def test_a_layer_too_slow_for_the_limit_is_skipped_and_named():
    seconds = {"GRU": (1000, 0.1)}  # a cell: 33 s for nine cells four times as long, if that took the square
    reason = layers._reason_to_skip("GRU", 4000, seconds, limit=10)
    assert reason is not None and re.fullmatch(r"a call may take 14 s, more than --limit 10", reason)
    assert layers._reason_to_skip("GRU", 4000, seconds, limit=20) is None
    assert "up to 1,000" in str(layers._reason_to_skip(contenders.DEFINITION, 1001, {}, limit=10))


@pytest.mark.skipif(peak_memory(lambda: None) is None, reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_that_of_the_allocated_tensor():
    assert peak_memory(lambda: torch.ones(40_000_000, dtype=torch.uint8)) == pytest.approx(40, abs=3)


def figures_that_grow(power):
    rows = [
        {"layer": name, "tokens": t, "pass": kind, "ms": scale * t**power, "MB": 2.0 * t}
        for name, scale in ((targets.TTT, 1.0), (targets.REFERENCE, 9.0))
        for t in (1000, 4000, 20000)
        for kind in (contenders.FORWARD, contenders.BACKWARD)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("power", "met"), [(1.0, True), (1.1, False)])
def test_exponents_are_fitted_and_compared_with_the_target(power, met, tmp_path):
    results = figures_that_grow(power)
    row = scaling.fit(results).loc[targets.TTT]
    assert row["training"] == pytest.approx(power)
    assert row["training memory"] == pytest.approx(1)
    assert row["met"] is met
    scaling.draw(results, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_targets_are_compared_only_if_measured():
    table = targets.compare(figures_that_grow(1.0)).loc["TTT is faster than the reference loop"]
    assert table["tokens"].tolist() == [4000, 20000]
    assert table["ratio"].tolist() == [pytest.approx(9)] * 2
    assert table["met"].tolist() == [True, False]


def test_products_inside_the_operator_are_not_counted_twice():
    def event(name, total, own, parent=None):
        return SimpleNamespace(name=name, cpu_time_total=total, self_cpu_time_total=own, cpu_parent=parent)

    operator = event("_TTTLinear", 10, 2)
    events = [operator, event("aten::bmm", 8, 8, operator), event("aten::mm", 5, 4), event("aten::add", 3, 3)]
    assert epoch.microseconds(events) == (4, 10)


@pytest.mark.slow
def test_an_epoch_is_timed_by_phase(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    networks = (training.TTT, training.CHUNKED, training.REFERENCE, "mixer=attention")
    monkeypatch.setattr(training, "NETWORKS", {name: training.NETWORKS[name] for name in networks})
    with quiet():
        simulate(80, 60, 4, 3).write_h5mu(tmp_path / "cells.h5mu")
    given = [str(tmp_path / "cells.h5mu"), "--preset", "fast", "--cells", "70"]
    assert training.main([*given, "--json", str(tmp_path / "epoch.json")]) == 0
    figures = json.loads((tmp_path / "epoch.json").read_text())
    rows = {row["network"]: row for row in figures["epochs"]}
    assert rows.keys() == training.NETWORKS.keys()
    for row in rows.values():
        assert all(row[phase] > 0 for phase in epoch.STEP)
        assert row["process"] == pytest.approx(sum(row[phase] for phase in (*epoch.STEP, epoch.REST)))
    assert 0 < rows[training.TTT]["operator"] < rows[training.TTT]["both"] < 1
    assert rows["mixer=attention"]["operator"] > 0
    assert "totalVI was not measured" in capsys.readouterr().out


def test_no_speed_up_of_an_epoch_is_reported_if_the_losses_differ(capsys):
    columns = {"wall": 1.0, "cores": 1.0, "process": 1.0, "both": 0.5}
    rows = pd.DataFrame([columns] * len(training.NETWORKS), index=list(training.NETWORKS))
    rows["training loss"] = np.where(rows.index == training.CHUNKED, 1.01, 1.0)
    assert not training.report(rows, [], cells=1)
    assert "slower" not in capsys.readouterr().out


def test_the_operations_of_a_step_are_counted_from_its_shapes(tmp_path, capsys):
    """A linear map's products are counted forward and backward; the operator's by its formula, however it runs."""
    tiny = preset("fast").with_settings({"data.n_genes": 80, "network.width": 16, "network.heads": 1})
    flop = {
        variant: step.Step(tiny.with_settings(settings), 4, 3).flop() for variant, settings in step.VARIANTS.items()
    }
    assert flop["TTT"] > flop["none"] > 3 * 2 * 4 * 256 * 80  # the last layer of the gene decoder alone
    twice = step.Step(tiny.with_settings(step.VARIANTS["TTT"]), 8, 3).flop()
    assert 1.9 < twice / flop["TTT"] <= 2.0
    options = ["--presets", "fast", "--cells", "2", "--repeats", "1", "--profile", "--json", str(tmp_path / "s.json")]
    assert step.main(options) == 0
    assert "| matrix products |" in capsys.readouterr().out
    assert [row["step"] for row in json.loads((tmp_path / "s.json").read_text())["rows"]] == [
        "fast, TTT", "fast, TTT in bfloat16", "fast, attention", "fast, none",
    ]  # fmt: skip
