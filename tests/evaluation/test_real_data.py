"""The figures published for plain methods on PBMC10K are reproduced by this package."""

import numpy as np
import pytest

from scfusionttt.evaluation import evaluate_predictions, evaluate_representation
from scfusionttt.evaluation.baselines import features, logistic_regression, pca, zscore

EXPECTED = {
    "rna": {"ARI": 0.647, "NMI": 0.759, "AMI": 0.757, "FMI": 0.681, "JI": 0.515, "F": 0.680, "ASW": 0.546, "SC": 0.150},
    "adt": {"ARI": 0.710, "NMI": 0.812, "AMI": 0.811, "FMI": 0.739, "JI": 0.582, "F": 0.735, "ASW": 0.640, "SC": 0.287},
}


@pytest.fixture(scope="module")
def pbmc10k(real_data):
    import h5py
    import pandas as pd
    from anndata.io import read_elem
    from scipy import sparse

    with h5py.File(real_data / "pbmc10k.h5mu") as file:
        rna, protein = (read_elem(file["mod"][name]["X"]) for name in ("rna", "prot"))
        labels = pd.Series(read_elem(file["obs"])["wnn_cluster"]).astype(str).to_numpy()
    scale = sparse.diags(1e4 / np.asarray(rna.sum(axis=1)).ravel())
    log_protein = np.log1p(protein.toarray())
    clr = np.log1p(np.expm1(log_protein) / np.exp(log_protein.mean(axis=0)))
    return (scale @ rna).log1p().tocsr(), clr, labels


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["rna", "adt"])
def test_clusters_of_plain_representations(pbmc10k, modality):
    rna, clr, labels = pbmc10k
    result = evaluate_representation(pca(rna) if modality == "rna" else zscore(clr), labels)
    assert result.n_clusters == (18, 18, 18)
    assert {name: result.mean[name] for name in EXPECTED[modality]} == pytest.approx(EXPECTED[modality], abs=0.05)


@pytest.mark.slow
def test_logistic_regression_on_held_out_cells(pbmc10k):
    rna, clr, labels = pbmc10k
    held_out = np.random.default_rng(0).random(len(labels)) < 0.25
    for proteins, accuracy, macro_f1 in ((None, 0.863, 0.764), (clr, 0.959, 0.952)):
        x_nd = features(rna, proteins, fit_on=~held_out)
        predicted, _ = logistic_regression(x_nd[~held_out], labels[~held_out], x_nd[held_out])
        result = evaluate_predictions(predicted, labels[held_out]).mean
        assert result["accuracy"] == pytest.approx(accuracy, abs=0.05)
        assert result["macro_f1"] == pytest.approx(macro_f1, abs=0.05)
