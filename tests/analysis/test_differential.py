"""Differential expression: known differences, scanpy's format, donors as replicates."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from matplotlib import pyplot
from mudata import MuData, read_h5mu
from scipy.sparse import csr_matrix

from scfusionttt import differential, plot
from scfusionttt.analysis.differential import pseudobulk, ranked
from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import INPUT, MEASURED
from support import copied

needs_deseq2 = pytest.mark.skipif(importlib.util.find_spec("pydeseq2") is None, reason="PyDESeq2 is not installed")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def known():
    """240 cells of 4 donors: T cells have 4 times as much of gene 0 and of CD3; donor d0 has much of gene 1."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"type": np.resize(["T", "T", "B", "NK"], 240), "donor": np.repeat([f"d{i}" for i in range(4)], 60)},
        index=[f"c{i}" for i in range(240)],
    )
    t = (obs["type"] == "T").to_numpy()
    level = np.full((240, 40), 4.0)
    level[t, 0] *= 4
    level[(obs["donor"] == "d0").to_numpy(), 1] *= 8
    genes = rng.poisson(level * rng.lognormal(0, 0.2, (240, 1)))
    genes[:, 39] = 0
    proteins = rng.poisson(np.where(t[:, None] & (np.arange(4) == 0), 80.0, 20.0)).astype(float)
    proteins[:3, 2] = np.nan
    with quiet():
        rna = AnnData(genes.astype(np.float32), obs=obs.copy())
        rna.var_names = [f"GENE{i}" for i in range(40)]
        prot = AnnData(proteins.astype(np.float32), obs=pd.DataFrame(index=obs.index))
        prot.var_names = ["CD3", "CD4", "CD19", "CD56"]
        mdata = MuData({"rna": rna, "prot": prot})
        mdata.obs[["type", "donor"]] = obs
    return SimpleNamespace(mdata=mdata, t=t, genes=genes, obs=obs)


def test_the_number_of_threads_stays(known):
    """Scanpy's test starts Numba's threads, and torch then rounded otherwise for the rest of the process."""
    threads = torch.get_num_threads()
    differential(known.mdata, "type")
    assert torch.get_num_threads() == threads


def test_known_differences_come_first_and_scanpy_reads_them(known):
    data = copied(known.mdata)
    table = differential(data, "type", inplace=True)
    assert sorted(table["group"].unique()) == ["B", "NK", "T"]
    of_t = table[table["group"] == "T"]
    assert of_t["names"].iloc[0] == "GENE0" and of_t["pvals_adj"].iloc[0] < 1e-10
    assert of_t["logfoldchanges"].iloc[0] == pytest.approx(2, abs=0.5)
    read = sc.get.rank_genes_groups_df(data["rna"], "T")
    pd.testing.assert_frame_equal(read, of_t.drop(columns="group").reset_index(drop=True), check_dtype=False)
    proteins = differential(data, "type", modality="protein", groups=["T"], inplace=True)
    assert proteins["names"].iloc[0] == "CD3" and len(proteins) == 4
    assert sc.get.rank_genes_groups_df(data["prot"], "T")["names"].iloc[0] == "CD3"
    assert plot.volcano(data["rna"], "T").get_xlabel() == "log2 fold change"


def test_a_view_of_a_file_is_refused_before_the_work(known, tmp_path):
    with quiet():
        known.mdata.write_h5mu(tmp_path / "cells.h5mu")
        view = read_h5mu(tmp_path / "cells.h5mu", backed="r")[:200]
        with pytest.raises(InputDataError, match="cannot write results into a view of a file on disk"):
            differential(view, "type", inplace=True)


def test_groups_are_compared_with_a_reference(known):
    table = differential(known.mdata, "type", groups=["T"], reference="B")
    alone = copied(known.mdata[(known.obs["type"] != "NK").to_numpy()])
    pd.testing.assert_frame_equal(table, differential(alone, "type", groups=["T"], reference="B"))


def test_groups_are_named_by_the_numbers_that_they_are(known):
    """The group 1 of a column of numbers was "no group '1.0'; it has 1, 2", and the reference 2 not found."""
    data = copied(known.mdata)
    data.obs["cluster"] = np.where(known.t, 1.0, 2.0)
    named = differential(data, "cluster", groups=["1"], reference="2")
    pd.testing.assert_frame_equal(differential(data, "cluster", groups=[1.0], reference=2), named)


def test_a_group_need_not_be_in_a_list(known):
    """The group "12" of clusters was taken for the groups 1 and 2, without a word."""
    data = copied(known.mdata)
    data.obs["cluster"] = known.obs["type"].map({"T": "12", "B": "1", "NK": "2"}).to_numpy()
    table = differential(data, "cluster", groups="12")
    pd.testing.assert_frame_equal(table, differential(data, "cluster", groups=["12"]))


def test_a_sum_has_all_cells_of_a_donor_on_one_side(known):
    part = known.mdata["rna"]
    donor = known.obs["donor"].to_numpy(str).copy()
    donor[:15] = "few"  # 8 T cells and 7 others: too few for a sum
    sums, samples = pseudobulk(part, known.obs["type"].to_numpy(str), "T", "rest", donor)
    assert samples.value_counts().max() == 1 and "few" not in set(samples["donor"])
    chosen = (donor == "d2") & known.t
    row = ((samples["donor"] == "d2") & (samples["side"] == "group")).to_numpy()
    np.testing.assert_array_equal(sums[row][0], known.genes[chosen].sum(axis=0))
    versus, _ = pseudobulk(part, known.obs["type"].to_numpy(str), "T", "B", donor)
    assert versus.sum() < sums.sum()


@needs_deseq2
def test_donors_are_the_replicates(known):
    """A gene of one donor is no difference between groups, and a gene without counts is not tested."""
    table = differential(known.mdata, "type", groups=["T"], donor_key="donor", inplace=False)
    assert table["names"].iloc[0] == "GENE0"
    assert table["logfoldchanges"].iloc[0] == pytest.approx(2, abs=0.4)
    rows = table.set_index("names")
    assert rows.loc["GENE1", "pvals_adj"] > 0.05
    assert rows.loc["GENE39", ["scores", "pvals", "pvals_adj"]].tolist() == [0, 1, 1]
    assert plot.volcano(table, "T") is not None


@needs_deseq2
def test_a_gene_rejected_as_an_outlier_is_not_ranked_first():
    """DESeq2 gives it no p-value, but a statistic: it came first, with a p-value of 1."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (96, 30)).astype(np.float32)
    counts[:12, 0] = 2000
    rna = AnnData(counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(96)]))
    rna.var_names = [f"GENE{i}" for i in range(30)]
    rna.obs["donor"], rna.obs["type"] = np.repeat(list("abcdefgh"), 12), np.repeat(["T", "B"], 48)
    table = differential(rna, "type", groups=["T"], donor_key="donor")
    assert table["names"].iloc[0] != "GENE0"
    assert table.set_index("names").loc["GENE0", ["scores", "pvals"]].tolist() == [0, 1]


def test_donors_are_compared_by_several_features_with_counts():
    """Without any, PyDESeq2 failed with "no types given"; one alone is its own depth, and has a p-value of 1."""
    counts = np.random.default_rng(0).poisson(5, (80, 3)).astype(np.float32)
    counts[:, 1:] = 0
    rna = AnnData(counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(80)]))
    rna.var_names = ["CD3E", "CD4", "CD8A"]
    rna.obs["donor"], rna.obs["type"] = np.tile(np.repeat(["1", "2"], 20), 2), np.repeat(["T", "B"], 40)
    with pytest.raises(InputDataError, match="DESeq2 needs at least 2 features with 10 counts"):
        differential(rna, "type", donor_key="donor")


def test_donor_key_names_what_is_missing(known, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydeseq2.dds", None)
    with pytest.raises(SettingError, match=r"donor_key needs PyDESeq2; pip install 'scfusionttt\[de\]'"):
        differential(known.mdata, "type", donor_key="donor")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "kind"}, LabelError, "there is no obs\\['kind'\\]"),
        ({"groups": ["Mono"]}, LabelError, "has no group 'Mono'; it has B, NK, T"),
        ({"modality": "adt"}, SettingError, "modality must be rna or protein"),
        ({"donor_key": "one"}, InputDataError, "group 'B' has 1 donor with at least 10 cells; 2 are needed"),
        ({"groupby": "one"}, LabelError, "has a single group to compare"),
        ({"groupby": "other"}, LabelError, "rename the group 'rest' of obs\\['other'\\]"),
    ],
)
def test_mistakes_are_named(options, error, message, known):
    data = known.mdata["rna"].copy()
    data.obs = known.obs[["type"]].assign(one="a", other=np.where(known.t, "T", "rest"))
    with pytest.raises(error, match=message):
        differential(data, **{"groupby": "type", **options})


def test_each_protein_is_tested_in_the_cells_where_it_was_measured(known):
    """Cells that lacked one protein of the panel were left out for all of them."""
    data = copied(known.mdata)
    full = differential(data, "type", modality="protein", groups=["T"]).set_index("names")
    data["prot"].X[:120, 0] = np.nan
    late = differential(copied(data[120:]), "type", modality="protein", groups=["T"]).set_index("names")
    table = differential(data, "type", modality="protein", groups=["T"]).set_index("names")
    columns = ["scores", "logfoldchanges", "pvals"]
    pd.testing.assert_frame_equal(table.loc[["CD3"], columns], late.loc[["CD3"], columns])
    others = ["CD4", "CD19", "CD56"]
    pd.testing.assert_frame_equal(table.loc[others, columns], full.loc[others, columns])
    assert table["pvals_adj"].min() == pytest.approx(4 * table["pvals"].min())


def test_two_antibodies_of_one_name_have_a_row_each(known):
    """If they were measured in other cells, one of them had a second row."""
    with quiet():
        prot = known.mdata["prot"].copy()
        prot.var_names = ["CD3", "CD4", "CD3", "CD56"]
        data = MuData({"rna": known.mdata["rna"].copy(), "prot": prot})
        data.obs = known.obs
    table = differential(data, "type", modality="protein", groups=["T"])
    assert sorted(table["names"]) == ["CD3", "CD3-1", "CD4", "CD56"]


def test_a_gene_is_tested_in_the_cells_of_the_inputs_that_have_it(known):
    """Where inputs were joined, it counted as 0 in the cells of the others."""
    genes = known.genes.astype(np.float32)
    genes[:120, 0] = 0
    with quiet():
        rna = AnnData(csr_matrix(genes), obs=pd.DataFrame(index=known.obs.index))
        rna.obs[INPUT] = pd.Categorical(np.repeat(["a", "b"], 120))
        rna.varm[MEASURED] = pd.DataFrame({"a": np.arange(40) > 0, "b": True}, index=rna.var_names)
        joined = CiteSeq(rna, None, known.obs)
        late = joined[np.arange(120, 240)]
    table, own = (differential(cells, "type", groups=["T"]).set_index("names") for cells in (joined, late))
    columns = ["scores", "logfoldchanges", "pvals"]
    pd.testing.assert_frame_equal(table.loc[["0"], columns], own.loc[["0"], columns])


def test_groups_of_two_panels_are_compared_by_what_both_have_measured(known):
    data = copied(known.mdata)
    t = known.t
    data["prot"].X[t, 1] = np.nan
    data["prot"].X[~t, 0] = np.nan
    table = differential(data, "type", modality="protein", inplace=True).set_index(["group", "names"])
    assert table["scores"].isna().groupby("group").sum().to_dict() == {"B": 1, "NK": 1, "T": 2}
    assert len(sc.get.rank_genes_groups_df(data["prot"], "T")) == 4
    plot.volcano(data["prot"], "T")
    data["prot"].X[t] = np.nan
    with pytest.raises(InputDataError, match="no protein was measured in 2 cells of group T and 2 of rest; choose"):
        differential(data, "type", modality="protein", groups=["T"])


def test_groups_of_too_few_cells_are_left_out_unless_they_are_chosen(known, caplog):
    """One cell of a type of its own ended the command, which tests all groups by default."""
    data = known.mdata["rna"].copy()
    data.obs["type"] = np.where(np.arange(240) == 0, "odd", known.obs["type"])
    assert set(differential(data, "type")["group"]) == {"B", "NK", "T"}
    assert "warning: left out for lack of cells: group odd" in caplog.text
    with pytest.raises(LabelError, match="group 'odd' of obs\\['type'\\] has 1 cell"):
        differential(data, "type", groups=["T", "odd"])


@needs_deseq2
def test_groups_of_too_few_donors_are_left_out_unless_they_are_chosen(known, caplog):
    """A type that few donors have ended the command after the work, and the message named one at a time."""
    data = known.mdata["rna"].copy()
    data.obs["type"] = np.where((known.obs["type"] == "NK") & (known.obs["donor"] != "d0"), "B", known.obs["type"])
    data.obs["donor"] = known.obs["donor"]
    assert set(differential(data, "type", donor_key="donor")["group"]) == {"B", "T"}
    assert "warning: left out for lack of donors with at least 10 cells: group NK" in caplog.text
    with pytest.raises(InputDataError, match="group 'NK' has 1 donor with at least 10 cells"):
        differential(data, "type", groups=["NK"], donor_key="donor")


@needs_deseq2
def test_donors_are_compared_where_a_protein_was_measured(known):
    data = copied(known.mdata)
    data["prot"].X[:60, 3] = np.nan
    data["prot"].X[:180, 2] = np.nan  # one donor is left
    options = {"modality": "protein", "groups": ["T"], "donor_key": "donor"}
    table = differential(data, "type", **options).set_index("names")
    assert table["pvals"].isna().to_dict() == {"CD3": False, "CD4": False, "CD56": False, "CD19": True}
    late = differential(copied(data[60:]), "type", **options).set_index("names")
    assert table.loc["CD56", "pvals"] == late.loc["CD56", "pvals"]


def test_imputed_proteins_are_refused(known):
    """They have less variance than measured ones, so that every test would find more differences than there are."""
    adata = known.mdata["rna"].copy()
    values = np.random.default_rng(0).normal(1, 0.3, (240, 2))
    adata.obsm["protein_imputed"] = pd.DataFrame(values, index=adata.obs_names, columns=["CD3", "CD4"])
    with pytest.raises(InputDataError, match="no proteins found"):
        differential(adata, "type", modality="protein")
    with pytest.raises(InputDataError, match="not raw counts"):
        differential(adata, "type", modality="protein", protein_modality="protein_imputed")


def test_groups_may_have_any_name():
    table = pd.DataFrame({"names": ["A", "B"], "scores": [1.0, 0], "logfoldchanges": [1.0, 0], "pvals": [0.1, 1]})
    table["pvals_adj"] = table["pvals"]
    stored = ranked({"CD4+ T, naive": table, "2": table}, {})
    assert stored["names"]["CD4+ T, naive"].tolist() == ["A", "B"]
    assert stored["pvals"]["2"].tolist() == [0.1, 1.0]
