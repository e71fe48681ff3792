import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scfusionttt.config import DataConfig
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import Match
from scfusionttt.data.preprocess import Preprocessing, matched_gene_counts, matched_protein_counts
from scfusionttt.simulation.simulate import simulate, simulate_query

ALL = Match(genes=np.arange(300), proteins=np.arange(8))


@pytest.fixture(scope="module")
def mdata():
    return simulate(120, 300, 8, 3)


@pytest.fixture(scope="module")
def cite(mdata):
    return as_citeseq(mdata)


@pytest.fixture(scope="module")
def query(mdata):
    return as_citeseq(simulate_query(mdata, 80))


def columns(cite, genes):
    return CiteSeq(cite.rna[:, genes].copy(), cite.protein, cite.obs)


def fields(preprocessing):
    rna, protein = preprocessing.rna, preprocessing.protein
    return [preprocessing.gene_share, preprocessing.log_geometric_mean, rna.mean, rna.std, protein.mean, protein.std]


@pytest.mark.parametrize("scale", ["shrunk", "per_feature", "global", "none"])
def test_constants_survive_json_to_the_bit(cite, scale):
    fitted = Preprocessing.fit(cite, ALL, DataConfig(scale=scale))
    again = Preprocessing.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert all(np.array_equal(a, b) for a, b in zip(fields(fitted), fields(again), strict=True))
    assert (again.target_sum, again.rna.clip, again.protein.clip) == (1e4, fitted.rna.clip, fitted.protein.clip)


def test_values_stand_in_the_models_order_and_are_empty_where_not_measured(cite):
    match = Match(genes=np.array([5, -1, 0]), proteins=np.array([-1, 7]))
    dense = cite.rna.X.toarray()
    genes = matched_gene_counts(cite, match).toarray()
    np.testing.assert_array_equal(genes, np.stack([dense[:, 5], 0 * dense[:, 0], dense[:, 0]], axis=1))
    proteins = matched_protein_counts(cite, match)
    assert np.isnan(proteins[:, 0]).all()
    np.testing.assert_array_equal(proteins[:, 1], cite.protein.X[:, 7])


def test_an_input_without_proteins_has_none_measured(query):
    assert np.isnan(matched_protein_counts(query, Match(np.arange(300), np.full(8, -1)))).all()


def test_genes_that_the_model_does_not_know_change_nothing(cite):
    """Library sizes are over the model's genes: another annotation, other values else."""
    stranger = sparse.csr_matrix(np.random.default_rng(0).poisson(50, (120, 40)).astype(np.float32))
    names = [*cite.rna.var_names, *(f"X{i}" for i in range(40))]
    rna = AnnData(sparse.hstack([cite.rna.X, stranger], format="csr"), cite.rna.obs, pd.DataFrame(index=names))
    more = CiteSeq(rna, cite.protein, cite.obs)
    fitted, again = (Preprocessing.fit(one, ALL, DataConfig()) for one in (cite, more))
    assert all(np.array_equal(a, b) for a, b in zip(fields(fitted), fields(again), strict=True))
    np.testing.assert_array_equal(
        fitted.log_normalized(cite, ALL).toarray(), fitted.log_normalized(more, ALL).toarray()
    )  # fmt: skip


def test_missing_genes_do_not_inflate_the_others(cite):
    """The library is scaled up by the share of counts that the missing genes usually have."""
    fitted = Preprocessing.fit(cite, ALL, DataConfig())
    there = np.random.default_rng(0).permutation(300)[:200]
    part = Match(genes=np.full(300, -1), proteins=ALL.proteins)
    part.genes[there] = np.arange(200)
    whole = fitted.log_normalized(cite, ALL).toarray()[:, there]
    seen = fitted.log_normalized(columns(cite, there), part).toarray()
    assert not seen[:, part.genes < 0].any()
    assert np.median(np.expm1(seen[:, there]).sum(axis=1) / np.expm1(whole).sum(axis=1)) == pytest.approx(1, abs=0.05)


def test_scaling_centres_each_feature_or_uses_one_scale_or_leaves_values_alone(cite):
    scales = ("per_feature", "global", "none")
    fitted = {scale: Preprocessing.fit(cite, ALL, DataConfig(scale=scale)) for scale in scales}
    values = fitted["none"].log_normalized(cite, ALL).toarray()
    scaled = {scale: one.rna.transform(values) for scale, one in fitted.items()}
    np.testing.assert_array_equal(scaled["none"], values)
    unclipped = (np.abs(scaled["per_feature"]).max(axis=0) < 10) & values.any(axis=0)
    np.testing.assert_allclose(scaled["per_feature"].std(axis=0)[unclipped], 1, rtol=1e-3)
    np.testing.assert_allclose(scaled["per_feature"].mean(axis=0)[unclipped], 0, atol=1e-5)
    assert len(np.unique(fitted["global"].rna.std)) == 1
    assert fitted["none"].rna.clip is None


@pytest.mark.parametrize("scale", ["shrunk", "per_feature", "global", "none"])
def test_adapting_takes_the_genes_of_the_other_platform_in_the_models_own_way(cite, query, scale):
    """It once z-scored genes whatever the model was trained on, so that `paper` saw values it had never met."""
    config = DataConfig(scale=scale)
    fitted = Preprocessing.fit(cite, ALL, config)
    adapted = fitted.adapted(query, ALL, config)
    values = fitted.log_normalized(query, ALL).toarray()
    seen = adapted.rna.transform(values)
    if scale == "none":
        np.testing.assert_array_equal(seen, values)
    else:
        np.testing.assert_allclose(adapted.rna.mean, values.mean(axis=0), rtol=1e-4, atol=1e-6)
        assert (len(np.unique(adapted.rna.std)) == 1) == (scale == "global")


def test_adapting_leaves_proteins_and_genes_that_are_not_there_alone(cite, query):
    fitted = Preprocessing.fit(cite, ALL, DataConfig(scale="global"))
    part = Match(genes=np.where(np.arange(300) < 100, np.arange(300), -1), proteins=np.full(8, -1))
    adapted = fitted.adapted(query, part, DataConfig(scale="global"))
    np.testing.assert_array_equal(adapted.rna.mean[100:], fitted.rna.mean[100:])
    np.testing.assert_array_equal(adapted.rna.std[100:], fitted.rna.std[100:])
    assert (adapted.rna.mean[:100] != fitted.rna.mean[:100]).mean() > 0.5
    variance = fitted.log_normalized(query, part)[:, :100].toarray().var(axis=0)
    np.testing.assert_allclose(adapted.rna.std[:100], np.sqrt(variance.mean()), rtol=1e-4)  # of those that are there
    assert adapted.protein is fitted.protein
    assert adapted.gene_share is fitted.gene_share


def test_adapting_leaves_genes_alone_that_were_measured_in_no_cell(cite):
    """Some cells of a store have the genes of all its inputs, of which those of other inputs were not measured.

    These genes got the mean 0 and the deviation 1, so that the student saw unscaled values in cells that have them.
    """
    config = DataConfig(scale="global")
    fitted = Preprocessing.fit(cite, ALL, config)
    measured = np.arange(300) < 100
    part = columns(cite, np.arange(300))
    part.rna.X = sparse.csr_matrix(part.rna.X.multiply(measured))
    part.rna.obs["store_input"] = pd.Categorical(["first"] * part.rna.n_obs)
    part.rna.varm["store_measured"] = pd.DataFrame({"first": measured}, index=part.rna.var_names)
    lacking = Match(genes=np.where(measured, np.arange(300), -1), proteins=ALL.proteins)
    for name in ("mean", "std"):
        found, expected = (
            getattr(fitted.adapted(*cells, config).rna, name) for cells in ((part, ALL), (cite, lacking))
        )
        np.testing.assert_array_equal(found, expected)


def test_cells_without_counts_in_the_models_genes_stay_zero(cite):
    empty = columns(cite, np.arange(300))
    empty.rna.X = sparse.csr_matrix((120, 300), dtype=np.float32)
    fitted = Preprocessing.fit(cite, ALL, DataConfig())
    assert not fitted.log_normalized(empty, ALL).toarray().any()
