import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data():
    """Folder of real data sets; tests that need it skip, and say so, where it is not set."""
    folder = os.environ.get("SCFUSIONTTT_DATA")
    if not folder:
        pytest.skip("SCFUSIONTTT_DATA is not set: real data are not at hand")
    return Path(folder)
