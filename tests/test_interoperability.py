"""What we write goes on in the tools that users have, and what they hold is not touched."""

import warnings

import anndata
import numpy as np
import pytest
import scanpy as sc

from scfusionttt.data.write import write_embedding
from support import copied


@pytest.fixture
def embedded(cells, trained):
    """The user's MuData with the representation in it."""
    data = copied(cells)
    trained.pretrained.embed(data, inplace=True)
    return data


def test_scanpy_goes_on_from_the_representation(embedded):
    adata = embedded["rna"].copy()
    adata.obsm["X_fusionttt"] = embedded.obsm["X_fusionttt"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy's own, of versions to come
        sc.pp.neighbors(adata, use_rep="X_fusionttt", n_neighbors=8)
        sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
        sc.pp.log1p(adata)
        sc.tl.rank_genes_groups(adata, "leiden", method="t-test")
    assert adata.obsp["connectivities"].shape == (160, 160)
    assert adata.obs["leiden"].nunique() > 1
    assert len(adata.uns["rank_genes_groups"]["names"]) == 300


def test_counts_and_labels_stay_as_they_were_for_the_next_tool(cells, embedded):
    assert (embedded["rna"].X != cells["rna"].X).nnz == 0
    assert np.array_equal(embedded["prot"].X, cells["prot"].X)
    assert embedded.obs["cell_type"].equals(cells.obs["cell_type"])


# of mudata as muon calls it
@pytest.mark.filterwarnings("ignore:From 0.4 .update", "ignore:Cannot join columns", "ignore:var_names are not unique")
def test_muon_reads_the_file_and_filters_its_cells(embedded, tmp_path):
    muon = pytest.importorskip("muon")
    write_embedding(tmp_path / "a.h5mu", embedded.obsm["X_fusionttt"], embedded.obs_names, embedded)
    read = muon.read_h5mu(tmp_path / "a.h5mu")
    assert np.array_equal(read.obsm["X_fusionttt"], embedded.obsm["X_fusionttt"])
    muon.pp.filter_obs(read, np.arange(160) < 100)
    assert np.array_equal(read.obsm["X_fusionttt"], embedded.obsm["X_fusionttt"][:100])


def test_scib_metrics_scores_the_representation(embedded):
    scib = pytest.importorskip("scib_metrics")
    codes = embedded.obs["cell_type"].cat.codes.to_numpy()
    assert 0 <= scib.silhouette_label(embedded.obsm["X_fusionttt"], codes) <= 1


def test_the_h5ad_is_one_that_cellxgene_and_r_open(embedded, trained, tmp_path):
    """cellxgene wants unique names, an embedding called X_..., finite and 2-D; R reads CSR counts and plain columns."""
    path = tmp_path / "a.h5ad"
    write_embedding(path, embedded.obsm["X_fusionttt"], embedded.obs_names, embedded)
    read = anndata.read_h5ad(path)
    assert read.obs_names.is_unique and read.var_names.is_unique
    shown = [name for name in read.obsm if name.startswith("X_")]
    assert "X_fusionttt" in shown
    assert all(read.obsm[name].ndim == 2 and np.isfinite(read.obsm[name]).all() for name in shown)
    assert read.X.format == "csr" and read.X.dtype == np.float32
    assert read.obs["cell_type"].dtype == "category"
    assert {column.dtype.kind for _, column in read.var.items()} <= set("ifbOSU")
