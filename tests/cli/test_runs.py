"""Training runs that are stopped, continued, locked or replaced."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from command_line import SMALL, done
from scfusionttt import cli
from scfusionttt.cli.lock import locked
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.training.callbacks import StepSeed


class Killed(BaseException):
    """What ends a run from outside."""


def test_an_interrupted_run_goes_on(here, scfusionttt, monkeypatch):
    whole = f"pretrain cells.h5mu {SMALL} --epochs 4"
    done(scfusionttt(f"{whole} --out unbroken"))
    seed_step = StepSeed.on_train_batch_start

    def kill(self, trainer, *rest):
        if trainer.current_epoch == 2:
            raise Killed
        seed_step(self, trainer, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StepSeed, "on_train_batch_start", kill)
        scfusionttt(f"{whole} --out broken")
    assert Path("broken.training").is_dir()
    assert not Path("broken").exists()

    refused = scfusionttt(f"{whole} --out broken")
    assert refused.code == 2
    assert refused.err == (
        "scfusionttt: broken.training is from an interrupted run: continue it with --resume, or remove the folder\n"
    )
    result = done(scfusionttt(f"{whole} --out broken --resume"))
    assert "epoch 3/4" in result.err
    assert "epoch 2/4" not in result.err
    assert not Path("broken.training").exists()
    for out in ("unbroken", "broken"):
        done(scfusionttt(f"embed cells.h5mu --model {out} --out {out}.npy"))
    np.testing.assert_array_equal(np.load("unbroken.npy"), np.load("broken.npy"))
    assert list(FusionTTT.load("broken").history["epoch"]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("command", "function", "hint"),
    [
        ("genes CD3E", "scfusionttt.genome.describe", ""),
        ("validate cells.h5mu", "scfusionttt.data.validate.validate", ""),
        ("embed cells.h5mu --model typed --out z.npy", "scfusionttt.io.read.read", ""),
        ("predict cells.h5mu --model typed --out t.csv", "scfusionttt.io.read.read", ""),
        ("report cells.h5mu --model typed --out r.html", "scfusionttt.io.read.read", ""),
        ("pretrain cells.h5mu --out m", "scfusionttt.io.read.read", ""),
        (
            "benchmark cells.h5mu --labels-key cell_type --methods adt",
            "scfusionttt.io.read.read",
            "; run the same command again to continue",
        ),
    ],
)
def test_ctrl_c_exits_with_130_and_suggests_resume_only_if_the_verb_has_it(
    command, function, hint, here, scfusionttt, monkeypatch
):
    """Every verb suggested --resume, which embed, predict, report and validate do not have."""

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    result = scfusionttt(command)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"scfusionttt: interrupted{hint}"


@pytest.mark.parametrize(("epoch", "hint"), [(0, ""), (1, "; continue the run with --resume")])
def test_ctrl_c_suggests_resume_only_if_a_checkpoint_was_saved(epoch, hint, here, scfusionttt, monkeypatch):
    def interrupt(self, trainer, *rest):
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    command = f"pretrain cells.h5mu {SMALL} --epochs 2 --out stopped"
    with monkeypatch.context() as patch:
        patch.setattr(StepSeed, "on_train_batch_start", interrupt)
        result = scfusionttt(command)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"scfusionttt: interrupted{hint}"
    if hint:
        assert "stopped.training is from an interrupted run" in scfusionttt(command).err
    else:
        done(scfusionttt(command))
    assert Path("stopped.training").exists() == bool(hint)


def test_a_model_is_replaced_only_with_overwrite(here, scfusionttt):
    command = f"pretrain cells.h5mu --out m {SMALL}"
    done(scfusionttt(f"{command} --epochs 2"))
    for more in ("", " --resume"):  # nothing is left to resume
        refused = scfusionttt(f"{command} --epochs 1{more}")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "scfusionttt: m is a model already; choose another name, or pass --overwrite to replace it\n"
        )
    assert len(FusionTTT.load("m").history) == 2
    done(scfusionttt(f"{command} --epochs 1 --overwrite"))
    assert len(FusionTTT.load("m").history) == 1
    assert not list(here.glob("*.training"))


def test_two_runs_do_not_write_one_model(here, scfusionttt):
    """Both said "written", and the later one won."""
    with locked(Path("m.training")):
        for more in ("", " --resume"):
            refused = scfusionttt(f"pretrain cells.h5mu --out m {SMALL} --epochs 1{more}")
            assert refused.code == 2
            assert f"m.training is in use by process {os.getpid()} on " in refused.err
    assert not Path("m.training").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_lock_of_a_killed_run_blocks_nothing(here, scfusionttt):
    code = (
        "import os, signal; from pathlib import Path; from scfusionttt.cli.lock import locked\n"
        "with locked(Path('m.training')): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (here / "m.training" / "lock").is_file()
    done(scfusionttt(f"pretrain cells.h5mu --out m {SMALL} --epochs 1 --resume"))
    assert not Path("m.training").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_that_compiled_code_swallows_is_sent_again(monkeypatch):
    """SIGTERM in a callback of Numba's compiler was printed and lost: the command ran on."""
    monkeypatch.setattr(sys, "unraisablehook", cli._send_again)
    before = signal.signal(signal.SIGTERM, cli._terminate)
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(cli.Stopped):
            callback()
            time.sleep(60)
    finally:
        signal.signal(signal.SIGTERM, before)
