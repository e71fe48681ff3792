"""A disk that fills up while a model learns: nothing that was whole is lost, and the run goes on once there is room."""

import os
import shutil
import subprocess

import pytest
import torch

from scfusionttt.io.quiet_warnings import quiet

PRETRAIN = (
    "pretrain {cells} --out {out} --preset fast --epochs 3 --set network.width=16 --set network.encoder_blocks=1 "
    "--set pretrain.batch_size=32"
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of 32 MiB in memory."""
    place = tmp_path_factory.mktemp("disk")
    if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def cells_file(tmp_path_factory, cells):
    with quiet():
        cells.write_h5mu(path := tmp_path_factory.mktemp("input") / "cells.h5mu")
    return path


@pytest.fixture
def undisturbed(scfusionttt, cells_file):
    """The weights of a run with room enough."""
    out = cells_file.with_name("model")
    if not out.exists():
        assert scfusionttt(PRETRAIN.format(cells=cells_file, out=out)).code == 0
    return (out / "weights.safetensors").read_bytes()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill(disk, *, spare):
    """Take all room on the disk but so many bytes; return the file that takes it."""
    with (disk / "other people's data").open("wb") as file:
        taken = shutil.disk_usage(disk).free - spare
        file.write(bytes(taken))
    return disk / "other people's data"


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_a_disk_that_is_full_at_any_moment_loses_nothing(tenth, disk, cells_file, undisturbed, trained, scfusionttt):
    """The checkpoints need nine times the weights: two of them, and one being written, each with Adam's moments."""
    out, state = disk / "model", disk / "model.training"
    trained.pretrained.save(out)
    earlier = content(out)
    filler = fill(disk, spare=tenth * 9 * len(undisturbed) // 10)
    command = f"{PRETRAIN.format(cells=cells_file, out=out)} --overwrite"
    for more in ("", " --resume"):  # still full at the second
        stopped = scfusionttt(command + more)
        assert stopped.code == 2, stopped.err
        line = stopped.err.splitlines()[-1]
        assert line.startswith("scfusionttt: ")
        assert "the disk is full; nothing was changed" in line
        assert "model.training" in line
        assert content(out) == earlier
        whole = sorted(path.name for path in state.iterdir()) if state.exists() else []
        assert set(whole) <= {"best.ckpt", "last.ckpt", "run.json"}, "no half-written file stays"
        for path in state.glob("*.ckpt"):
            torch.load(path, weights_only=True)
    filler.unlink()
    assert scfusionttt(command + " --resume").code == 0
    assert (out / "weights.safetensors").read_bytes() == undisturbed
    assert not state.exists()
    shutil.rmtree(out)
