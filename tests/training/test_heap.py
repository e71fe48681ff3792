import os
import subprocess
import sys
from pathlib import Path

import pytest

import scfusionttt

FAULTS = """
import resource
import torch
from scfusionttt.training.heap import freed_memory_kept

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


@pytest.mark.skipif(sys.platform != "linux", reason="about GNU's C library")
@pytest.mark.parametrize("settings", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_what_a_step_frees_is_not_mapped_anew_by_the_next_unless_the_user_says_so(settings):
    """Each of a training step's 24,000 pages was cleared by the system again: a tenth of the step."""
    path = os.pathsep.join([str(Path(scfusionttt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    env |= {"PYTHONPATH": path, **settings}
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=env)
    again, given_back = map(int, told.stdout.split())
    if settings:
        assert again > 20_000
    else:
        assert again < 1000
        assert given_back > 20_000_000
