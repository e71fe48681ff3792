import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.evaluate import evaluate_clusters, evaluate_representation
from scfusionttt.evaluation.slots import evaluate_slots
from scfusionttt.io.quiet_warnings import quiet

TYPES = np.repeat(["B", "T", "unknown"], [60, 50, 10])
Z = np.random.default_rng(0).normal(size=(120, 4)) + 4 * (TYPES == "B")[:, None]


@pytest.fixture
def adata():
    obs = pd.DataFrame({"cell_type": TYPES, "leiden": np.where(TYPES == "B", "0", "1")}, index=map(str, range(120)))
    return AnnData(np.ones((120, 2), dtype=np.float32), obs=obs, obsm={"X_fusionttt": Z, "X_mine": -Z[:, :2]})


@pytest.fixture
def mdata(adata):
    """The labels are in the RNA's obs, which has the cells in another order; the representation is in the whole."""
    whole = adata.obs_names
    with quiet():
        rna = AnnData(adata.X, obs=adata.obs)[::-1].copy()
        prot = AnnData(adata.X, obs=adata.obs[[]])
        mdata = MuData({"prot": prot, "rna": rna})
    mdata.obs = mdata.obs[[]]
    mdata.obsm["X_fusionttt"] = Z[whole.get_indexer(mdata.obs_names)]
    return mdata


def same(found, expected):
    assert found.to_dict() == expected.to_dict()


@pytest.mark.parametrize("space", ["rep", "umap"])
def test_our_representation_is_scored_unless_another_is_named(adata, space):
    same(evaluate_slots(adata, labels="cell_type", space=space), evaluate_representation(Z, TYPES, space=space))
    same(evaluate_slots(adata, labels="cell_type", rep="X_mine"), evaluate_representation(-Z[:, :2], TYPES))


def test_clusters_are_scored_with_and_without_geometry(adata):
    clusters = adata.obs["leiden"]
    same(evaluate_slots(adata, labels="cell_type", clusters="leiden"), evaluate_clusters(clusters, TYPES))
    found = evaluate_slots(adata, labels="cell_type", clusters="leiden", rep="X_mine")
    same(found, evaluate_clusters(clusters, TYPES, -Z[:, :2]))
    assert found.mean["ARI"] == 1


def test_labels_of_a_modality_are_brought_to_the_cells_of_the_whole(mdata):
    found = evaluate_slots(mdata, labels="cell_type")
    assert (found.n_cells, found.n_unlabelled) == (110, 10)
    assert found.mean["ARI"] > 0.95


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"labels": "kind"}, LabelError, r"no obs\['kind'\]; the columns are: cell_type, leiden"),
        ({"labels": "cell_type", "clusters": "louvain"}, LabelError, r"no obs\['louvain'\]"),
        ({"labels": "cell_type", "rep": "X_pca"}, InputDataError, r"no obsm\['X_pca'\] \(there is: X_fusionttt"),
        ({"labels": "cell_type", "clusters": "leiden", "space": "umap"}, SettingError, "--space umap goes with --rep"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(options, error, told, adata, mdata):
    for data in (adata, mdata):
        with pytest.raises(error, match=told):
            evaluate_slots(data, **options)


def test_the_modalities_of_a_mudata_are_no_representations(mdata):
    """MuData keeps a mask of each modality's cells in obsm; they are not offered."""
    with pytest.raises(InputDataError, match=r"\(there is: X_fusionttt\)"):
        evaluate_slots(mdata, labels="cell_type", rep="X_pca")
