"""Doublets made of known cells are told from single cells, and cells of low quality are named with a reason."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import roc_auc_score

from scfusionttt import quality, simulate
from scfusionttt.analysis.doublets import doublets, exclusion
from scfusionttt.analysis.quality import summary
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import InputDataError, LabelError
from scfusionttt.io.read import read


@pytest.fixture(scope="module")
def mixed():
    """300 single cells, 30 sums of two types, and 10 sums of one type."""
    cite = as_citeseq(simulate(380, 200, 12, 3, n_isotypes=1))
    kind = cite.obs["cell_type"].to_numpy(str)
    rng = np.random.default_rng(0)
    first, second = rng.integers(300, 380, (2, 2000))
    differ = kind[first] != kind[second]
    chosen = np.concatenate([np.flatnonzero(differ)[:30], np.flatnonzero(~differ & (first != second))[:10]])
    first, second = first[chosen], second[chosen]
    rna = sparse.vstack([cite.rna.X[:300], cite.rna.X[first] + cite.rna.X[second]], format="csr")
    protein = np.vstack([cite.protein.X[:300], cite.protein.X[first] + cite.protein.X[second]])
    obs = pd.DataFrame({"run": "a"}, index=[f"c{i}" for i in range(340)])
    data = CiteSeq(
        AnnData(rna, obs=obs[[]], var=cite.rna.var), AnnData(protein, obs=obs[[]], var=cite.protein.var), obs
    )
    return SimpleNamespace(cite=data, doublet=np.arange(340) >= 300, of_two_types=slice(300, 330))


def test_doublets_of_two_types_stand_out(mixed):
    table = quality(mixed.cite)
    scored = np.r_[0:330]
    assert roc_auc_score(mixed.doublet[scored], table["doublet_score"].iloc[scored]) > 0.92
    called = table["predicted_doublet"].to_numpy()
    assert called[mixed.of_two_types].mean() > 0.5
    assert called[:300].mean() < 0.08


def test_proteins_add_to_genes(mixed):
    alone = quality(CiteSeq(mixed.cite.rna, None, mixed.cite.obs))
    assert alone["protein_counts"].isna().all()
    both = quality(mixed.cite)
    scored = np.r_[0:330]
    of_rna, of_both = (roc_auc_score(mixed.doublet[scored], t["doublet_score"].iloc[scored]) for t in (alone, both))
    assert of_rna > 0.8
    assert of_both > of_rna - 0.01


def test_features_exclude_each_other_if_they_are_together_less_often_than_by_chance():
    first = np.arange(400) % 2 == 0
    present = np.stack([first, ~first, first, np.arange(400) % 4 < 2], axis=1)
    weights = exclusion(present)
    np.testing.assert_array_equal(weights, weights.T)
    assert weights[0, 1] > 50 and weights[1, 2] > 50
    assert weights[0, 2] == weights[0, 3] == weights[0, 0] == 0


def test_features_that_exclude_each_other_in_many_cells_weigh_most():
    """From some 2,600 cells on, their probability of being together underflowed, and such pairs weighed nothing."""
    first = np.arange(8000) % 2 == 0
    assert exclusion(np.stack([first, ~first], axis=1))[0, 1] == pytest.approx(-8000 * np.log(0.75))


def test_features_are_compared_in_the_cells_that_have_both():
    first = np.arange(400) % 2 == 0
    present = np.stack([first, ~first, first], axis=1).astype(float)
    lacking = np.vstack([present, np.full((300, 3), np.nan), np.tile([np.nan, np.nan, 1], (300, 1))])
    np.testing.assert_array_equal(exclusion(lacking), exclusion(present))


def test_cells_without_proteins_are_scored_by_their_genes(mixed):
    """They counted as cells that have no protein, beside which others stood out: of single cells of PBMC10K, 12 %."""
    protein, without = mixed.cite.protein.X.copy(), np.arange(340) % 2 == 0
    protein[without] = np.nan
    (both, called), (genes, _) = (doublets(mixed.cite.rna.X, one) for one in (protein, None))
    np.testing.assert_array_equal(both[without], genes[without])
    assert both[~without].mean() == pytest.approx(genes[~without].mean() / 2)
    assert called[mixed.of_two_types].mean() > 0.5 and called[:300].mean() < 0.08


def test_low_quality_is_named_with_its_reason():
    rng = np.random.default_rng(0)
    names = ["MT-CO1", "MT-ND1", *(f"GENE{i}" for i in range(100)), "CD3E", "CD4", "CD8A", "CD19"]
    counts = rng.poisson(5, (60, len(names)))
    counts[0], counts[1, 5:] = 0, 0
    counts[0, :8], counts[2, :2] = 1, 500
    proteins = rng.poisson(100, (60, 5)).astype(float)
    proteins[3], proteins[4], proteins[5] = 5, 20_000, np.nan
    adata = AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(60)]))
    adata.var_names = names
    adata.obsm["protein"] = pd.DataFrame(proteins, index=adata.obs_names, columns=["CD3", "CD4", "CD8", "CD14", "CD19"])
    table = quality(adata, species="human", inplace=True)
    assert table["reason"].tolist()[:7] == [
        "few counts", "few counts", "mitochondrial", "few proteins", "many proteins", "", "",
    ]  # fmt: skip
    assert (table["low_quality"] == (table["reason"] != "")).all()
    assert table["doublet_score"].isna().all() and not table["predicted_doublet"].any()  # too few cells
    assert table["pct_counts_mt"].iloc[2] == pytest.approx(100 * 1000 / counts[2].sum())
    pd.testing.assert_frame_equal(adata.obs[table.columns], table, check_names=False)
    assert summary(table).loc["low quality: few counts"].tolist() == [2, pytest.approx(100 * 2 / 60)]


def test_flags_that_could_not_be_computed_are_not_counted_as_zero(mixed):
    """The report said that no cell had few proteins where there were none, or was mitochondrial without such genes."""
    rna = mixed.cite.rna[:, ~mixed.cite.rna.var_names.str.startswith("MT-")].copy()
    rows = summary(quality(CiteSeq(rna, None, mixed.cite.obs))).index
    assert rows.tolist() == ["doublets", "low quality: few counts", "low quality: few genes"]


def test_percentages_are_of_the_cells_that_could_have_the_flag(mixed):
    """They were of all cells, also of those without proteins or in batches too small to look for doublets."""
    protein = mixed.cite.protein.copy()
    protein.X[:170], protein.X[339] = np.nan, 20_000
    obs = mixed.cite.obs.assign(run=np.where(np.arange(340) < 300, "large", "small"))
    table = quality(CiteSeq(mixed.cite.rna, protein, obs), batch_key="run", cells="all")
    many, called = (table["reason"] == "many proteins").sum(), table["predicted_doublet"].sum()
    assert many and called
    percent = summary(table)["percent"]
    assert percent["doublets"] == pytest.approx(100 * called / 300)
    assert percent["low quality: many proteins"] == pytest.approx(100 * many / 170)


def test_a_cell_among_nuclei_is_mitochondrial():
    """Most nuclei have no mitochondrial counts; without deviation from the median, no cell was flagged."""
    rng = np.random.default_rng(0)
    adata = AnnData(rng.poisson(5, (60, 105)).astype(np.float32))
    adata.var_names = ["MT-CO1", *(f"GENE{i}" for i in range(100)), "CD3E", "CD4", "CD8A", "CD19"]
    adata.X[:, 0] = 0
    adata.X[:3, 0] = 2, 5, 500
    assert (quality(adata, species="human")["reason"] == "mitochondrial").to_numpy().nonzero()[0].tolist() == [2]


def test_cells_are_compared_within_their_batch(mixed):
    """Of two runs of different depth, every cell of the shallow one had few counts."""
    cite = mixed.cite
    shallow = cite.rna.X.copy()
    shallow.data = np.ceil(shallow.data / 20)
    rna = AnnData(sparse.vstack([cite.rna.X, shallow], format="csr"), var=cite.rna.var)
    rna.obs_names = [f"c{i}" for i in range(680)]
    rna.obs["run"] = np.repeat(["a", "b"], 340)
    table = quality(rna, batch_key="run")
    assert list(table.index) == list(rna.obs_names)
    pd.testing.assert_frame_equal(table[:340], quality(rna[:340].copy()))
    with pytest.raises(LabelError, match="there is no obs\\['lane'\\]"):
        quality(rna, batch_key="lane")


def test_hashtags_and_unmapped_reads_are_no_proteins(mixed):
    """Their counts were part of the sum, so that cells had "many proteins" by their share of unmapped reads."""
    cite = mixed.cite
    aside = AnnData(np.full((340, 2), 5000, dtype=np.float32), obs=cite.protein.obs)
    aside.var_names = ["unmapped", "Hashtag1"]
    aside.X[0] = 1e6
    protein = AnnData(np.hstack([cite.protein.X, aside.X]), obs=cite.protein.obs)
    protein.var_names = [*cite.protein.var_names, *aside.var_names]
    pd.testing.assert_frame_equal(quality(CiteSeq(cite.rna, protein, cite.obs)), quality(cite))


def test_a_citeseq_is_not_written_into(mixed):
    with pytest.raises(InputDataError, match="set inplace=False"):
        quality(mixed.cite, inplace=True)


@pytest.mark.slow
def test_named_doublets_are_found(real_data):
    data = read(real_data / "sln111_paired_mouse.h5mu")
    table = quality(data)
    assert roc_auc_score(data.obs["cell_type"].astype(str).str.contains("doublet"), table["doublet_score"]) > 0.85
