import warnings
from functools import partial

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt import background, differential, quality
from scfusionttt.config import DataConfig
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import feature_panels
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.store import stored as store_module
from scfusionttt.data.store.sources import open_source
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.store.write import write_store
from scfusionttt.errors import InputDataError, InputFileError, OutputError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.simulation.simulate import simulate
from support import raises_one_line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two inputs: the second lacks 40 genes and 2 proteins of the first, has 20 genes of its own, and some NaN."""
    folder = tmp_path_factory.mktemp("store")
    whole = simulate(407, 320, 8, 3, n_isotypes=1)
    with quiet():
        first = MuData({"rna": whole["rna"][:300, :300].copy(), "prot": whole["prot"][:300].copy()})
        second = MuData({"rna": whole["rna"][300:, 40:].copy(), "prot": whole["prot"][300:, [5, 0, 1, 2, 7, 8]].copy()})
        first.obs["cell_type"] = whole.obs["cell_type"][:300]
        second["prot"].X[3, 2] = np.nan
        first.write_h5mu(folder / "first.h5mu")
        second.write_h5mu(folder / "second.h5mu")
    write(folder / "both.zarr", folder / "first.h5mu", folder / "second.h5mu")
    write(folder / "one.zarr", folder / "first.h5mu")
    return folder


def write(out, *inputs, **options):
    return write_store([open_source(path) for path in inputs], out, **options)


def in_memory(path):
    with quiet():
        return as_citeseq(read(path))


def assert_same_counts(stored, expected):
    """Compare by names: a store has its features in genome order."""
    read_back = stored.read(np.arange(stored.rna.n_obs))
    assert list(stored.rna.obs_names) == list(expected.rna.obs_names)
    for ours, theirs in ((read_back.rna, expected.rna), (read_back.protein, expected.protein)):
        place = ours.var_names.get_indexer(theirs.var_names)
        dense = [x.toarray() if sparse.issparse(x) else x for x in (ours.X[:, place], theirs.X)]
        np.testing.assert_array_equal(*dense)


def test_cells_come_back_in_the_inputs_order_though_they_lie_shuffled(folder):
    stored = open_store(folder / "one.zarr")
    assert_same_counts(stored, in_memory(folder / "first.h5mu"))
    assert (np.diff(stored.places) < 0).sum() > 100
    rows = np.array([7, 299, 7, 0])
    assert list(stored.read(rows).rna.obs_names) == list(stored.rna.obs_names[rows])


def test_genes_and_proteins_stand_in_genome_order(folder):
    var = open_store(folder / "both.zarr").rna.var
    assert set(var["modality"]) == {"rna"}
    starts = var.groupby("chromosome", observed=True)["start"]
    assert all(start.dropna().is_monotonic_increasing for _, start in starts)


def test_what_an_input_lacks_is_missing_and_not_zero(folder):
    stored = open_store(folder / "both.zarr")
    first, second = (in_memory(folder / f"{name}.h5mu") for name in ("first", "second"))
    cells = stored.read(np.arange(407))
    assert cells.rna.shape == (407, 320)
    panel, measured = feature_panels(cells.rna)
    assert panel.tolist() == [0] * 300 + [1] * 107
    for number, cite in enumerate((first, second)):
        assert set(cells.rna.var_names[measured[number]]) == set(cite.rna.var_names)
    protein = pd.DataFrame(cells.protein.X, columns=cells.protein.var_names)
    lacking = sorted(set(first.protein.var_names) - set(second.protein.var_names))
    assert len(lacking) == 3
    assert protein[lacking][300:].isna().all(axis=None)
    expected = second.protein.to_df().reset_index(drop=True)
    pd.testing.assert_frame_equal(protein[300:][expected.columns].reset_index(drop=True), expected, check_names=False)
    assert list(stored.obs["store_input"].astype(str)) == ["first"] * 300 + ["second"] * 107
    assert stored.obs["cell_type"][300:].isna().all()


def test_proteins_of_other_names_are_joined_and_told(tmp_path, caplog):
    """A panel that says CD8 had no CD8a of the other's, and half of the cells of each counted as not measured."""
    panels = {"a": ["CD3", "CD45RA", "CD8a", "PD-1"], "b": ["cd279", "CD45RO", "CD8", "CD3_TotalSeqB"]}
    for number, (name, panel) in enumerate(panels.items()):
        mdata = simulate(30, 200, 4, 2, n_isotypes=0, seed=number)
        with quiet():
            mdata["prot"].var_names = panel
            mdata.obs_names = mdata["rna"].obs_names = mdata["prot"].obs_names = name + mdata.obs_names
            MuData(dict(mdata.mod)).write_h5mu(tmp_path / f"{name}.h5mu")
    with caplog.at_level("INFO"):
        write(tmp_path / "s.zarr", tmp_path / "a.h5mu", tmp_path / "b.h5mu")
    protein = open_store(tmp_path / "s.zarr").read(np.arange(60)).protein.to_df()
    assert set(protein.columns) == {"CD3", "CD45RA", "CD8a", "PD-1", "CD45RO"}
    expected = in_memory(tmp_path / "b.h5mu").protein.to_df()[["CD3_TotalSeqB", "CD8", "cd279", "CD45RO"]]
    np.testing.assert_array_equal(protein[["CD3", "CD8a", "PD-1", "CD45RO"]][30:], expected)
    assert protein["CD45RA"][30:].isna().all()
    assert "proteins joined: CD8a as CD8, PD-1 as cd279" in caplog.messages


def test_cells_of_the_second_input_alone_are_not_taken_for_the_firsts(folder):
    """AnnData drops the categories that some cells do not have, which distinguish the inputs."""
    stored = open_store(folder / "both.zarr")
    alone, together = np.arange(300, 407), stored.read(np.arange(407))
    for cells in (stored.read(alone), together[alone]):
        panel, measured = feature_panels(cells.rna)
        assert set(cells.rna.var_names[measured[panel[0]]]) == set(in_memory(folder / "second.h5mu").rna.var_names)
        np.testing.assert_array_equal(cells.protein.X, together.protein.X[alone])


@pytest.mark.parametrize("settings", [{"n_genes": 90}, {"n_genes": None, "scale": "global", "order": "expression"}])
def test_constants_of_a_streaming_pass_are_those_of_memory(folder, monkeypatch, settings):
    monkeypatch.setattr(store_module, "WINDOW", 64)
    config, found = DataConfig(**settings), {}
    for kind, cite in (("stream", open_store(folder / "one.zarr")), ("memory", in_memory(folder / "first.h5mu"))):
        features, _ = choose_features(cite, config)
        names = features.table["modality"] + " " + features.table["name"]
        found[kind] = names.tolist(), Preprocessing.fit(cite, match_features(cite, features), config)
    assert len(list(open_store(folder / "one.zarr").blocks())) == 5
    assert set(found["stream"][0]) == set(found["memory"][0])
    order = pd.Index(found["stream"][0]).get_indexer(found["memory"][0])
    streamed, whole = (
        [np.r_[x.gene_share, x.log_geometric_mean], np.r_[x.rna.mean, x.protein.mean], np.r_[x.rna.std, x.protein.std]]
        for x in (found["stream"][1], found["memory"][1])
    )
    for ours, theirs in zip(streamed, whole):
        np.testing.assert_allclose(ours[order], theirs, rtol=1e-6)


def test_constants_of_a_gene_are_those_of_the_cells_in_which_it_was_measured(folder):
    """Counted as zero in the second input, a gene's mean would fall by a quarter."""
    stored = open_store(folder / "both.zarr")
    config = DataConfig(n_genes=None, scale="per_feature")
    features, _ = choose_features(stored, config)
    match = match_features(stored, features)
    fitted = Preprocessing.fit(stored, match, config)
    cells = stored.read(np.arange(407))
    lacking = ~feature_panels(cells.rna)[1][1][match.genes]
    values = fitted.log_normalized(cells, match).toarray()[:300, lacking]
    np.testing.assert_allclose(fitted.rna.mean[lacking], values.mean(axis=0, dtype=float), rtol=1e-5)
    std = values.std(axis=0, dtype=float)
    np.testing.assert_allclose(fitted.rna.std[lacking], np.where(std > 0, std, 1.0), rtol=1e-5)


def h5ad(change):
    def make(mdata, path):
        adata = mdata["rna"].copy()
        adata.obsm["protein_expression"] = mdata["prot"].to_df()
        adata = change(adata) or adata
        adata.write_h5ad(path)

    return make


def normalized(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()


def only_in_raw(adata):
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()


def two_protein_tables(adata):
    """Add a table that would come first, and looks like counts in the first block of cells alone."""
    adata.obsm["protein"] = adata.obsm.pop("protein_expression")
    adata.obsm["protein_expression"] = np.log1p(adata.obsm["protein"])
    adata.obsm["protein_expression"].iloc[:256] = 1


def shuffled_proteins(mdata, path):
    with quiet():
        MuData({"rna": mdata["rna"], "prot": mdata["prot"][::-1].copy()}).write_h5mu(path)


def zarr_store(mdata, path):
    mdata._axis = int(mdata.axis)  # from .h5mu it is a NumPy integer, which Zarr's JSON refuses
    mdata.write_zarr(path)


def anndata_in_zarr(mdata, path):
    """Was called damaged: without .raw, anndata writes an array called raw."""
    adata = mdata["rna"].copy()
    adata.obsm["protein_expression"] = mdata["prot"].to_df()
    adata.write_zarr(path)


def names_of_the_string_type(mdata, path):
    """Ended in a RuntimeError of anndata after the work."""
    parts = {name: mdata[name].copy() for name in mdata.mod}
    for part in parts.values():
        part.obs_names = part.obs_names.astype("string")
    with anndata.settings.override(allow_write_nullable_strings=True):
        MuData(parts).write_h5mu(path)


KINDS = {
    "csr": h5ad(lambda adata: None),
    "csc": h5ad(lambda adata: setattr(adata, "X", adata.X.tocsc())),
    "dense": h5ad(lambda adata: setattr(adata, "X", adata.X.toarray())),
    "layer": h5ad(normalized),
    "raw": h5ad(only_in_raw),
    "two tables of proteins": h5ad(two_protein_tables),
    "zarr": zarr_store,
    "AnnData in zarr": anndata_in_zarr,
    "names of the string type": names_of_the_string_type,
    "proteins in another order": shuffled_proteins,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_the_same_store(folder, tmp_path, kind):
    with quiet():
        KINDS[kind](read(folder / "first.h5mu"), tmp_path / "input")
    write(tmp_path / "out.zarr", tmp_path / "input")
    assert_same_counts(open_store(tmp_path / "out.zarr"), in_memory(folder / "first.h5mu"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)


def other_version(path):
    group = zarr.open_group(path, mode="a")
    group.attrs["scfusionttt_store"] = {**group.attrs["scfusionttt_store"], "version": 2}


DAMAGES = {
    "X/data/c/0 is missing": lambda path: (path / "X/data/c/0").unlink(),
    "X/indices/c/0 is truncated or changed": lambda path: cut(path / "X/indices/c/0"),
    "has store format 2": other_version,
    "is not a store": lambda path: (path / "zarr.json").unlink(),
    "cannot be read": lambda path: flip(path / "X/data/c/0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_refused_in_one_line(folder, tmp_path, damage):
    write(tmp_path / "out.zarr", folder / "second.h5mu")
    DAMAGES[damage](tmp_path / "out.zarr")
    with pytest.raises(InputFileError, match=damage) as error:
        open_store(tmp_path / "out.zarr").read(np.arange(107))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_an_output_that_exists_is_left_alone(folder):
    with pytest.raises(OutputError, match=r"one\.zarr exists; remove it or choose another name"):
        write(folder / "one.zarr", folder / "second.h5mu")
    assert open_store(folder / "one.zarr").rna.n_obs == 300


def test_a_store_is_not_read_as_if_missing_were_zero(folder):
    with pytest.raises(InputFileError, match="is a store, which is read by pretrain") as error:
        read(folder / "both.zarr")
    assert "map, predict, impute, denoise, annotate" in str(error.value)  # which were left out of this list
    with quiet():
        assert anndata.read_zarr(folder / "both.zarr").shape == (407, 329)  # other tools can


def rna_only(path, names, empty=()):
    counts = np.random.default_rng(0).poisson(1.0, (len(names), 300)).astype(np.float32)
    counts[list(empty)] = 0
    genes = simulate(8, 300, 2, 2)["rna"].var_names
    AnnData(sparse.csr_matrix(counts), pd.DataFrame(index=names), pd.DataFrame(index=genes)).write_h5ad(path)
    return path


@pytest.mark.parametrize("verb", [quality, background, partial(differential, groupby="cell_type"), as_citeseq])
def test_what_needs_counts_in_memory_refuses_a_store(verb, folder):
    with pytest.raises(InputDataError, match="needs counts in memory"):
        verb(open_store(folder / "one.zarr"))


def test_barcodes_of_two_samples_are_told_apart_by_the_inputs_name(tmp_path):
    paths = [rna_only(tmp_path / f"{name}.h5ad", ["AAAC", "AAAG"]) for name in "xy"]
    write(tmp_path / "out.zarr", *paths)
    stored = open_store(tmp_path / "out.zarr")
    assert list(stored.rna.obs_names) == ["x:AAAC", "x:AAAG", "y:AAAC", "y:AAAG"]
    assert stored.protein is None


def test_cell_names_may_be_called_like_a_column_that_one_input_lacks(tmp_path):
    """The column lacks values in the other input, and AnnData refused to write an index of its name."""
    for sample in "xy":
        cells = read(rna_only(tmp_path / f"{sample}.h5ad", [f"{sample}0", f"{sample}1"]))
        cells.obs_names.name = "barcode"
        if sample == "x":
            cells.obs["barcode"] = cells.obs_names
        cells.write_h5ad(tmp_path / f"{sample}.h5ad")
    write(tmp_path / "out.zarr", tmp_path / "x.h5ad", tmp_path / "y.h5ad")
    stored = open_store(tmp_path / "out.zarr")
    assert list(stored.rna.obs_names) == ["x0", "x1", "y0", "y1"]
    assert list(stored.obs["barcode"].dropna()) == ["x0", "x1"]


def test_inputs_of_one_name_are_told_apart_by_the_nearest_folder_that_differs(tmp_path):
    """Cell Ranger names the matrix of every sample the same, and the store refused two of them."""
    inputs = [tmp_path / sample / "outs" / "filtered.h5ad" for sample in ("liver", "spleen")]
    for path in inputs:
        path.parent.mkdir(parents=True)
        rna_only(path, ["b0", "b1"])
    rna_only(tmp_path / "blood.h5ad", ["b0"])
    write(tmp_path / "s.zarr", *inputs, tmp_path / "blood.h5ad")
    names = open_store(tmp_path / "s.zarr").rna.obs_names
    assert list(names) == ["liver:b0", "liver:b1", "spleen:b0", "spleen:b1", "blood:b0"]
    with pytest.raises(InputDataError, match=r"two inputs have the same name \(filtered, filtered\)"):
        write(tmp_path / "t.zarr", inputs[0], inputs[0])


def test_empty_cells_are_refused_by_name_or_left_out(tmp_path):
    path = rna_only(tmp_path / "x.h5ad", [f"cell-{i}" for i in range(300)], empty=[3, 290])
    with pytest.raises(InputDataError, match=r"x\.h5ad: no RNA counts in 1 cell \(cell-(3|290)\); .* drop_empty"):
        write(tmp_path / "out.zarr", path)
    assert not (tmp_path / "out.zarr").exists()
    assert write(tmp_path / "out.zarr", path, drop_empty=True) == 298
    assert "cell-3" not in open_store(tmp_path / "out.zarr").rna.obs_names


def test_inputs_without_cells_are_refused(tmp_path):
    """They were a ValueError of scipy's; one of them beside inputs with cells is no obstacle."""
    none = rna_only(tmp_path / "none.h5ad", [])
    with raises_one_line(InputDataError, "no cells in", "none.h5ad; choose files with counts"):
        write(tmp_path / "out.zarr", none)
    assert write(tmp_path / "out.zarr", none, rna_only(tmp_path / "some.h5ad", ["b0", "b1"])) == 2


def test_an_unfiltered_matrix_is_refused_or_reported(tmp_path, caplog):
    """The advice was to leave out the empty cells, which keeps the droplets of a few counts."""
    rng = np.random.default_rng(0)
    rates = np.repeat([1.0, 0.01, 0.0], [100, 1000, 1000])[:, None]
    counts = sparse.csr_matrix(rng.poisson(rates, (2100, 300)).astype(np.float32))
    genes = simulate(8, 300, 2, 2)["rna"].var_names
    AnnData(counts, var=pd.DataFrame(index=genes)).write_h5ad(tmp_path / "raw.h5ad")
    with pytest.raises(InputDataError, match=r"raw\.h5ad: looks unfiltered: 95% of 2100 barcodes"):
        write(tmp_path / "out.zarr", tmp_path / "raw.h5ad")
    assert not (tmp_path / "out.zarr").exists()
    with caplog.at_level("WARNING", logger="scfusionttt"):
        write(tmp_path / "out.zarr", tmp_path / "raw.h5ad", drop_empty=True)
    assert "looks unfiltered" in caplog.text


def test_proteins_that_are_zero_in_an_input_are_warned_of(tmp_path, caplog):
    cells = simulate(300, 100, 4, 2)
    names = list(cells["prot"].var_names)
    cells["prot"].X[:, 1] = 0
    cells["prot"].X[:, 2] = np.nan
    cells["prot"].X[:299, 3] = 0  # one cell has counts, in a block of its own
    cells["prot"].X[299, 3] = 5
    with quiet():
        cells.write_h5mu(tmp_path / "zeros.h5mu")
    write(tmp_path / "out.zarr", tmp_path / "zeros.h5mu")
    assert f"zeros.h5mu: all counts are zero for 1 protein ({names[1]}), treated as measured; use NaN" in caplog.text


def test_a_transposed_matrix_is_refused(tmp_path):
    path = rna_only(tmp_path / "x.h5ad", [f"AAAC{i}-1" for i in range(50)])
    anndata.read_h5ad(path).T.write_h5ad(tmp_path / "transposed.h5ad")
    with pytest.raises(InputDataError, match=r"transposed\.h5ad: the cells are named like genes"):
        open_source(tmp_path / "transposed.h5ad")


def test_string_columns_are_stored(tmp_path):
    """As pandas 3 has them, with a missing value: they ended the command with a traceback after the work."""
    cells = simulate(20, 300, 3, 3)["rna"].copy()
    cells.obs["note"] = pd.array([f"n{i}" for i in range(19)] + [None], dtype="string")
    with anndata.settings.override(allow_write_nullable_strings=True):
        cells.write_h5ad(tmp_path / "cells.h5ad")
    write(tmp_path / "store.zarr", tmp_path / "cells.h5ad")
    note = open_store(tmp_path / "store.zarr").obs["note"].reindex(cells.obs_names)
    assert note.tolist()[:19] == [f"n{i}" for i in range(19)]
    assert note.isna().tolist() == [False] * 19 + [True]


def test_classes_are_those_of_memory_whatever_the_types_of_the_inputs(tmp_path):
    """A column of numbers with a gap is one of floats: its donor 2.0 was not the donor "2" of another input."""
    for name, donors in {"x": [1.0, 2.0, np.nan], "y": ["2", " 3", None]}.items():
        cells = anndata.read_h5ad(rna_only(tmp_path / f"{name}.h5ad", [f"{name}{i}" for i in range(3)]))
        cells.obs["donor"] = donors
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    write(tmp_path / "out.zarr", tmp_path / "x.h5ad", tmp_path / "y.h5ad")
    donor = open_store(tmp_path / "out.zarr").obs["donor"]
    assert donor.cat.categories.tolist() == ["1", "2", "3"]
    assert donor.isna().tolist() == [False, False, True] * 2


def test_a_column_of_nullable_integers_and_of_floats_is_stored(tmp_path):
    """pandas joins them to nullable floats, which cannot be written: the command ended with a traceback."""
    for name, ages in {"x": pd.array([30, 40, None], dtype="Int64"), "y": [1.5, 2.0, np.nan]}.items():
        cells = anndata.read_h5ad(rna_only(tmp_path / f"{name}.h5ad", [f"{name}{i}" for i in range(3)]))
        cells.obs["age"] = ages
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    write(tmp_path / "out.zarr", tmp_path / "x.h5ad", tmp_path / "y.h5ad")
    np.testing.assert_array_equal(open_store(tmp_path / "out.zarr").obs["age"], [30, 40, np.nan, 1.5, 2, np.nan])


def test_labels_of_blocks_are_those_of_the_global_obs(tmp_path):
    """Where a block of cells had no global label, those of the modality were taken, as if all cells had none."""
    cells = simulate(400, 100, 4, 2)
    for part, label in ((cells["rna"], "old"), (cells["prot"], "old"), (cells, "new")):
        part.obs = pd.DataFrame({"cell_type": [label] * 400}, index=cells.obs_names)
    cells.obs.loc[cells.obs_names[:300], "cell_type"] = np.nan
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
    write(tmp_path / "out.zarr", tmp_path / "cells.h5mu")
    stored = open_store(tmp_path / "out.zarr").obs["cell_type"]
    assert stored[:300].isna().all() and (stored[300:] == "new").all()
    assert in_memory(tmp_path / "cells.h5mu").obs["cell_type"].isna().sum() == 300


@pytest.mark.filterwarnings("ignore:.*taken from .raw:UserWarning")
@pytest.mark.parametrize("name", ["csr.h5ad", "csr.h5mu", "csr.zarr", "dense.h5ad", "csc.h5ad", "typed.h5ad"])
def test_one_matrix_has_the_counts_of_all_cells(folder, tmp_path, name):
    """Cells without counts of the variable genes in X look whole: the genes of .raw of later cells were too many."""
    mdata = read(folder / "first.h5mu")
    counts = mdata["rna"].copy()
    expected, rna = counts, counts[:, :100].copy()
    values = np.log1p(rna.X.toarray())
    values[:130] = 0
    rna.X = values if name.startswith("dense") else sparse.csr_matrix(values)
    rna.raw = AnnData(counts.X.tocsc(), counts.obs, counts.var) if name.startswith("csc") else counts
    if name.startswith("typed"):  # which genes of .raw are antibodies is not known
        rna.var["feature_types"], expected = "Gene Expression", counts[:, :100]
    with quiet():
        data = MuData({"rna": rna, "prot": mdata["prot"]}) if name.endswith("h5mu") else rna
        getattr(data, f"write_{name[-4:].lstrip('.')}")(tmp_path / name)
    write(tmp_path / "out.zarr", tmp_path / name)
    stored = open_store(tmp_path / "out.zarr").read(np.arange(300)).rna.to_df()
    pd.testing.assert_frame_equal(stored, expected.to_df()[list(stored)], check_names=False)
    assert stored.shape == expected.shape


@pytest.mark.filterwarnings("ignore:.*taken from .raw:UserWarning")
def test_a_layer_of_the_proteins_leaves_that_choice_to_the_genes(folder, tmp_path):
    """With --layer, cells without counts of the variable genes were read from X, the others from .raw."""
    mdata = read(folder / "first.h5mu")
    rna, protein = mdata["rna"][:, :100].copy(), mdata["prot"].copy()
    values = np.log1p(rna.X.toarray())
    values[:130] = 0
    with quiet():
        rna.X, rna.raw = sparse.csr_matrix(values), mdata["rna"].copy()
        protein.layers["cleaned"] = protein.X.copy()
        MuData({"rna": rna, "prot": protein}).write_h5mu(tmp_path / "cells.h5mu")
        source = open_source(tmp_path / "cells.h5mu", layer="cleaned")
    assert source.read(slice(0, 20)).rna.n_vars == mdata["rna"].n_vars
    assert (mdata["rna"].X[:20] != source.read(slice(0, 20)).rna.X).nnz == 0


def test_antibodies_alone_are_refused(tmp_path):
    """Opened part by part, they were stored as genes."""
    names = ["CD3", "CD14", "CD16", "CD56", "HLA-DR"]
    AnnData(np.ones((9, 5), dtype=np.float32), var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "adt.h5ad")
    with pytest.raises(InputDataError, match=r"adt\.h5ad: no RNA found: the input has only antibodies"):
        open_source(tmp_path / "adt.h5ad")


def test_protein_names_in_uns(folder, tmp_path):
    """The proteins of such a file were left out of a store without a warning."""
    data = read(folder / "first.h5mu")
    adata, protein = data["rna"].copy(), data["prot"]
    adata.obsm["protein_expression"] = np.asarray(protein.X)
    adata.uns["protein_names"] = protein.var_names.to_numpy(str)
    adata.write_h5ad(tmp_path / "named.h5ad")
    part = open_source(tmp_path / "named.h5ad").read(slice(0, 5))
    assert list(part.protein.var_names) == list(protein.var_names)
    np.testing.assert_array_equal(part.protein.X, protein.X[:5])


def test_counts_in_raw_of_repeated_symbols_are_stored(tmp_path):
    """Symbols repeat in files of 10x: a file whose counts are in .raw under such names was called damaged."""
    cells = simulate(20, 300, 3, 3)["rna"].copy()
    counts = cells.X.toarray()
    cells.var_names = [*cells.var_names[:-2], *cells.var_names[:2]]
    with quiet():
        cells.raw, cells.X = cells.copy(), np.log1p(cells.X)
        cells.write_h5ad(tmp_path / "raw.h5ad")
        part = open_source(tmp_path / "raw.h5ad").read(slice(0, 20))
    assert list(part.rna.var_names) == list(cells.var_names)
    np.testing.assert_array_equal(part.rna.X.toarray(), counts)


@pytest.mark.parametrize("key", ["my_table", "adt_raw"])
def test_arrays_in_obsm_are_those_of_memory(folder, tmp_path, caplog, key):
    """Of arrays, those of the usual names alone were read: another was not there to choose, or left out in silence."""
    data = read(folder / "first.h5mu")
    adata, protein = data["rna"].copy(), data["prot"]
    adata.obsm[key] = np.asarray(protein.X)
    adata.uns[f"{key}_names"] = protein.var_names.to_numpy(str)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    part = open_source(tmp_path / "cells.h5ad", protein_modality=key).read(slice(0, 5))
    assert list(part.protein.var_names) == list(protein.var_names)
    np.testing.assert_array_equal(part.protein.X, protein.X[:5])
    assert open_source(tmp_path / "cells.h5ad").read(slice(0, 5)).protein is None
    assert (f"left out: obsm['{key}']" in caplog.text) == (key == "adt_raw")


def test_a_wrong_choice_does_not_make_a_file_damaged(folder):
    """The name of a missing layer ended in the advice to copy or write the file again."""
    with raises_one_line(InputDataError, "first.h5mu: RNA has no layer 'raw'; available layers: none"):
        open_source(folder / "first.h5mu", layer="raw")


def test_a_file_of_an_early_anndata_is_stored(tmp_path):
    """Before version 0.7, obs and var were tables of HDF5: such files were called damaged."""
    cells = simulate(20, 300, 3, 3)["rna"]
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        file["X"] = cells.X.toarray()
        file["obs"] = np.array([(name.encode(),) for name in cells.obs_names], dtype=[("index", "S20")])
        file["var"] = np.array([(name.encode(),) for name in cells.var_names], dtype=[("index", "S20")])
    with warnings.catch_warnings(action="ignore"):
        part = open_source(tmp_path / "old.h5ad").read(slice(0, 20))
    pd.testing.assert_frame_equal(part.rna.to_df(), cells.to_df(), check_names=False)


def test_slashes_in_names_of_columns_become_underscores(tmp_path):
    """Zarr cannot hold them: the command ended with a traceback after the work."""
    cells = simulate(20, 300, 3, 3)["rna"].copy()
    cells.obs["slash"], cells.obs["B_T"] = range(20), 7
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:  # as anndata wrote it before 0.13
        obs = file["obs"]
        obs.move("slash", "B/T")
        obs.attrs["column-order"] = ["B/T" if name == "slash" else name for name in obs.attrs["column-order"]]
    write(tmp_path / "out.zarr", tmp_path / "cells.h5ad")
    obs = open_store(tmp_path / "out.zarr").obs
    assert {"B_T": 20, "B_T-1": 1}.items() <= obs.nunique().to_dict().items()
