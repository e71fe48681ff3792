import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation.evaluate import evaluate_clusters, evaluate_representation
from scfusionttt.evaluation.slots import evaluate_slots, find_column
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from support import copied

TYPES = np.repeat(["B", "T", "unknown"], [60, 50, 10])
Z = np.random.default_rng(0).normal(size=(120, 4)) + 4 * (TYPES == "B")[:, None]


@pytest.fixture
def adata():
    obs = pd.DataFrame({"cell_type": TYPES, "leiden": np.where(TYPES == "B", "0", "1")}, index=map(str, range(120)))
    return AnnData(np.ones((120, 2), dtype=np.float32), obs=obs, obsm={"X_fusionttt": Z, "X_mine": -Z[:, :2]})


@pytest.fixture
def mdata(adata):
    """A MuData with the labels in the obs of its RNA, which has its cells in another order."""
    whole = adata.obs_names
    with quiet():
        rna = AnnData(adata.X, obs=adata.obs)[::-1].copy()
        prot = AnnData(adata.X, obs=adata.obs[[]])
        mdata = MuData({"prot": prot, "rna": rna})
    mdata.obs = mdata.obs[[]]
    mdata.obsm["X_fusionttt"] = Z[whole.get_indexer(mdata.obs_names)]
    return mdata


def same(result, expected):
    assert result.to_dict() == expected.to_dict()


@pytest.mark.parametrize("space", ["rep", "umap"])
def test_x_fusionttt_is_scored_by_default(adata, space):
    same(evaluate_slots(adata, labels_key="cell_type", space=space), evaluate_representation(Z, TYPES, space=space))
    same(evaluate_slots(adata, labels_key="cell_type", rep="X_mine"), evaluate_representation(-Z[:, :2], TYPES))


def test_clusters_are_scored_with_and_without_geometry(adata):
    clusters = adata.obs["leiden"]
    same(evaluate_slots(adata, labels_key="cell_type", clusters="leiden"), evaluate_clusters(clusters, TYPES))
    result = evaluate_slots(adata, labels_key="cell_type", clusters="leiden", rep="X_mine")
    same(result, evaluate_clusters(clusters, TYPES, -Z[:, :2]))
    assert result.mean["ARI"] == 1


def test_labels_of_a_modality_are_aligned_to_all_cells(mdata):
    result = evaluate_slots(mdata, labels_key="cell_type")
    assert (result.n_cells, result.n_unlabelled) == (110, 10)
    assert result.mean["ARI"] > 0.95


def test_a_column_without_values_does_not_hide_that_of_a_modality(mdata):
    """Plots and scores found no label, though the RNA modality had them."""
    mdata.obs["cell_type"] = np.nan
    assert evaluate_slots(mdata, labels_key="cell_type").n_cells == 110


def test_columns_are_those_that_training_reads(mdata):
    """The first modality's was taken: that of the proteins, in a file with these first."""
    mdata["prot"].obs["cell_type"] = "of the proteins"
    for classes in ({"B", "T", "unknown"}, {"of the whole"}):
        labels = find_column(mdata, "cell_type")
        assert set(labels) == classes
        assert labels.equals(as_citeseq(mdata).obs["cell_type"].loc[mdata.obs_names])
        mdata.obs["cell_type"] = "of the whole"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels_key": "kind"}, LabelError, r"no obs\['kind'\]; the columns are: cell_type, leiden"),
        ({"labels_key": "cell_type", "clusters": "louvain"}, LabelError, r"no obs\['louvain'\]"),
        ({"labels_key": "cell_type", "rep": "X_pca"}, InputDataError, r"no obsm\['X_pca'\] \(existing: X_fusionttt"),
        (
            {"labels_key": "cell_type", "clusters": "leiden", "space": "umap"},
            SettingError,
            "applies to a representation",
        ),
    ],
)
def test_missing_keys_are_reported_with_the_existing_ones(options, error, message, adata, mdata):
    for data in (adata, mdata):
        with pytest.raises(error, match=message):
            evaluate_slots(data, **options)


def test_masks_of_modalities_are_not_offered_as_representations(mdata):
    """MuData stores a mask of the cells of each modality in obsm."""
    with pytest.raises(InputDataError, match=r"\(existing: X_fusionttt\)"):
        evaluate_slots(mdata, labels_key="cell_type", rep="X_pca")


def test_what_labels_were_trained_on_is_never_called_unsupervised(trained, cells, adata, tiny):
    """`evaluate` had called the embedding of a network that was trained on labels unsupervised."""
    settings = {**tiny, "finetune": {"classifier": "finetune", "epochs": 1}}
    learned = FusionTTT("fast", progress=False, **settings).pretrain(cells)
    learned.finetune(cells, labels_key="cell_type", train_fraction=0.5)
    assert learned.protocol(cells.obs_names) == "paper"
    assert learned.protocol(["new", "cells"]) == "zero-shot"
    for model in (trained.pretrained, trained.finetuned):  # a kernel head leaves the network as it is
        assert model.protocol(cells.obs_names) == "unsupervised"
    embedded = copied(cells)
    learned.embed(embedded, inplace=True)
    assert evaluate_slots(embedded, labels_key="cell_type").protocol == "paper"
    untrained = FusionTTT("fast", progress=False).build(cells)
    assert untrained.protocol(cells.obs_names) == "unsupervised"
    adata.uns["fusionttt_protocol"] = "paper"
    assert evaluate_slots(adata, labels_key="cell_type", clusters="leiden").protocol == "paper"
    assert evaluate_slots(adata, labels_key="cell_type", rep="X_mine").protocol == "unsupervised"


def test_predicted_classes_are_no_clusters(adata):
    """They were scored as unsupervised clusters, although they were learned from labels."""
    adata.obs["fusionttt_label"] = adata.obs["cell_type"]
    with pytest.raises(SettingError, match="not clusters but classes that a model predicts"):
        evaluate_slots(adata, labels_key="cell_type", clusters="fusionttt_label")
