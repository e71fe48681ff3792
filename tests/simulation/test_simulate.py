import numpy as np
import pandas as pd
import pytest
from mudata import read_h5mu
from scipy import sparse

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.evaluation import classification_scores
from scfusionttt.evaluation.baselines import features, logistic_regression, zscore
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.tables import load_genes
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.blood import LINEAGE, PROTEINS
from scfusionttt.simulation.simulate import simulate, simulate_query
from scfusionttt.simulation.tissue import BLOCK_LENGTH, panel
from support import copied

SMALL = {"n_cells": 200, "n_genes": 300, "n_proteins": 12, "n_types": 4}


@pytest.fixture(scope="module")
def mdata():
    return simulate(2000, 1000)


@pytest.fixture(scope="module")
def log_rna(mdata):
    counts = mdata["rna"].X
    return (sparse.diags(1e4 / np.asarray(counts.sum(axis=1)).ravel()) @ counts).log1p()


def types_of(cells):
    return cells.obs["cell_type"].astype(str).to_numpy()


def test_shape_and_kind_of_what_comes_out(mdata):
    rna, protein = mdata["rna"], mdata["prot"]
    assert rna.shape == (2000, 1000)
    assert protein.shape == (2000, 20)
    assert isinstance(rna.X, sparse.csr_matrix)
    assert isinstance(protein.X, np.ndarray)
    for counts in (rna.X.data, protein.X):
        assert counts.dtype == np.float32
        assert (counts >= 0).all()
        assert (counts == np.round(counts)).all()
    assert rna.obs_names.equals(protein.obs_names)
    assert mdata.obs["cell_type"].nunique() == 6
    assert mdata.obs_names.is_unique
    assert mdata.var.shape == (1020, 0)


def test_the_same_seed_gives_the_same_counts():
    once, again, other = simulate(**SMALL), simulate(**SMALL), simulate(**SMALL, seed=1)
    assert (once["rna"].X != again["rna"].X).nnz == 0
    assert np.array_equal(once["prot"].X, again["prot"].X)
    assert once.obs.equals(again.obs)
    assert once["rna"].var.equals(again["rna"].var)
    assert not np.array_equal(once["prot"].X, other["prot"].X)


def test_global_random_state_is_neither_read_nor_changed():
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = simulate(**SMALL)["prot"].X
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert np.array_equal(simulate(**SMALL)["prot"].X, first)


@pytest.mark.parametrize(("species", "assembly"), [("human", "GRCh38"), ("mouse", "GRCm39")])
def test_genes_are_real_and_in_genome_order(species, assembly):
    n_proteins = len(panel(species, len(PROTEINS)))
    mdata = simulate(100, 800, n_proteins, species=species)
    known = load_genes(assembly).set_index("gene_id")
    var = mdata["rna"].var
    assert var.index.is_unique
    assert (known.loc[var["gene_ids"], "symbol"].to_numpy() == var.index).all()
    assert (known.loc[var["gene_ids"], "start"].to_numpy() == var["start"]).all()
    assert var.groupby("chromosome", sort=False)["start"].apply(lambda start: start.is_monotonic_increasing).all()
    assert (var["chromosome"] != var["chromosome"].shift()).sum() == var["chromosome"].nunique()
    assert mdata["prot"].var["gene"].isin(var.index).all()


@pytest.mark.parametrize("species", ["human", "mouse"])
def test_antibodies_resolve_to_the_gene_that_was_simulated(species):
    n_proteins = len(panel(species, len(PROTEINS)))
    var = simulate(100, 100, n_proteins, n_isotypes=3, species=species)["prot"].var
    table = resolve_antibodies(var.index, species=species).table
    assert table["symbol"].fillna("").tolist() == var["gene"].tolist()
    assert (table["kind"] == "isotype").tolist() == var["isotype"].tolist()


def test_genes_are_neighbours_in_the_real_genome(mdata):
    coding = load_genes().query("chromosome == '1'").sort_values("start")
    place = pd.Series(range(len(coding)), index=coding["gene_id"])
    chosen = mdata["rna"].var.query("chromosome == '1'")["gene_ids"]
    # chromosome 1 has over 5000 genes of every kind: 1000 genes strewn at random would lie dozens apart
    assert np.median(np.diff(place[chosen])) < 8


def test_blocks_stay_on_a_chromosome_and_have_the_stated_length():
    var = simulate(50, 6000)["rna"].var
    assert (var.groupby("block")["chromosome"].nunique() == 1).all()
    assert var["block"].is_monotonic_increasing
    length = var["block"].value_counts()
    # cut further at the borders of neighbourhoods of twenty genes
    assert 0.5 * BLOCK_LENGTH < length.mean() < BLOCK_LENGTH


def test_neighbours_are_co_regulated_beyond_types(mdata, log_rna):
    expressed = np.asarray((mdata["rna"].X > 0).mean(axis=0)).ravel() > 0.2
    scaled = pd.DataFrame(zscore(log_rna)[:, expressed])
    within = scaled - scaled.groupby(types_of(mdata)).transform("mean")
    correlation = np.corrcoef(within.T)
    block = mdata["rna"].var["block"].to_numpy()[expressed]
    same = block[:, None] == block
    np.fill_diagonal(same, False)
    assert correlation[same].mean() > 0.1
    assert abs(correlation[block[:, None] != block].mean()) < 0.02


def test_sparsity_and_library_sizes(mdata):
    counts = mdata["rna"].X
    assert 0.85 < 1 - counts.nnz / np.prod(counts.shape) < 0.95
    library = np.asarray(counts.sum(axis=1)).ravel()
    assert np.median(library) == pytest.approx(0.2 * 1000, rel=0.1)
    log = np.log(library)
    assert log.std() == pytest.approx(0.4, abs=0.05)
    assert abs(((log - log.mean()) ** 3).mean() / log.std() ** 3) < 0.3
    assert (library > 0).all()
    means = np.asarray(counts.mean(axis=0)).ravel()
    squares = np.asarray(counts.multiply(counts).mean(axis=0)).ravel()
    often = means > 0.5
    assert np.median((squares - means**2)[often] / means[often]) > 1.3  # more spread than Poisson


def test_proteins_follow_types_over_a_background(mdata):
    types, protein = types_of(mdata), mdata["prot"]
    cd19 = protein[:, "CD19"].X.ravel()
    assert np.median(cd19[types == "naive B"]) > 2 * np.median(cd19[types == "NK"])
    assert np.median(cd19[types == "NK"]) > 0
    log = np.log1p(protein.X)
    level = protein.varm["level"]
    for name in ("CD3", "CD14", "CD56", "CD16"):
        expected = level.loc[name, types].to_numpy(dtype=float)
        assert np.corrcoef(expected, log[:, protein.var_names.get_loc(name)])[0, 1] > 0.5


def test_proteins_follow_their_coding_gene(mdata, log_rna):
    genes = mdata["rna"].var_names
    shared = [
        np.corrcoef(log_rna[:, genes.get_loc(gene)].toarray().ravel(), np.log1p(mdata["prot"][:, name].X.ravel()))[0, 1]
        for name, gene in mdata["prot"].var["gene"].items()
        if gene != "PTPRC"  # two isoforms, one gene
    ]
    assert np.mean(shared) > 0.15


def test_a_dropped_protein_shows_background_only():
    shown, dropped = (simulate(**SMALL, protein_dropout=share) for share in (0.0, 1.0))
    b_cells = types_of(shown) == "CD14 monocyte"
    assert np.median(shown["prot"][b_cells, "CD14"].X) > 1.5 * np.median(dropped["prot"][b_cells, "CD14"].X)


def test_isotype_controls_tell_no_types_apart():
    mdata = simulate(1000, 100, n_isotypes=3)
    protein = mdata["prot"]
    assert protein.var_names[-3:].tolist() == ["IgG1_control", "IgG2a_control", "IgG2b_control"]
    assert protein.var["isotype"].sum() == 3
    means = pd.DataFrame(np.log1p(protein[:, -3:].X)).groupby(types_of(mdata)).mean()
    assert np.ptp(means.to_numpy(), axis=0).max() < 0.25


def test_the_last_type_is_rare_and_every_type_can_be_split():
    counts = simulate(2000, 100, rare_fraction=0.02).obs["cell_type"].value_counts()
    assert counts.idxmin() == list(LINEAGE)[5]
    assert 20 < counts.min() < 90
    assert simulate(240, 100, n_types=12, rare_fraction=0).obs["cell_type"].value_counts().min() >= 10


def test_batches_shift_genes_only_where_asked():
    mdata = simulate(1200, 100, n_batches=2, batch_effect=0.8)
    batch = mdata.obs["batch"].to_numpy() == "batch 2"
    assert batch.sum() == 600
    rna = np.log(np.asarray(mdata["rna"].X[batch].sum(axis=0) + 1) / np.asarray(mdata["rna"].X[~batch].sum(axis=0) + 1))
    assert rna.std() > 0.4
    assert "batch" not in simulate(**SMALL).obs


def test_types_are_separable_but_not_perfectly(mdata, log_rna):
    types = types_of(mdata)
    test = np.random.default_rng(0).random(len(types)) < 0.25
    log_protein = np.log1p(mdata["prot"].X)
    accuracy = {}
    for kind, protein in (("rna", None), ("both", log_protein)):
        x_nd = features(log_rna, protein, fit_on=~test)
        predicted, _ = logistic_regression(x_nd[~test], types[~test], x_nd[test])
        accuracy[kind] = classification_scores(types[test], predicted)["accuracy"]
    assert 0.7 < accuracy["rna"] < accuracy["both"] < 0.99
    assert accuracy["both"] > 0.85


def test_query_has_the_same_types_on_another_platform(mdata):
    near, far = (simulate_query(mdata, 600, seed=3, shift=shift) for shift in (0.0, 0.7))
    assert near.var_names.equals(mdata["rna"].var_names)
    assert set(near.obs["cell_type"]) == set(mdata.obs["cell_type"])
    assert (near.X != simulate_query(mdata, 600, seed=3, shift=0).X).nnz == 0
    assert far.X.sum() / near.X.sum() == pytest.approx(np.exp(-0.7), rel=0.05)

    def profile(cells):
        return np.log1p(1e4 * np.asarray(cells.X.sum(axis=0)).ravel() / cells.X.sum())

    reference = profile(mdata["rna"])
    assert np.corrcoef(reference, profile(near))[0, 1] > 0.97
    assert np.corrcoef(reference, profile(far))[0, 1] < np.corrcoef(reference, profile(near))[0, 1] - 0.02


def test_query_from_a_subset_that_went_to_disk_and_back(tmp_path):
    mdata = simulate(**SMALL)
    with quiet():
        mdata.write(tmp_path / "cells.h5mu")
        back = read_h5mu(tmp_path / "cells.h5mu")
    assert (back["rna"].X != mdata["rna"].X).nnz == 0
    back.mod["rna"] = back["rna"][:50, :200].copy()
    assert (simulate_query(back, 40).X != simulate_query(mdata, 40)[:, :200].X).nnz == 0


def test_bad_arguments_are_named():
    for arguments, message in (
        ({"n_types": 13}, "n_types must be between 2 and 12"),
        ({"n_cells": 10}, "n_cells must be at least 24"),
        ({"n_genes": 5}, "n_genes must be between 20 and 15000"),
        ({"n_proteins": 99}, "n_proteins must be between 1 and 48"),
        ({"rare_fraction": 0.5}, "rare_fraction must be between"),
        ({"depth": float("nan")}, "depth must be at least"),
        ({"species": "yeast"}, "species must be human or mouse"),
        ({"batch_only": "NK"}, "batch_only needs at least 2 batches: set n_batches"),
        ({"composition_shift": 0.5}, "composition_shift needs at least 2 batches: set n_batches"),
    ):
        with pytest.raises(SettingError, match=message):
            simulate(**arguments)
    mdata = simulate(**SMALL)
    with pytest.raises(SettingError, match="at least 16 cells"):
        simulate_query(mdata, 3)
    renamed = copied(mdata)
    renamed["rna"].var_names = [f"gene {name}" for name in mdata["rna"].var_names]
    with pytest.raises(InputDataError, match="300 genes of the reference"):
        simulate_query(renamed)
    del renamed.uns["simulation"]
    with pytest.raises(InputDataError, match="create it with simulate"):
        simulate_query(renamed)


def test_batches_differ_in_composition_only_where_asked():
    equal, shifted = (
        pd.crosstab(mdata.obs["cell_type"], mdata.obs["batch"], normalize="index").to_numpy()
        for mdata in (simulate(1200, 100, n_batches=2, composition_shift=shift) for shift in (0.0, 1.5))
    )
    assert np.abs(equal - 0.5).max() < 0.2  # the rarest type has 36 cells
    assert np.abs(shifted - 0.5).max() > 0.3
    assert (shifted > 0).all()


def test_a_type_of_the_last_batch_alone():
    obs = simulate(600, 100, n_batches=3, batch_only="NK").obs
    assert set(obs["batch"][obs["cell_type"] == "NK"]) == {"batch 3"}
    assert set(obs["batch"]) == {"batch 1", "batch 2", "batch 3"}
    with pytest.raises(SettingError, match=r"batch_only must be one of the types CD4 naive T, .*\(got pDC\)"):
        simulate(600, 100, n_batches=3, batch_only="pDC")
