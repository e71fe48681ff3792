import pytest

from scfusionttt.threads import SPINS
from support import run_python

THREADS = "\nprint('threads', torch.get_num_threads())"


def last_line(code, **environment):
    """Return the last line that code prints in a process of its own."""
    unset = {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None}
    return run_python(code, **unset | environment).splitlines()[-1]


@pytest.mark.parametrize(("inside", "threads"), [("threads_kept()", 1), ("nullcontext()", 2)])
def test_numba_leaves_torch_its_threads(inside, threads):
    """Numba gave torch every core of a cluster's node, although OMP_NUM_THREADS allowed it one."""
    code = "import torch; from contextlib import nullcontext; from scfusionttt.threads import threads_kept\n"
    code += f"with {inside}:\n    import numba; numba.config.THREADING_LAYER = 'omp'; numba.get_num_threads()" + THREADS
    assert last_line(code, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="2") == f"threads {threads}"


@pytest.mark.parametrize(("allowed", "threads"), [("1", 1), ("1,4", 1), ("many", 2)])
def test_torch_loaded_after_numba_has_its_threads(allowed, threads):
    """Cells were clustered before a model was loaded: torch then took every core, and gave other last bits."""
    code = "from scfusionttt.threads import threads_kept\nwith threads_kept():\n"
    code += "    import numba; numba.config.THREADING_LAYER = 'omp'; numba.get_num_threads()\nimport torch" + THREADS
    assert last_line(code, OMP_NUM_THREADS=allowed, NUMBA_NUM_THREADS="2") == f"threads {threads}"


@pytest.mark.slow
def test_neighbours_and_umap_leave_torch_its_threads():
    code = "import numpy as np, torch; from scfusionttt.evaluation.clustering import neighbours, umap\n"
    code += "umap(neighbours(np.random.default_rng(0).normal(size=(60, 20))))" + THREADS
    assert last_line(code, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="2") == "threads 1"


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_idle_threads_sleep_soon_unless_the_user_chose_otherwise(given, spins):
    """Torch's idle threads kept the second core busy for milliseconds: two threads were no faster than one."""
    code = "import sys, os, scfusionttt; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert last_line(code, **given) == spins
