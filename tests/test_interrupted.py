"""A run that is stopped at any moment goes on to the weights of one that was never stopped, bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scfusionttt.io.quiet_warnings import quiet

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
PRETRAIN = (
    "pretrain", "cells.h5mu", "--preset", "fast", "--epochs", "5", "--set", "network.width=16",
    "--set", "network.encoder_blocks=1", "--set", "pretrain.batch_size=32",
)  # fmt: skip


def start(out, *more, cwd):
    command = [sys.executable, "-m", "scfusionttt.cli", *PRETRAIN, "--out", out, *more]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, cells):
    """A folder with cells and the model of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    with quiet():
        cells.write_h5mu(folder / "cells.h5mu")
    run = start("model", cwd=folder)
    told = run.communicate(timeout=600)[1]
    assert run.returncode == 0, told
    return folder


def stop_and_go_on(unbroken, out, stops):
    """Stop a run as the stops say (signal, epoch lines to wait for, seconds more), going on each time; then end it."""
    for i, (stop, epochs, delay) in enumerate(stops):
        run = start(out, *["--resume"] * (i > 0), cwd=unbroken)
        seen = []
        while len(seen) < epochs and (line := run.stderr.readline()):
            seen += [line] if " epoch " in line else []
        time.sleep(delay)
        run.send_signal(stop)
        told = run.communicate(timeout=600)[1]
        if run.returncode == 0:  # it was done before the signal came
            return
        # Python itself was not yet loaded: nothing to tell, nothing to go on from
        if not epochs and (run.returncode == -stop or "KeyboardInterrupt" in told):
            continue
        assert run.returncode == ENDS[stop], told
        if stop != signal.SIGKILL and epochs:
            assert told.splitlines()[-1].startswith("scfusionttt: "), told
            assert "continue the run with --resume" in told
            assert "Traceback" not in told
    run = start(out, "--resume", cwd=unbroken)
    told = run.communicate(timeout=600)[1]
    assert run.returncode == 0, told


def test_a_killed_run_goes_on_bit_for_bit(unbroken):
    stop_and_go_on(unbroken, "twice", [(signal.SIGTERM, 1, 0.0), (signal.SIGKILL, 2, 0.0)])
    assert weights(unbroken / "twice") == weights(unbroken / "model")
    assert not Path(unbroken / "twice.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_three_stops_at_random_moments_leave_no_trace(seed, unbroken):
    """Thirty in all: between the lines of two epochs, in steps, validation and while a checkpoint is written."""
    rng = np.random.default_rng(seed)
    stops = [(rng.choice(list(ENDS)), int(rng.integers(0, 3)), float(rng.uniform(0, 0.4))) for _ in range(3)]
    stop_and_go_on(unbroken, f"random-{seed}", [(signal.Signals(stop), *rest) for stop, *rest in stops])
    assert weights(unbroken / f"random-{seed}") == weights(unbroken / "model")
