from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scfusionttt.config import DataConfig
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cohort import Cohort
from scfusionttt.data.features import Match
from scfusionttt.data.kinds import evenly_drawn
from scfusionttt.data.loader import cell_dataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.staining import shrunk, staining
from scfusionttt.data.store.sources import open_source
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.store.write import write_store
from scfusionttt.fitting.new_staining import PENALTY, _difference
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import INPUT, MEASURED
from scfusionttt.simulation.simulate import simulate

N_PROTEINS = 12
#: Planted: by how much more (natural log) the second batch stains.
PLANTED = np.linspace(-3, 3, N_PROTEINS)


def cells_of(rng, *shares, planted=PLANTED):
    """Return scaled genes, log counts and batches of cells of three types, whose `shares` differ by batch."""
    batch = np.repeat(np.arange(len(shares)), 300)
    types = np.concatenate([rng.choice(3, 300, p=share) for share in shares])
    genes = np.zeros((len(batch), 60), dtype=np.float32)
    genes[np.arange(len(batch)), types * 20] = 4
    genes = genes + 0.3 * batch[:, None] * np.sin(np.arange(60)) + rng.normal(0, 0.5, genes.shape)
    level = np.array([np.roll(np.repeat([6.0, 1.0], [4, 8]), 4 * kind) for kind in range(3)])[types]
    logs = level + rng.normal(0, 0.3, level.shape) + np.where(batch == 1, 1, 0)[:, None] * planted
    return genes.astype(np.float32), logs, batch[:, None]


def difference(genes, logs, batch):
    first, second = staining(genes, logs, batch, np.bincount(batch[:, 0]), seed=0)
    return second - first


@pytest.mark.parametrize("share", [(0.4, 0.3, 0.3), (0.05, 0.15, 0.8)], ids=["same", "other composition"])
def test_a_planted_difference_is_found_whatever_the_composition(share):
    """With plain means of the counts, a batch with other cells would stain differently."""
    cells = cells_of(np.random.default_rng(0), (0.4, 0.3, 0.3), share)
    np.testing.assert_allclose(difference(*cells), PLANTED, atol=0.45)
    plain = [cells[1][cells[2][:, 0] == level].mean(axis=0) for level in (0, 1)]
    assert share[0] == 0.4 or np.abs(plain[1] - plain[0] - PLANTED).max() > 1


def test_a_small_difference_is_left_to_the_correction_of_batch_effects():
    cells = cells_of(np.random.default_rng(0), (0.4, 0.3, 0.3), (0.3, 0.4, 0.3), planted=0.1 * PLANTED)
    assert (staining(*cells, np.array([300, 300]), seed=0) == 0).all()


def test_proteins_and_batches_that_were_not_measured_are_not_judged():
    genes, logs, batch = cells_of(np.random.default_rng(0), *[(0.4, 0.3, 0.3)] * 3)
    logs[batch[:, 0] == 1, 3] = np.nan
    logs[batch[:, 0] == 2] = np.nan
    of_batch = staining(genes, logs, batch, np.array([300, 300, 300, 0]), seed=0)  # of the last batch there is no cell
    assert np.isnan(of_batch[2:]).all() and np.isnan(of_batch[1, 3])
    np.testing.assert_allclose((of_batch[1] - of_batch[0])[4:], PLANTED[4:], atol=0.45)


def test_a_protein_without_counts_in_most_kinds_is_not_judged():
    """At few counts, CD19 was found to stain half of a sample 100 times more than the other half."""
    degrees = np.repeat(np.eye(3), 100, axis=0)
    ratios = np.random.default_rng(0).gamma(4, 0.5, (300, 3))
    expected = np.log1p(ratios / [1, 1, np.e])
    ratios[100:, 0], expected[100:, 0] = 0.01, -0.01  # regressions may predict values below 0
    ratios[:, 1] = 0
    found = _difference(ratios, expected, degrees)
    np.testing.assert_allclose(found, [0, 0, 300 / (300 + PENALTY)], atol=1e-6)


def test_batches_are_compared_with_the_largest_of_which_no_more_cells_are_drawn():
    """Where two are equally large in the sample, rounding chose one: batches that stain alike came to differ."""
    genes, logs, batch = (part[3:-3] for part in cells_of(np.random.default_rng(0), *[(0.4, 0.3, 0.3)] * 3))
    for sizes in ([5000, 400, 400], [400, 400, 5000]):
        first, second, third = staining(genes, logs, batch, np.array(sizes), seed=0)
        assert not first.any() and not third.any()
        np.testing.assert_allclose(second, PLANTED, atol=0.45)


def test_proteins_that_only_batches_of_one_study_have_do_not_hide_how_another_stains():
    """Two donors with 224 proteins, next to PBMC10K with 14 of these, came to differ 8 times in CD45RA."""
    rng = np.random.default_rng(0)
    genes, logs, batch = cells_of(rng, *[(0.4, 0.3, 0.3)] * 3)
    others = np.where(batch == 1, np.nan, rng.normal(3, 0.3, (len(logs), 200)))
    of_batch = staining(genes, np.hstack([logs, others]), batch, np.array([400, 5000, 300]), seed=0)
    np.testing.assert_allclose(of_batch[[0, 2], :N_PROTEINS], [-PLANTED, -PLANTED], atol=0.45)
    assert not of_batch[[0, 2], N_PROTEINS:].any()


def test_batches_of_one_study_are_not_told_apart_by_a_larger_one_of_another():
    """Donors stained alike, each compared with PBMC10K, came to differ by the errors of the two comparisons."""
    genes, logs, batch = cells_of(np.random.default_rng(0), *[(0.4, 0.3, 0.3), (0.2, 0.6, 0.2)] * 2)
    first, *others = staining(genes, logs, batch, np.array([400, 5000, 300, 300]), seed=0)
    assert not others[0].any()
    for other in others[1:]:
        np.testing.assert_array_equal(first, other)
    np.testing.assert_allclose(first, -PLANTED, atol=0.45)


def test_few_cells_are_believed_less():
    genes, logs, batch = cells_of(np.random.default_rng(0), (0.4, 0.3, 0.3), (0.4, 0.3, 0.3))
    few = np.r_[:300, 300:306]
    assert np.abs(difference(genes[few], logs[few], batch[few])[[0, -1]]).max() < 2


def test_small_differences_shrink_to_none_and_large_ones_hardly():
    values = np.array([[0.3, -0.3, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(shrunk(values, 0.4), [[0, 0, 0], [3 * 0.9872, 4 * 0.9872, 0], [0, 0, 0]])


def test_large_batches_lose_cells_first():
    batch = np.repeat([0, 1], [900, 40])[:, None]
    drawn = evenly_drawn(batch, 200, seed=1)
    assert np.bincount(batch[drawn, 0]).tolist() == [100, 40]
    assert (np.diff(drawn) > 0).all() and (evenly_drawn(batch, 1000, seed=1) == np.arange(940)).all()


def test_more_combinations_of_batches_than_cells_to_draw():
    """No cell was drawn of many donors crossed with many lanes, and pretrain ended in a traceback."""
    assert len(set(evenly_drawn(np.arange(60)[:, None], 25, seed=1))) == 25


@pytest.fixture(scope="module")
def studies():
    """Cells of two batches, of which the second stains differently, up to 30 times."""
    mdata = simulate(900, 300, 14, 4, n_batches=2, batch_effect=0.1)
    stained = (mdata.obs["batch"] == "batch 2").to_numpy()
    factors = np.exp(np.random.default_rng(0).normal(0, 1.5, 14))
    mdata["prot"].X[stained] = np.round(mdata["prot"].X[stained] * factors)
    return mdata


MATCH = Match(genes=np.arange(300), proteins=np.arange(14))


def test_log_ratios_are_those_of_a_batch_that_stains_like_the_mean(studies):
    """Two studies did not mix: counts differed up to 40 times, which no shift of log-ratios takes out."""
    cite, stained = as_citeseq(studies), (studies.obs["batch"] == "batch 2").to_numpy()
    cohort = Cohort.of(cite.obs, "batch")
    codes = cohort.codes(cite.obs)
    fitted = Preprocessing.fit(cite, MATCH, DataConfig(), cohort)
    own, of_all = fitted.log_ratios(cite, MATCH, codes), fitted.log_ratios(cite, MATCH)

    def gap(values):
        """Difference of the batches in the standard deviations of a type."""
        types = studies.obs["cell_type"].to_numpy()
        gaps = []
        for name in np.unique(types):
            first, second = (values[(types == name) & rows] for rows in (~stained, stained))
            gaps.append(np.abs(first.mean(axis=0) - second.mean(axis=0)) / first.std(axis=0))
        return np.mean(gaps)

    assert gap(own) < 0.4 * gap(of_all)
    np.testing.assert_allclose(np.bincount(codes[:, 0]) @ fitted.staining, 0, atol=1e-6)
    again = Preprocessing.from_dict(fitted.to_dict())
    np.testing.assert_array_equal(again.log_ratios(cite, MATCH, codes), own)
    np.testing.assert_array_equal(fitted.log_ratios(cite, MATCH, np.full((900, 1), -1)), of_all)
    old = {name: value for name, value in fitted.to_dict().items() if name != "staining"}
    np.testing.assert_array_equal(Preprocessing.from_dict(old).log_ratios(cite, MATCH, codes), of_all)


def test_genes_that_a_batch_lacks_do_not_hide_how_it_stains(studies):
    """They counted as not expressed: next to 4,000 genes, CD3 of a study with 428 of these differed half as much."""
    cite, second = as_citeseq(studies), (studies.obs["batch"] == "batch 2").to_numpy()
    cohort = Cohort.of(cite.obs, "batch")
    whole = Preprocessing.fit(cite, MATCH, DataConfig(), cohort).staining
    part = np.random.default_rng(0).permutation(300)
    measured = pd.DataFrame({"one": part % 5 < 3, "two": part % 5 > 1}, index=cite.rna.var_names)
    counts = cite.rna.X.multiply(measured.to_numpy().T[second.astype(int)])
    rna = AnnData(sparse.csr_matrix(counts), obs=cite.obs.assign(**{INPUT: np.where(second, "two", "one")}))
    rna.varm[MEASURED] = measured.set_axis(rna.var_names)
    partial = Preprocessing.fit(replace(cite, rna=rna), MATCH, DataConfig(), cohort).staining
    assert np.abs(partial - whole).max() < 0.05 < 0.9 < np.abs(whole).max()


def test_a_store_gives_the_same(studies, tmp_path, monkeypatch):
    with quiet():
        studies.write_h5mu(tmp_path / "cells.h5mu")
    write_store([open_source(tmp_path / "cells.h5mu")], tmp_path / "cells.zarr", seed=3)
    stored, cite = open_store(tmp_path / "cells.zarr"), as_citeseq(studies)
    cohort = Cohort.of(cite.obs, "batch")
    monkeypatch.setattr("scfusionttt.data.preprocess.SAMPLE_CELLS", 500)
    in_store = Match(
        genes=stored.rna.var_names.get_indexer(cite.rna.var_names),
        proteins=stored.protein.var_names.get_indexer(cite.protein.var_names),
    )
    streamed, whole = (
        Preprocessing.fit(each, match, DataConfig(), cohort) for each, match in ((stored, in_store), (cite, MATCH))
    )
    np.testing.assert_allclose(streamed.staining, whole.staining, atol=1e-4)
    np.testing.assert_allclose(streamed.protein.mean, whole.protein.mean, atol=1e-4)
    assert np.abs(whole.staining).max() > 0.5
    codes = cohort.codes(cite.obs)
    batch, expected = (
        cell_dataset(each, match, whole, batches=codes).__getitems__([5, 300, 7])
        for each, match in ((stored, in_store), (cite, MATCH))
    )
    np.testing.assert_array_equal(batch.protein, expected.protein)
