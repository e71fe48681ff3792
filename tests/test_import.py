import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import scfusionttt
from support import run_python

HEAVY = ("torch", "lightning", "scanpy", "anndata", "mudata", "sklearn", "numba", "matplotlib", "pandas")

HELP = """
import contextlib, sys
from scfusionttt.cli import main
sys.argv = ["scfusionttt", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""
PRINT_LOADED = "import sys; print(*sys.modules)"


@pytest.mark.parametrize("code", ["import scfusionttt", HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded_before_it_is_used(code):
    loaded = run_python(f"{code}\n{PRINT_LOADED}").splitlines()[-1].split()
    assert "scfusionttt" in loaded
    assert not set(HEAVY) & set(loaded)


def test_results_of_a_trained_model_do_not_load_lightning(trained, rna_cells, tmp_path):
    """A third of the time of `embed` on 7,000 cells was the import of a library that only training needs."""
    trained.pretrained.save(tmp_path / "model")
    rna_cells.write_h5ad(tmp_path / "cells.h5ad")
    embed = "scfusionttt.FusionTTT.load('model').embed(anndata.read_h5ad('cells.h5ad'))"
    script = f"import anndata, scfusionttt\n{embed}\n{PRINT_LOADED}"
    loaded = run_python(script, cwd=tmp_path).splitlines()[-1].split()
    assert "torch" in loaded
    assert "lightning" not in loaded


def test_the_command_line_is_also_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "scfusionttt", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith(version("scfusionttt"))


def test_public_names_are_listed_although_they_are_loaded_lazily():
    assert dir(scfusionttt) == sorted(scfusionttt.__all__)


def test_type_checkers_know_the_public_names(tmp_path):
    """FusionTTT was unknown to mypy and to editors: the package defined it by __getattr__ alone."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    script = tmp_path / "script.py"
    names = "\n".join(f"scfusionttt.{name}" for name in [*scfusionttt.__all__, "FusionTT"])
    script.write_text(f"import scfusionttt\n{names}\n")
    stub = str(Path(scfusionttt.__file__).with_suffix(".pyi"))
    options = ["--follow-imports=skip", f"--cache-dir={tmp_path}", "--config-file="]
    errors = api.run([*options, stub, str(script)])[0].splitlines()
    assert [line for line in errors if "has no attribute" in line] == [line for line in errors if '"FusionTT"' in line]
    assert len(errors) == 2, errors  # FusionTT, and the count of errors


def test_every_public_name_is_there():
    for name in scfusionttt.__all__:
        assert getattr(scfusionttt, name) is not None
    assert scfusionttt.__version__ == version("scfusionttt")
    with pytest.raises(AttributeError, match="no attribute 'FusionTT'"):
        _ = scfusionttt.FusionTT
