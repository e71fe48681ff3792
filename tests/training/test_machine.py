import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.training import distributed, machine
from scfusionttt.training.machine import choose_device
from support import run_python

CPU = torch.device("cpu")
FAULTS = """
import resource
import torch
from scfusionttt.training.machine import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        kept = [torch.zeros(2_000_000) for _ in range(4)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

with freed_memory_kept():
    faults()
    again, held = faults(), resident()
print(again, held - resident())
"""


@pytest.fixture
def system(tmp_path):
    """Return a function that writes the files by which Linux reports its memory."""

    def write(**files):
        for path, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n", **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write


def group(folder, limit, usage, spare, *, version=2):
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"anon 5\n{'' if version == 2 else 'total_'}inactive_file {spare}\n"
    return dict(zip((f"{folder}/{name}" for name in (*names, "memory.stat")), (limit, usage, stat), strict=True))


def test_available_memory_is_free_without_a_control_group(system):
    unlimited = group("sys/fs/cgroup", "max\n", "77\n", 0)
    assert machine.free(CPU, root=system(**unlimited)) == 4000 * 1024


@pytest.mark.parametrize(
    ("own", "folder", "version"),
    [
        ("0::/", "sys/fs/cgroup", 2),
        ("0::/jobs/mine", "sys/fs/cgroup/jobs/mine", 2),
        ("0::/jobs/mine", "sys/fs/cgroup/jobs", 2),  # the parent group's limit counts, too
        ("0::/as/the/host/sees/it", "sys/fs/cgroup", 2),
        ("8:pids:/\n4:memory:/job\n0::/", "sys/fs/cgroup/memory/job", 1),
    ],
)
def test_the_limit_of_a_control_group_counts_and_its_cache_is_free(system, own, folder, version):
    root = system(**{"proc/self/cgroup": f"{own}\n"}, **group(folder, "3000000", "1200000", 200000, version=version))
    assert machine.free(CPU, root=root) == 2_000_000


def test_a_group_beyond_its_limit_has_nothing_free(system):
    assert machine.free(CPU, root=system(**group("sys/fs/cgroup", "1000", "1200", 0))) == 0


def test_unknown_free_memory_is_none(tmp_path):
    assert machine.free(CPU, root=tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux reports the memory of a process")
def test_memory_in_use_grows_by_the_pages_that_are_written():
    before = machine.in_use(CPU)
    pages = mmap.mmap(-1, 2**26)  # of the system, where a tensor may lie in memory that was freed before
    np.frombuffer(pages, dtype=np.uint8)[:] = 1
    assert machine.in_use(CPU) - before == pytest.approx(len(pages), rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="about GNU's C library")
@pytest.mark.parametrize("settings", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_freed_memory_is_reused_by_the_next_step_unless_the_user_set_the_thresholds(settings):
    """Each of a training step's 24,000 pages was cleared by the system again: a tenth of the step."""
    unset = dict.fromkeys(name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_")))
    again, given_back = map(int, run_python(FAULTS, **unset | settings).split())
    if settings:
        assert again > 20_000
    else:
        assert again < 1000
        assert given_back > 20_000_000


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", "0"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(SettingError, match=f"unknown device '{name}'; choose auto, cpu, cuda, cuda:0 or mps"):
        choose_device(name)


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that pretends that the machine has so many NVIDIA GPUs, and Apple's or not."""

    def pretend(n, *, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


def test_auto_takes_the_fastest_device_available(gpus):
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == choose_device(CPU) == CPU
    gpus(0, mps=True)
    assert choose_device("auto") == torch.device("mps")
    gpus(2)
    assert choose_device("auto") == torch.device("cuda")


def test_one_of_several_gpus_can_be_chosen_by_number(gpus):
    """`choose_device(torch.device("cuda:0"))` was refused as an unknown device."""
    gpus(2)
    assert choose_device(torch.device("cuda:0")) == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SettingError, match="'cuda:2' does not exist: the last one on this machine is cuda:1"):
        choose_device("cuda:2")


def test_an_unavailable_device_is_refused(gpus):
    gpus(0)
    for name in ("cuda", "cuda:0", torch.device("cuda:0")):
        with pytest.raises(SettingError, match=f"'{name}' is not available on this machine; choose auto or cpu"):
            choose_device(name)


def test_lightning_trains_on_the_chosen_gpu(gpus):
    assert distributed.trainer_options(torch.device("cuda:1"))["devices"] == [1]
    assert distributed.trainer_options(torch.device("cuda"))["devices"] == 1
