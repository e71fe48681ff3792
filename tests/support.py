"""What tests of several folders do."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from scfusionttt.io.quiet_warnings import quiet


def copied(data):
    """Return a copy of cells, without the warnings of mudata."""
    with quiet():
        return data.copy()


def without_column(mdata, name):
    """Return a copy of a MuData whose obs, and those of its modalities, lack a column."""
    mdata = copied(mdata)
    for part in (mdata, *mdata.mod.values()):
        part.obs = part.obs.drop(columns=name, errors="ignore")
    return mdata


def of_another_study(mdata):
    """Return a copy of CITE-seq cells as if other antibodies had stained them."""
    mdata = copied(mdata)
    protein = mdata["prot"]
    protein.X = np.round(protein.X * np.resize([20, 0], protein.n_vars)).astype(np.float32)
    return mdata


@contextmanager
def raises_one_line(error, *words):
    """Expect an error whose message is one line with all of these words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def run_python(code, *arguments, cwd=None, **environment):
    """Run code in a process of its own and return what it prints; environment variables that are None are not set."""
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
