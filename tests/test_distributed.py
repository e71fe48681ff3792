"""Several processes train one model: the numbers are those of one process, and a lost process loses nothing."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from torch.distributed import DistNetworkError

from scfusionttt.errors import LostRankError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.training.distributed import lost_process_reported

# Dropout's random numbers are a rank's own.
PRETRAIN = (
    "pretrain cells.h5mu --preset fast --epochs 3 --set network.width=16 --set network.encoder_blocks=1 "
    "--set network.dropout=0 --set pretrain.batch_size=50 --device cpu"
)
FINETUNE = (
    "finetune cells.h5mu --model one --labels cell_type --train-fraction 0.7 --set finetune.classifier=finetune "
    "--set finetune.epochs=2 --set finetune.batch_size=40 --device cpu"
)
TRANSFER = (
    "transfer rna.h5ad --model typed --labels cell_type --set finetune.classifier=finetune "
    "--set finetune.epochs=2 --device cpu"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, cells, rna_cells, trained):
    """A folder with cells, and models that one process trained."""
    place = tmp_path_factory.mktemp("ranks")
    with quiet():
        cells.write_h5mu(place / "cells.h5mu")
        rna_cells.write_h5ad(place / "rna.h5ad")
    trained.finetuned.save(place / "typed")
    done(start(f"{PRETRAIN} --out one", place))
    return place


def start(command, cwd, launcher=()):
    environ = {name: value for name, value in os.environ.items() if not re.match("RANK|WORLD|SLURM|MASTER", name)}
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "scfusionttt.cli", *command.split()],
        cwd=cwd, env={**environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def done(run):
    out, err = run.communicate(timeout=3000)
    assert run.returncode == 0, err
    return out, err


def losses(model):
    table = pd.read_csv(model / "history.csv")
    return table.filter(regex="loss|rna|protein|projection|accuracy")


def weights(model):
    return (model / "weights.safetensors").read_bytes()


def others_of(run):
    """Return the processes that a run started."""
    found = subprocess.run(["ps", "--ppid", str(run.pid), "-o", "pid="], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def test_a_process_that_is_lost_while_others_join_it_is_reported():
    """This is all that torch says of a pipe whose other end is gone; it ended with a traceback."""
    with pytest.raises(LostRankError), lost_process_reported():
        raise DistNetworkError("Broken pipe")


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_ranks_learn_as_one_process_with_the_whole_batch_does(n, place):
    _, output = done(start(f"{PRETRAIN} --devices {n} --out several-{n}", place))
    assert output.count("pretrain epoch 3/3") == 1, "one of them speaks"
    np.testing.assert_allclose(losses(place / f"several-{n}"), losses(place / "one"), rtol=2e-5)
    assert not (place / f"several-{n}.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [FINETUNE, TRANSFER])
def test_later_stages_learn_alike_too(command, place):
    stage = command.split()[0]
    for n in (1, 2):
        done(start(f"{command} --devices {n} --out {stage}-{n}", place))
    # The head begins where a solver stopped, and rounding moves that by some 1e-4.
    np.testing.assert_allclose(losses(place / f"{stage}-2"), losses(place / f"{stage}-1"), rtol=1e-3)


@pytest.mark.slow
def test_a_head_alone_is_fitted_alike_too(place):
    for n in (1, 2):
        done(
            start(
                f"finetune cells.h5mu --model one --labels cell_type --devices {n} --device cpu --out head-{n}", place
            )
        )
        done(start(f"predict cells.h5mu --model head-{n} --out named-{n}.csv", place))
    alone, shared = (pd.read_csv(place / f"named-{n}.csv", index_col="cell") for n in (1, 2))
    pd.testing.assert_frame_equal(alone, shared, atol=1e-3)


@pytest.mark.slow
def test_cells_are_embedded_and_named_in_the_order_of_the_input(place):
    for n in (1, 3):
        done(start(f"embed cells.h5mu --model one --devices {n} --out z{n}.npy", place))
        done(start(f"predict cells.h5mu --model typed --devices {n} --out t{n}.csv", place))
    np.testing.assert_allclose(np.load(place / "z1.npy"), np.load(place / "z3.npy"), rtol=1e-4, atol=1e-6)
    alone, joined = (pd.read_csv(place / f"t{n}.csv", index_col="cell") for n in (1, 3))
    pd.testing.assert_frame_equal(alone, joined, rtol=1e-4)


@pytest.mark.slow
def test_torchrun_starts_the_processes(place):
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    done(start(f"{PRETRAIN} --devices 2 --out by-torchrun", place, torchrun))
    np.testing.assert_allclose(losses(place / "by-torchrun"), losses(place / "one"), rtol=2e-5)


@pytest.mark.slow
def test_a_run_that_lost_a_process_goes_on_bit_for_bit(place):
    done(start(f"{PRETRAIN} --devices 2 --out whole", place))
    run = start(f"{PRETRAIN} --devices 2 --out stopped", place)
    while " epoch 1/" not in run.stderr.readline():
        assert run.poll() is None
    os.kill(others_of(run)[0], signal.SIGKILL)
    _, output = run.communicate(timeout=3000)
    assert run.returncode == 2, output
    assert output.splitlines()[-1] == (
        "scfusionttt: another process of this run was lost; continue a training run with --resume"
    )
    done(start(f"{PRETRAIN} --devices 2 --out stopped --resume", place))
    assert weights(place / "stopped") == weights(place / "whole")


def test_more_machines_than_one_need_a_launcher(scfusionttt, tmp_path):
    result = scfusionttt(f"embed x.h5mu --model m --out {tmp_path}/z.npy --nodes 2")
    assert result.code == 2
    assert "start this command on each machine with torchrun or srun" in result.err


def test_the_number_of_processes_must_be_that_of_the_call(scfusionttt, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    result = scfusionttt(f"embed x.h5mu --model m --out {tmp_path}/z.npy --devices 2")
    assert result.code == 2
    assert "expected 2 processes (2 devices x 1 nodes), found 4" in result.err
