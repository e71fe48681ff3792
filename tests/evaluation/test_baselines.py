import numpy as np
import pytest
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError
from scfusionttt.evaluation.baselines import features, logistic_regression, pca, zscore
from scfusionttt.evaluation.classification import classification_scores


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    return rng.gamma(1.0, size=(120, 30)).astype(np.float32) * (rng.random((120, 30)) < 0.3)


def test_zscore_is_fitted_on_the_training_cells(matrix):
    train = np.arange(60)
    scaled = zscore(matrix, fit_on=train)
    assert scaled[train].mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert scaled[train].std(axis=0) == pytest.approx(1, abs=1e-5)
    changed = matrix.copy()
    changed[60:] *= 2
    assert np.array_equal(zscore(changed, fit_on=train)[:60], scaled[:60])


def test_zscore_clips_and_survives_a_constant_feature():
    x_ng = np.zeros((400, 2))
    x_ng[0, 0] = 1e3
    scaled = zscore(x_ng)
    assert scaled.max() == 10
    assert (scaled[:, 1] == 0).all()


def test_pca_of_sparse_and_dense_agree(matrix):
    dense = pca(matrix, 5)
    assert dense.shape == (120, 5)
    assert pca(sparse.csr_matrix(matrix), 5) == pytest.approx(dense)
    scaled = zscore(matrix)
    spread = np.linalg.svd(scaled - scaled.mean(axis=0), compute_uv=False)[:5]
    assert np.linalg.norm(dense, axis=0) == pytest.approx(spread, rel=1e-4)


def test_pca_takes_what_a_small_matrix_allows(matrix):
    assert pca(matrix, 50).shape == (120, 29)


def test_proteins_follow_the_components(matrix):
    protein = np.random.default_rng(1).normal(size=(120, 4))
    both = features(matrix, protein, n=6)
    assert both.shape == (120, 10)
    assert both[:, 6:] == pytest.approx(3 * zscore(protein))
    assert np.array_equal(both[:, :6], features(matrix, n=6))


def test_logistic_regression_learns_and_gives_probabilities():
    rng = np.random.default_rng(0)
    labels = rng.choice(["B", "T", "NK"], 300)
    x_nd = rng.normal(size=(300, 4)) + 3 * np.eye(4)[np.unique(labels, return_inverse=True)[1]]
    predicted, probabilities = logistic_regression(x_nd[:200], labels[:200], x_nd[200:])
    assert probabilities.columns.tolist() == ["B", "NK", "T"]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1)
    assert (predicted == probabilities.idxmax(axis=1)).all()
    assert classification_scores(labels[200:], predicted)["accuracy"] > 0.9


def test_bad_input_is_named(matrix):
    with pytest.raises(LabelError, match="two classes"):
        logistic_regression(matrix, ["B"] * 120, matrix)
    with pytest.raises(InputDataError, match="finite"):
        pca(np.full((5, 3), np.nan))
