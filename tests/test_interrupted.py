"""A run stopped at any moment and resumed ends with the weights of an uninterrupted run, bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

if sys.platform == "win32":
    pytest.skip("Windows has no SIGKILL", allow_module_level=True)

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
NETWORK = {"width": 16, "encoder_blocks": 1}
TRAINING = {"epochs": 5, "batch_size": 32}
PRETRAIN = ["pretrain", "cells.h5mu", "--preset", "fast"]
PRETRAIN += [f"--set=network.{name}={value}" for name, value in NETWORK.items()]
PRETRAIN += [f"--set=pretrain.{name}={value}" for name, value in TRAINING.items()]


def start(out, *more, cwd):
    command = [sys.executable, "-m", "scfusionttt.cli", *PRETRAIN, "--out", out, *more]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cells):
    """A folder with cells and the model of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with quiet():
        cells.write_h5mu(folder / "cells.h5mu")
    model = FusionTTT("fast", progress=False, network=NETWORK, pretrain=TRAINING)
    model.pretrain(read(folder / "cells.h5mu")).save(folder / "model")
    return folder


def stop_and_resume(folder, out, stops):
    """Stop a run at each of `stops` (signal, epoch lines to wait for, seconds to wait then); resume it to its end."""
    for i, (stop, epochs, delay) in enumerate(stops):
        run = start(out, *["--resume"] * (i > 0), cwd=folder)
        seen = 0
        while seen < epochs and (line := run.stderr.readline()):
            seen += " epoch " in line
        time.sleep(delay)
        run.send_signal(stop)
        err = run.communicate(timeout=600)[1]
        if run.returncode == 0:  # it ended before the signal arrived
            return
        # Python itself was not loaded yet: no message, and nothing to resume
        if not epochs and (run.returncode == -stop or "KeyboardInterrupt" in err):
            continue
        assert run.returncode == ENDS[stop], err
        if stop != signal.SIGKILL and epochs:
            assert err.splitlines()[-1].startswith("scfusionttt: "), err
            saved = any((folder / f"{out}.training").glob("*.ckpt"))
            assert ("continue the run with --resume" in err) == saved
            assert "Traceback" not in err
    run = start(out, "--resume", cwd=folder)
    err = run.communicate(timeout=600)[1]
    assert run.returncode == 0, err


def test_a_killed_run_resumes_bit_for_bit(uninterrupted):
    stop_and_resume(uninterrupted, "twice", [(signal.SIGTERM, 1, 0.0), (signal.SIGKILL, 2, 0.0)])
    assert weights(uninterrupted / "twice") == weights(uninterrupted / "model")
    assert not Path(uninterrupted / "twice.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_three_stops_at_random_moments_leave_no_trace(seed, uninterrupted):
    """Thirty in all: between the lines of two epochs, in steps, validation and while a checkpoint is written."""
    rng = np.random.default_rng(seed)
    stops = [(rng.choice(list(ENDS)), int(rng.integers(0, 3)), float(rng.uniform(0, 0.4))) for _ in range(3)]
    stop_and_resume(uninterrupted, f"random-{seed}", [(signal.Signals(stop), *rest) for stop, *rest in stops])
    assert weights(uninterrupted / f"random-{seed}") == weights(uninterrupted / "model")
