"""Seurat objects and SingleCellExperiments go to a file that scfusionttt reads, and its results come back."""

import shutil
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

from scfusionttt.simulation.simulate import simulate

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "integrations" / "r" / "scfusionttt.R"
PACKAGES = "SeuratObject", "SingleCellExperiment", "hdf5r"


@pytest.fixture(scope="module")
def r():
    """A function that runs the R script of the tests; skips where R or its packages are missing."""
    program = shutil.which("Rscript")
    if program is None:
        pytest.skip("R is not installed")
    present = f"quit(status = !all(c{PACKAGES!r} %in% rownames(installed.packages())))"
    if subprocess.run([program, "-e", present], check=False).returncode:
        pytest.skip(f"R lacks one of {', '.join(PACKAGES)}")

    def run(name, folder, *step):
        command = [program, *map(str, (HERE / "run.R", HERE / name, SCRIPT, folder)), *step]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    return run


@pytest.mark.slow
def test_counts_go_to_scfusionttt_and_results_come_back(r, tmp_path, scfusionttt, monkeypatch):
    mdata = simulate(120, 300, 6, 3)
    rna, prot = mdata["rna"], mdata["prot"]
    counts = sparse.hstack([sparse.csr_matrix(rna.X), sparse.csr_matrix(prot.X)])
    mmwrite(tmp_path / "counts.mtx", counts.T.tocoo())
    names = [*rna.var_names, *prot.var_names]
    kinds = ["rna"] * rna.n_vars + ["prot"] * prot.n_vars
    pd.DataFrame({"name": names, "type": kinds}).to_csv(tmp_path / "features.csv", index=False)
    cells = pd.DataFrame({"cell_type": mdata.obs["cell_type"].astype(str), "age": np.arange(120.0)})
    cells.to_csv(tmp_path / "cells.csv")

    r("round_trip.R", tmp_path, "write")
    for name in ("seurat.h5ad", "sce.h5ad"):
        read = anndata.read_h5ad(tmp_path / name)
        np.testing.assert_array_equal(read.X.toarray(), counts.toarray())
        assert read.obs_names.tolist() == mdata.obs_names.tolist()
        assert read.obs["cell_type"].tolist() == cells["cell_type"].tolist()
        assert read.obs["age"].tolist() == cells["age"].tolist()
    assert anndata.read_h5ad(tmp_path / "rna.h5ad").n_vars == rna.n_vars

    monkeypatch.chdir(tmp_path)
    small = "--preset fast --epochs 1 --set data.n_genes=200"
    for line in (
        f"pretrain seurat.h5ad --out m1 {small}",
        "embed sce.h5ad --model m1 --out fused.csv",
        "finetune seurat.h5ad --model m1 --labels-key cell_type --out m2",
        "predict rna.h5ad --model m2 --out types.csv",
        "map sce.h5ad --model m2 --out mapped.csv",
    ):
        result = scfusionttt(line)
        assert result.code == 0, result.err
    r("round_trip.R", tmp_path, "read")
    fused, types = (pd.read_csv(tmp_path / name, index_col=0) for name in ("fused.csv", "types.csv"))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "seen.csv", index_col=0), fused, rtol=1e-6)
    mapped = pd.read_csv(tmp_path / "mapped.csv", index_col=0).iloc[:, -fused.shape[1] :]  # after p-values and labels
    np.testing.assert_allclose(pd.read_csv(tmp_path / "mapped_seen.csv", index_col=0), mapped, rtol=1e-6)
    assert pd.read_csv(tmp_path / "labels.csv", index_col=0)["label"].tolist() == types["label"].tolist()
    assert (types["label"].to_numpy() == cells["cell_type"].to_numpy()).mean() > 0.8


@pytest.mark.slow
def test_metadata_and_names_survive_the_way_to_a_file_and_back(r, tmp_path):
    """A missing integer became -2147483648, the label T TRUE; counts on disk, slashes and ``_index`` were errors."""
    r("metadata.R", tmp_path)
    sce, seurat = (anndata.read_h5ad(tmp_path / name) for name in ("sce.h5ad", "seurat.h5ad"))
    for read in (sce, seurat):
        assert read.obs_names.tolist() == ["001", "002", "003"]
        assert read.var_names.tolist() == ["CD4", "LYZ", "CD4.1"]
        assert read.X.toarray().tolist() == [[1, 2, 1], [3, 4, 2], [5, 6, 3]]
    assert sce.obs.columns.tolist() == ["cell type", "n", "a_b", "a_b.1", "_index.1"]
    assert sce.obs["_index.1"].tolist() == [7, 8, 9]
    assert sce.obs["cell type"].tolist() == ["a", "", "b"]
    np.testing.assert_array_equal(sce.obs["n"], [1, np.nan, 3])
    assert anndata.read_h5ad(tmp_path / "bare.h5ad").shape == (3, 2)
