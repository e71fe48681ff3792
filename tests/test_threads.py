import os
import subprocess
import sys
from pathlib import Path

import pytest

import scfusionttt

STARTS_NUMBA = {
    "neighbours and UMAP": "from scfusionttt.evaluation.clustering import neighbours, umap; umap(neighbours(x))",
}


@pytest.mark.parametrize("name", STARTS_NUMBA)
def test_torch_keeps_its_threads(name):
    """Numba took all cores of a cluster's node for torch, too, where OMP_NUM_THREADS allowed it one."""
    code = "import numpy as np, torch; x = np.random.default_rng(0).normal(size=(60, 20))\n"
    code += STARTS_NUMBA[name] + "\nprint('threads', torch.get_num_threads())"
    path = os.pathsep.join([str(Path(scfusionttt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert result.stdout.splitlines()[-1] == "threads 1"
