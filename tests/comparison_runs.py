"""Data sets of comparisons, runs of methods on them, and rows as such runs leave them."""

import pytest
from mudata import MuData

from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.rows import read_rows, run_all
from scfusionttt.comparison.tasks import jobs
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate

TINY = {"network.width": 16, "network.latent": 8, "pretrain.epochs": 1}


@pytest.fixture(scope="module")
def dataset(cells):
    """The cells as a data set."""
    return Cells("sim", as_citeseq(cells), "cell_type")


@pytest.fixture(scope="module")
def cohort():
    """Cells of two batches."""
    cite = as_citeseq(simulate(160, 300, 8, 3, rare_fraction=0.2, n_batches=2, batch_effect=0.8))
    return Cells("cohort", cite, "cell_type", "batch")


@pytest.fixture(scope="module")
def mosaic():
    """Cells of three batches, one of RNA alone and one of proteins alone."""
    mdata = simulate(240, 300, 8, 3, rare_fraction=0.2, n_batches=3)
    batch = mdata.obs["batch"].to_numpy()
    with quiet():
        rna, protein = mdata["rna"][batch != "batch 3"].copy(), mdata["prot"][batch != "batch 2"].copy()
        partial = MuData({"rna": rna, "prot": protein})
    partial.obs = mdata.obs.loc[partial.obs_names]
    return Cells("mosaic", as_citeseq(partial, cells="all"), "cell_type", "batch")


def run(dataset, methods, todo, folder, seeds=(0,)):
    """Run methods on tasks; return the rows in the folder and the lines that are shown."""
    shown = []
    run_all(jobs([dataset], methods, todo, seeds), folder / "rows", show=shown.append)
    return read_rows(folder / "rows"), shown


def row(**values):
    """Return the row of a method that ran."""
    return {
        "protocol": "unsupervised", "dataset": "d", "labels": "l", "share": None, "method": "m", "seed": 0,
        "status": "done", "note": "", "seconds": 1.0, "peak_memory": None, **values,
    }  # fmt: skip
