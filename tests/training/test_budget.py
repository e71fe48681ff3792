import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.training import budget

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GiB", 6 * 2**30), ("4GB", 4 * 10**9), ("1.5 gib", 3 * 2**29), ("500M", 500 * 10**6), ("64KiB", 2**16),
        ("2T", 2 * 10**12), ("123456", 123456), (123456, 123456), ("7B", 7),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text, size):
    assert budget.parse_size(text) == size


@pytest.mark.parametrize("text", ["lots", "6 GiB each", "-1", "0", "0GB", "", "6XB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SettingError, match="must be a size like 6GiB, 4GB or a number of bytes, not"):
        budget.parse_size(text)


@pytest.fixture
def system(tmp_path):
    """Return a function that writes the files by which Linux tells of its memory."""

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


def test_what_is_available_is_free_where_no_group_limits_it(system):
    unlimited = group("sys/fs/cgroup", "max\n", "77\n", 0)
    assert budget.free(CPU, root=system(**unlimited)) == 4000 * 1024


@pytest.mark.parametrize(
    ("own", "folder", "version"),
    [
        ("0::/", "sys/fs/cgroup", 2),
        ("0::/jobs/mine", "sys/fs/cgroup/jobs/mine", 2),
        ("0::/jobs/mine", "sys/fs/cgroup/jobs", 2),  # the group above limits, too
        ("0::/as/the/host/sees/it", "sys/fs/cgroup", 2),
        ("8:pids:/\n4:memory:/job\n0::/", "sys/fs/cgroup/memory/job", 1),
    ],
)
def test_the_limit_of_a_control_group_counts_its_cache_being_spare(system, own, folder, version):
    root = system(**{"proc/self/cgroup": f"{own}\n"}, **group(folder, "3000000", "1200000", 200000, version=version))
    assert budget.free(CPU, root=root) == 2_000_000


def test_a_group_beyond_its_limit_leaves_nothing(system):
    assert budget.free(CPU, root=system(**group("sys/fs/cgroup", "1000", "1200", 0))) == 0


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path):
    assert budget.free(CPU, root=tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what a process holds")
def test_what_the_process_holds_grows_with_what_it_fills():
    before = budget.in_use(CPU)
    pages = mmap.mmap(-1, 2**26)  # of the system, where a tensor may lie in memory that was freed before
    np.frombuffer(pages, dtype=np.uint8)[:] = 1
    assert budget.in_use(CPU) - before == pytest.approx(len(pages), rel=0.1)
