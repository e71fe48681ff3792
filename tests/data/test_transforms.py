import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.moments import moments
from scfusionttt.data.transforms import Standardizer, clr, highly_variable, library_sizes, log_normalize
from scfusionttt.errors import SettingError
from scfusionttt.io.read import read


def counts(n=300, g=60):
    return sparse.csr_matrix(np.random.default_rng(0).poisson(0.7, (n, g)).astype(np.float32))


def test_log_normalize_is_its_formula_and_leaves_empty_cells_zero():
    dense = counts().toarray().astype(float)
    dense[3] = 0
    raw = sparse.csr_matrix(dense, dtype=np.float32)
    before = raw.copy()
    size = dense.sum(axis=1, keepdims=True)
    expected = np.log1p(1e4 * np.divide(dense, size, out=np.zeros_like(dense), where=size > 0))
    found = log_normalize(raw)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert not found[3].nnz
    assert (raw != before).nnz == 0


def test_log_normalize_agrees_with_scanpy():
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(counts())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(log_normalize(counts()).toarray(), adata.X.toarray(), rtol=1e-5)


def test_log_normalize_of_some_genes_takes_the_library_size_of_all():
    raw = counts()
    part = log_normalize(raw[:, :10], library_size=library_sizes(raw))
    np.testing.assert_array_equal(part.toarray(), log_normalize(raw).toarray()[:, :10])


def variable_counts():
    """Genes 50, 170 and 250 differ between two halves of the cells; genes 30 to 34 have no counts."""
    rate = np.tile(np.linspace(1, 8, 300), (400, 1))
    rate[:200, [50, 170, 250]] *= 0.1
    rate[200:, [50, 170, 250]] *= 1.9
    rate[:, 30:35] = 0
    return sparse.csr_matrix(np.random.default_rng(1).poisson(rate).astype(np.float32))


def test_highly_variable_genes_are_found():
    assert list(highly_variable(variable_counts(), n_top=3)) == [50, 170, 250]


@pytest.mark.parametrize("n_top", [1, 7, 295, 299, 300, 1000])
def test_highly_variable_gives_the_number_asked_for_and_repeats(n_top):
    """Genes without counts have no dispersion and come last."""
    raw = variable_counts()
    chosen = highly_variable(raw, n_top=n_top)
    assert len(chosen) == min(n_top, 300)
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, highly_variable(raw, n_top=n_top))
    assert len(set(range(30, 35)) & set(chosen)) == max(min(n_top, 300) - 295, 0)


def test_highly_variable_refuses_no_genes():
    with pytest.raises(SettingError, match="at least 1"):
        highly_variable(counts(), n_top=0)


def test_highly_variable_agrees_with_scanpy_on_real_data(real_data):
    import scanpy as sc
    from anndata import AnnData

    raw = as_citeseq(read(real_data / "malt_subset.h5mu")).rna.X
    table = sc.pp.highly_variable_genes(AnnData(log_normalize(raw)), n_top_genes=2000, flavor="seurat", inplace=False)
    theirs = set(np.flatnonzero(table["highly_variable"]))
    assert len(theirs & set(highly_variable(raw, n_top=2000))) >= 1995  # they differ at ties only


def test_clr_by_hand():
    """x = 0 and e^2 - 1: log1p is 0 and 2, the geometric mean exp(1)."""
    raw = np.array([[0.0, 5.0], [np.e**2 - 1, np.nan]])
    values = clr(raw)
    np.testing.assert_allclose(values[:, 0], [0.0, np.log1p((np.e**2 - 1) / np.e)], rtol=1e-6)
    assert np.isnan(values[1, 1])
    np.testing.assert_allclose(clr(raw[:1], log_geometric_mean=np.array([1.0, np.log(6.0)])), values[:1])


def test_clr_of_a_protein_that_was_never_measured():
    assert np.isnan(clr(np.full((3, 1), np.nan))).all()


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_sparse_and_dense_moments_agree_with_numpy(n, f, seed):
    dense = np.random.default_rng(seed).poisson(0.8, (n, f)).astype(np.float32)
    for matrix in (dense, sparse.csr_matrix(dense)):
        fitted = Standardizer.fit(moments(matrix))
        np.testing.assert_allclose(fitted.mean, dense.mean(axis=0, dtype=float))
        std = dense.std(axis=0, dtype=float)
        np.testing.assert_allclose(fitted.std, np.where(std > 0, std, 1.0))


def test_moments_over_several_blocks_of_rows():
    raw = log_normalize(counts(n=9000, g=7))
    fitted = Standardizer.fit(moments(raw))
    np.testing.assert_allclose(fitted.mean, raw.toarray().mean(axis=0, dtype=float))
    np.testing.assert_allclose(fitted.std, raw.toarray().std(axis=0, dtype=float))


def test_values_are_standardised_and_clipped():
    dense = counts().toarray()
    dense[0, 0] = 1000.0
    fitted = Standardizer.fit(moments(dense), clip=None)
    free = fitted.transform(dense)
    assert free.dtype == np.float32
    np.testing.assert_allclose(free.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(free.std(axis=0), 1, rtol=1e-4)
    clipped = Standardizer.fit(moments(dense), clip=2.0).transform(dense)
    np.testing.assert_array_equal(clipped, np.clip(free, -2, 2))


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, 1e6])
def test_a_constant_feature_gets_std_1(value):
    dense = np.full((1001, 1), value, dtype=np.float32)
    for matrix in (dense, sparse.csr_matrix(dense)):
        fitted = Standardizer.fit(moments(matrix))
        assert fitted.std.tolist() == [1.0]
        np.testing.assert_allclose(fitted.transform(dense), 0, atol=1e-6)


def test_nan_is_left_out_and_stays():
    dense = counts().toarray()
    holes = dense.copy()
    holes[::3, 0] = np.nan
    holes[:, 1] = np.nan
    fitted = Standardizer.fit(moments(holes))
    kept = dense[np.arange(300) % 3 > 0, 0].astype(float)
    np.testing.assert_allclose([fitted.mean[0], fitted.std[0]], [kept.mean(), kept.std()])
    assert (fitted.mean[1], fitted.std[1]) == (0.0, 1.0)
    np.testing.assert_array_equal(np.isnan(fitted.transform(holes)), np.isnan(holes))


def test_global_scale_centres_each_feature_and_keeps_their_ratios():
    dense = counts().toarray() * np.linspace(0, 5, 60, dtype=np.float32)
    for matrix in (dense, sparse.csr_matrix(dense)):
        fitted = Standardizer.fit(moments(matrix), scale="global", clip=None)
        assert len(set(fitted.std)) == 1
        values = fitted.transform(dense)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose((values.astype(float) ** 2).mean(), 1, rtol=1e-5)
    with pytest.raises(SettingError, match="per_feature or global"):
        Standardizer.fit(moments(dense), scale="local")


def test_shrunk_scale_lets_features_that_vary_more_weigh_a_little_more():
    dense = counts().toarray() * np.linspace(0, 5, 60, dtype=np.float32)  # the first feature is constant
    values = Standardizer.fit(moments(dense), scale="shrunk", clip=None).transform(dense).astype(float)
    weight, spread = values.std(axis=0)[1:], dense.std(axis=0)[1:]
    np.testing.assert_allclose(weight / weight[0], (spread / spread[0]) ** 0.25, rtol=1e-4)
    np.testing.assert_allclose((values[:, 1:] ** 2).mean(), 1, rtol=1e-5)


def test_nothing_is_made_dense(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise AssertionError("made dense")

    raw = counts()
    for name in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_matrix, name, refuse)
    Standardizer.fit(moments(log_normalize(raw)))
    assert len(highly_variable(raw, n_top=10)) == 10
