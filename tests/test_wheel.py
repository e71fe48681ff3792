"""The built file works where nothing else is installed: every table, template and reference is in it."""

import json
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.reference import find
from scfusionttt.simulation.simulate import simulate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel in the folder SCFUSIONTTT_DIST, or one that is built now."""
    folder = ROOT / os.environ.get("SCFUSIONTTT_DIST", "") if "SCFUSIONTTT_DIST" in os.environ else None
    if folder is None:
        folder = tmp_path_factory.mktemp("dist")
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT), cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the programs of an environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    constraints = str(ROOT / "constraints.txt")
    run(programs / "python", "-m", "pip", "install", "--no-cache-dir", "-c", constraints, str(wheel), cwd=folder)
    return programs


def test_the_wheel_annotates_trains_and_reports(installed, tmp_path):
    genes = FusionTTT.load(find("pbmc")).features.genes["name"].tolist()
    with quiet():
        mdata = simulate(150, len(genes), 14, 3)
        mdata.write_h5mu(tmp_path / "cells.h5mu")
        rna = mdata["rna"].copy()
        rna.var_names = genes
        del rna.var["gene_ids"]
        rna.write_h5ad(tmp_path / "rna.h5ad")

    def scfusionttt(line):
        return run(installed / "scfusionttt", *line.split(), cwd=tmp_path)

    assert scfusionttt("--version").strip().endswith(version("scfusionttt"))
    scfusionttt("doctor --json doctor.json")
    kernels = json.loads((tmp_path / "doctor.json").read_text())["kernels"]
    assert {row["kernel"] for row in kernels if row["works"] == "yes"} >= {"chunked", "cpu"}
    scfusionttt("annotate rna.h5ad --out annotated.h5ad")
    scfusionttt("pretrain cells.h5mu --out model --preset fast --epochs 1")
    scfusionttt("report cells.h5mu --model model --out report.html")
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_the_wheel_is_typed_and_brings_no_tests(installed):
    python = installed / "python"
    files = run(
        python, "-c", "from importlib.metadata import files; print(*files('scfusionttt'), sep='\\n')", cwd=installed
    )
    assert re.search(r"^scfusionttt.py\.typed$", files, re.M)
    assert "tests" not in files
