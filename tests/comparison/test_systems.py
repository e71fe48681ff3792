"""Systems in environments of their own; those of these tests run in the environment of the tests."""

import os
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfusionttt.comparison import systems
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import BASELINES, DEFAULT, Method, choose
from scfusionttt.comparison.systems import SYSTEMS, Counts, System, represent
from scfusionttt.comparison.tasks import jobs, tasks
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import NotInstalledError, SettingError
from scfusionttt.simulation.simulate import simulate

TOY = System(name="toy", package="numpy", version="1")
COUNTS = Counts(
    sparse.csr_matrix(np.array([[1.0, 0], [0, 3], [2, 2]], "float32")), pd.Index(["CD3E", "NA"]),
    protein=pd.DataFrame({"CD3, clone 1": [4, 5, 6]}), labels=np.array(["T", "", "NA"], dtype=object),
    batches=np.array(["1", "1", "NA"], dtype=object),
)  # fmt: skip


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Return a function that makes TOY run the given lines."""
    python = tmp_path / "envs" / "toy" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    exchange = (systems._SCRIPTS / "exchange.py").read_text()
    monkeypatch.setenv("SCFUSIONTTT_ENVS", str(tmp_path / "envs"))
    monkeypatch.setattr(systems, "_SCRIPTS", tmp_path)
    (tmp_path / "exchange.py").write_text(exchange)

    def write(*lines):
        (tmp_path / "run_toy.py").write_text("\n".join(lines))

    return write


def test_a_system_gets_counts_labels_and_the_seed(script):
    """Names such as NA and commas in them are names."""
    script(
        "from exchange import *",
        "a, b = read(), read('query')",
        "assert has_query() and b.obs.empty",
        "assert list(a.var_names) == ['CD3E', 'NA'] and list(a.obs['label']) == ['T', '', 'NA']",
        "assert list(a.obs['batch']) == ['1', '1', 'NA']",
        "assert list(proteins(a).var_names) == ['CD3, clone 1'] and proteins(a).X.ravel().tolist() == [4, 5, 6]",
        "write(pd.DataFrame({'label': a.obs['label'], 'sum': b.X.sum(axis=1).A1 + SEED}))",
    )
    result = TOY.run(COUNTS, 7, query=Counts(COUNTS.rna, COUNTS.genes))
    assert result["label"].tolist() == ["T", "", "NA"] and result["sum"].tolist() == [8, 10, 11]


def test_a_graph_is_a_result_in_which_no_cell_is_its_own_neighbour(script, cells):
    """Cells voted for their own labels in Seurat's graph, which links each to itself."""
    script(
        "import sys", "from pathlib import Path", "from scipy import io",
        "rna = io.mmread(sys.argv[1] + '/cells/rna.mtx').tocsr()",
        "io.mmwrite(sys.argv[1] + '/result.mtx', rna @ rna.T)",
    )  # fmt: skip
    dataset = Cells("sim", as_citeseq(cells), "cell_type")
    graph = represent(TOY, dataset, 0)
    expected = (dataset.gene_counts @ dataset.gene_counts.T).toarray()
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(graph.toarray(), expected)


def test_a_system_gets_the_batches_of_a_cohort(script, cells):
    """MIDAS was given all cells as one batch, so that it could not remove any."""
    script(
        "from exchange import *",
        "batches = read().obs.get('batch', pd.Series('one', index=range(3)))",
        "write(pd.DataFrame({'batch': batches.factorize()[0]}))",
    )
    cite, donors = as_citeseq(cells), np.arange(cells.n_obs) % 3
    cite = replace(cite, obs=cite.obs.assign(donor=donors))
    assert set(represent(TOY, Cells("sim", cite, "cell_type"), 0).ravel()) == {0}
    np.testing.assert_array_equal(represent(TOY, Cells("sim", cite, "cell_type", batch_key="donor"), 0).ravel(), donors)


def test_a_system_sees_what_a_cell_lacks(script, mosaic):
    """MIDAS is made for such cells."""
    script(
        "from exchange import *",
        "cells = read()",
        "write(np.column_stack([cells.X.sum(axis=1) > 0, proteins(cells).to_df().notna().all(axis=1)]))",
    )
    expected = np.column_stack([mosaic.batches != "batch 3", mosaic.batches != "batch 2"])
    np.testing.assert_array_equal(represent(TOY, mosaic, 0), expected)


def test_failures_and_time_outs_are_rows(script, cells, monkeypatch):
    dataset = Cells("sim", as_citeseq(cells), "cell_type")
    method = Method(name="toy", represent=lambda cells, seed: represent(TOY, cells, seed), library=TOY)
    [job] = jobs([dataset], [method], tasks(["unsupervised"], [0.5]), [0])
    script("print('working')", "raise ValueError('too few cells')")
    row = job.run()
    assert (row["status"], row["note"]) == ("failed", "RuntimeError: ValueError: too few cells")
    assert row["versions"]["numpy"] == np.__version__
    monkeypatch.setenv("SCFUSIONTTT_TIMEOUT", "0.3")
    script("import time", "time.sleep(60)")
    assert job.run()["note"] == "TimeoutError: stopped after 0.3 s; SCFUSIONTTT_TIMEOUT changes the limit"
    monkeypatch.setenv("SCFUSIONTTT_TIMEOUT", "soon")
    with pytest.raises(SettingError, match="number of seconds"):
        TOY.run(COUNTS, 0)
    monkeypatch.setenv("SCFUSIONTTT_ENVS", "/nowhere")
    row = job.run()
    assert row["status"] == "not installed"
    assert row["note"].endswith("python3 -m venv /nowhere/toy && /nowhere/toy/bin/pip install numpy==1")


def _skip_unless_installed(system):
    try:
        system.versions()
    except NotInstalledError as error:
        pytest.skip(f"{system.package} is {error}")


def test_the_row_of_an_r_script_that_fails_says_why(monkeypatch, tmp_path):
    """It said "Execution halted", which is R's last line."""
    toy = System(name="toy", package="Matrix", in_r="apt-get install r-cran-matrix")
    _skip_unless_installed(toy)
    exchange = (systems._SCRIPTS / "exchange.R").read_text()
    monkeypatch.setattr(systems, "_SCRIPTS", tmp_path)
    (tmp_path / "exchange.R").write_text(exchange)
    (tmp_path / "run_toy.R").write_text(f"source('{tmp_path}/exchange.R')\nstop('too few\\ncells')\n")
    with pytest.raises(RuntimeError, match=r"^Error.*: too few cells$"):
        toy.run(COUNTS, 0)


@pytest.mark.slow
def test_seurat_takes_few_cells_constant_proteins_and_names_that_it_changes():
    """It ended in an error if all cells were candidates, proteins were constant, or names differed in _ and - only."""
    _skip_unless_installed(systems.SEURAT)
    cite = as_citeseq(simulate(120, 400, 10, 4))
    protein = pd.DataFrame(cite.protein.X).assign(constant=0, other=0)
    protein.columns = ["CD3_1", "CD3-1", *map(str, protein.columns[2:])]
    graph = systems.SEURAT.run(Counts(cite.rna.X, cite.rna.var_names, protein), 0)
    assert graph.shape == (120, 120) and (graph.getnnz(axis=1) > 1).all()


@pytest.mark.usefixtures("script")
def test_a_greeting_is_not_part_of_the_version():
    """What an .Rprofile printed was listed as the version of Seurat."""
    python = systems.environments() / "toy" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho Welcome to R\nexec {sys.executable} "$@"\n')
    assert TOY.versions() == {"numpy": np.__version__}


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_nothing_goes_on_after_a_time_out(script, monkeypatch, tmp_path):
    """A worker that the script had started went on training."""
    worker = f"import time; time.sleep(1); open({str(tmp_path / 'late')!r}, 'w')"
    script(
        "import subprocess, sys, time",
        f"subprocess.Popen([sys.executable, '-c', {worker!r}])",
        "time.sleep(60)",
    )
    monkeypatch.setenv("SCFUSIONTTT_TIMEOUT", "0.5")
    with pytest.raises(TimeoutError):
        TOY.run(COUNTS, 0)
    time.sleep(1)
    assert not (tmp_path / "late").exists()


def test_each_system_has_a_script_and_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("SCFUSIONTTT_ENVS", "/envs")
    for system in SYSTEMS:
        suffix = "R" if system.in_r else "py"
        assert (systems._SCRIPTS / f"run_{system.name}.{suffix}").exists()
        assert system.package.lower() in system.how_to_install.lower()
    assert "numpy" in systems.SCOIT.how_to_install and systems.SCOIT.how_to_install.endswith("--no-deps SCOIT==0.1.2")
    monkeypatch.setenv("SCFUSIONTTT_ENVS", "/my envs")
    assert TOY.how_to_install == "python3 -m venv '/my envs/toy' && '/my envs/toy/bin/pip' install numpy==1"
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotInstalledError, match="apt-get install r-cran-seurat"):
        systems.SEURAT.versions()
    assert "install.packages" in systems.CITEFUSE.how_to_install, "R itself has no BiocManager"


def test_systems_are_compared_when_asked_for(tmp_path):
    assert not {system.name for system in SYSTEMS} & set(DEFAULT)
    assert choose(["seurat", "snf"], models=tmp_path) == [BASELINES["seurat"], BASELINES["snf"]]
