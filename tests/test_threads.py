import os
import subprocess
import sys
from pathlib import Path

import pytest

import scfusionttt
from scfusionttt.threads import SPINS

STARTS_NUMBA = {
    "neighbours and UMAP": "from scfusionttt.evaluation.clustering import neighbours, umap; umap(neighbours(x))",
}


@pytest.mark.parametrize("name", STARTS_NUMBA)
def test_torch_keeps_its_threads(name):
    """Numba took all cores of a cluster's node for torch, too, where OMP_NUM_THREADS allowed it one."""
    code = "import numpy as np, torch; x = np.random.default_rng(0).normal(size=(60, 20))\n"
    code += STARTS_NUMBA[name] + "\nprint('threads', torch.get_num_threads())"
    assert told(code, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="2") == "threads 1"


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(given, spins):
    """Torch's spun for milliseconds on the second core: the kernel on two threads was no faster than on one."""
    code = "import sys, os, scfusionttt; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert told(code, **given) == spins


def told(code, **settings):
    """Return the last line that code prints in a process of its own."""
    path = os.pathsep.join([str(Path(scfusionttt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env |= {"PYTHONPATH": path, **settings}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return result.stdout.splitlines()[-1]
