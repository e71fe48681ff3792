import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.inplace import write_tables
from scfusionttt.data.write import EMBEDDING_ENDINGS, check_result_path, write_cells, write_embedding, write_proteins
from scfusionttt.errors import InputDataError, OutputError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.io.tables import write_table
from support import raises_one_line

CELLS = pd.Index(["a", "b", "c", "d"])
Z = np.arange(8, dtype=np.float32).reshape(4, 2)


def toy():
    return AnnData(np.ones((4, 3), dtype=np.float32), obs=pd.DataFrame({"own": range(4)}, index=CELLS))


def toy_mudata():
    """The proteins have a cell more, and another order."""
    protein = AnnData(np.ones((5, 2), dtype=np.float32), obs=pd.DataFrame(index=["e", "d", "c", "b", "a"]))
    protein.var_names = ["p0", "p1"]
    with quiet():
        data = MuData({"rna": toy(), "prot": protein})
    data.obs["whole"] = [f"of {cell}" for cell in data.obs_names]
    return data


def left_over(folder):
    return [path.name for path in folder.glob(".*")]


def fails(call, *words, error=OutputError):
    with raises_one_line(error, *words):
        call()


def test_an_embedding_is_written_to_npy_and_csv(tmp_path):
    write_embedding(tmp_path / "z.npy", Z, CELLS)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy", allow_pickle=False), Z)
    write_embedding(tmp_path / "z.csv", Z, CELLS, toy())
    found = pd.read_csv(tmp_path / "z.csv", index_col="cell")
    assert list(found) == ["fusionttt_0", "fusionttt_1"]
    assert list(found.index) == list(CELLS)
    np.testing.assert_array_equal(found, Z)
    assert not left_over(tmp_path)


@pytest.mark.parametrize("name", ["z.h5ad", "z.zarr"])
def test_anndata_with_the_embedding_by_name(tmp_path, name):
    source = toy()
    write_embedding(tmp_path / name, Z[[2, 0, 1, 3]], CELLS[[2, 0, 1, 3]], source)
    found = read(tmp_path / name)
    np.testing.assert_array_equal(found.obsm["X_fusionttt"], Z)
    assert list(found.obs["own"]) == [0, 1, 2, 3]
    assert "X_fusionttt" not in source.obsm
    assert not left_over(tmp_path)


def test_cells_that_were_not_embedded_are_not_in_the_copy(tmp_path):
    write_embedding(tmp_path / "z.h5ad", Z[[3, 1]], CELLS[[3, 1]], toy())
    found = read(tmp_path / "z.h5ad")
    assert list(found.obs_names) == ["b", "d"]
    np.testing.assert_array_equal(found.obsm["X_fusionttt"], Z[[1, 3]])


@pytest.mark.parametrize("name", ["z.h5mu", "z.zarr"])
def test_mudata_keeps_its_modalities(tmp_path, name):
    source = toy_mudata()
    write_embedding(tmp_path / name, Z, CELLS, source)
    found = read(tmp_path / name)
    assert isinstance(found, MuData)
    assert set(found.mod) == {"rna", "prot"}
    assert sorted(found.obs_names) == list(CELLS)
    np.testing.assert_array_equal(found.obsm["X_fusionttt"], Z[CELLS.get_indexer(found.obs_names)])
    assert "X_fusionttt" not in source.obsm
    assert source.n_obs == 5


def test_h5ad_from_mudata_is_the_rna_with_all_obs(tmp_path):
    write_embedding(tmp_path / "z.h5ad", Z, CELLS, toy_mudata())
    found = anndata.read_h5ad(tmp_path / "z.h5ad")
    assert found.shape == (4, 3)
    assert list(found.obs["whole"]) == ["of a", "of b", "of c", "of d"]
    assert list(found.obs["own"]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.obsm["X_fusionttt"], Z)


@pytest.mark.parametrize("name", ["p.h5ad", "p.zarr"])
@pytest.mark.parametrize("names", [["CD66a/c/e", "CD66a_c_e"], ["CD11a", "CD11a/CD18"], ["CD11a/CD18", "CD11a"]])
def test_names_of_proteins_with_slashes_are_written_with_underscores(tmp_path, name, names):
    """CD66a/c/e ended impute and background after the work, and CD11a/CD18 beside CD11a gave a damaged file."""
    table = pd.DataFrame(Z[:, :2], index=CELLS, columns=names)
    write_proteins(tmp_path / name, {"protein_imputed": table}, toy())
    found = read(tmp_path / name).obsm["protein_imputed"]
    first, second = (one.replace("/", "_") for one in names)
    assert list(found.columns) == [first, second if second != first else f"{second}-1"]
    np.testing.assert_array_equal(found, Z[:, :2])


def test_an_object_with_tables_of_proteins_can_be_saved(tmp_path):
    """After `impute(inplace=True)` of a panel with CD66a/c/e, anndata 0.13 could not write the AnnData."""
    cells = toy()
    write_tables(cells, {"protein_imputed": pd.DataFrame(Z[:, :1], columns=["CD66a/c/e"])})
    cells.write_h5ad(tmp_path / "imputed.h5ad")
    write_cells(tmp_path / "denoised.h5ad", cells)
    for name in ("imputed.h5ad", "denoised.h5ad"):
        assert list(anndata.read_h5ad(tmp_path / name).obsm["protein_imputed"]) == ["CD66a_c_e"]


def test_a_source_may_be_backed_unless_it_is_mudata(tmp_path):
    toy().write_h5ad(tmp_path / "a.h5ad")
    source = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    write_embedding(tmp_path / "z.h5ad", Z, CELLS, source)
    source.file.close()
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "z.h5ad").obsm["X_fusionttt"], Z)
    with quiet():
        toy_mudata().write_h5mu(tmp_path / "m.h5mu")
        backed = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")
    fails(
        lambda: write_embedding(tmp_path / "z.h5mu", Z, CELLS, backed),
        "read it into memory (without backed=)",
        error=InputDataError,
    )
    backed.file.close()


def test_an_h5ad_without_a_source_has_the_embedding_alone(tmp_path):
    write_embedding(tmp_path / "z.h5ad", Z, CELLS)
    found = anndata.read_h5ad(tmp_path / "z.h5ad")
    assert list(found.obs_names) == list(CELLS)
    np.testing.assert_array_equal(found.obsm["X_fusionttt"], Z)


def test_what_cannot_be_written(tmp_path):
    fails(lambda: write_embedding(tmp_path / "z.txt", Z, CELLS), "'.txt'", ".npy, .csv, .h5ad, .h5mu, .zarr")
    fails(lambda: write_table(tmp_path / "t.xlsx", pd.DataFrame()), "'.xlsx'", ".csv, .tsv")
    fails(lambda: write_embedding(tmp_path / "z.h5mu", Z, CELLS, toy()), "needs MuData", ".h5ad")
    fails(lambda: write_embedding(tmp_path / "no" / "z.npy", Z, CELLS), "does not exist", "create it")
    fails(lambda: write_embedding(tmp_path / "z.npy", Z[:3], CELLS), "3 rows for 4 cells", error=InputDataError)
    stranger = [*CELLS[:3], "stranger"]
    fails(lambda: write_embedding(tmp_path / "z.h5ad", Z, stranger, toy()), "stranger", error=InputDataError)
    odd = toy()
    odd.uns["odd"] = object()
    fails(lambda: write_embedding(tmp_path / "z.h5ad", Z, CELLS, odd), "cannot be stored in this format")
    assert not list(tmp_path.iterdir())


def with_text(data):
    """Columns as pandas 3 and anndata 0.13 have them, one with a missing value."""
    for table in (data.obs, data.var):
        table["note"] = pd.array([f"n{i}" for i in range(len(table) - 1)] + [None], dtype="string")
    return data


@pytest.mark.parametrize("name", ["z.h5ad", "z.zarr"])
def test_string_columns_are_written(tmp_path, name):
    """anndata 0.12 does not write them unasked, which ended embed with a traceback after the work."""
    write_embedding(tmp_path / name, Z, CELLS, with_text(toy()))
    written = read(tmp_path / name)
    assert written.obs["note"].isna().tolist() == [False, False, False, True]
    assert written.obs["note"].tolist()[:3] == ["n0", "n1", "n2"]
    assert written.var["note"].tolist()[:2] == ["n0", "n1"]
    assert not anndata.settings.allow_write_nullable_strings


@pytest.mark.parametrize("name", ["z.h5ad", "z.zarr"])
def test_proteins_are_written_to_cells_whose_names_are_of_the_string_type(tmp_path, name):
    """So anndata 0.12 reads a file of them: impute and annotate ended in a ValueError after the work."""
    source = toy()
    source.obs_names = source.obs_names.astype("string")
    write_proteins(tmp_path / name, {"protein_imputed": pd.DataFrame(Z, index=CELLS, columns=["x", "y"])}, source)
    np.testing.assert_array_equal(read(tmp_path / name).obsm["protein_imputed"], Z)


@pytest.mark.parametrize("name", ["z.h5mu", "z.zarr", "z.h5ad"])
def test_string_columns_of_mudata_are_written(tmp_path, name):
    source = toy_mudata()
    with_text(source["rna"])
    with_text(source)
    write_embedding(tmp_path / name, Z, CELLS, source)
    written = read(tmp_path / name)
    assert written.obs["note"].tolist() == [source.obs["note"][cell] for cell in written.obs_names]


def with_part(part):
    data = toy()
    if part == "a reserved name in .raw":  # SeuratDisk leaves it
        data.raw = data.copy()
        data.raw.var["_index"] = "x"
    elif part == "a slash":
        data.obs["CD4/CD8"] = 1.0
    elif part == "mixed values in a later row":
        data.obs["mixed"] = ["a", "b", 1, None]
    elif part == "an object in uns":
        data.uns["odd"] = object()
    return data


@pytest.mark.parametrize(
    ("part", "name", "word"),
    [
        ("a reserved name in .raw", "z.h5ad", "_index"),
        ("a slash", "z.zarr", "CD4/CD8"),
        ("mixed values in a later row", "z.h5ad", "mixed"),
        ("an object in uns", "z.zarr", "odd"),
    ],
)
@pytest.mark.parametrize("multimodal", [False, True])
def test_parts_that_cannot_be_stored_are_named_before_the_work(tmp_path, part, name, word, multimodal):
    source = with_part(part)
    if multimodal:
        with quiet():
            source = MuData({"rna": source, "prot": toy_mudata()["prot"]})
        name = name.replace("h5ad", "h5mu")
    fails(
        lambda: check_result_path(tmp_path / name, EMBEDDING_ENDINGS, source),
        "cannot be stored in this format", word, "rename or remove that part, or write .csv",
    )  # fmt: skip
    write_embedding(tmp_path / "z.csv", Z, CELLS, source)
    assert [path.name for path in tmp_path.iterdir()] == ["z.csv"]


def test_a_zarr_copy_replaces_only_an_earlier_one(tmp_path):
    """A store of donors, or data kept as Zarr, had been taken for an earlier result: the counts were gone."""
    mine = toy()
    with quiet():
        mine.write_zarr(tmp_path / "mine.zarr")
    for _ in range(2):
        write_embedding(tmp_path / "z.zarr", Z, CELLS)
    fails(lambda: write_embedding(tmp_path / "mine.zarr", Z, CELLS), "mine.zarr", "not overwritten")
    fails(lambda: check_result_path(tmp_path / "mine.zarr", EMBEDDING_ENDINGS), "mine.zarr", "not overwritten")
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "mine.zarr").X, mine.X)


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "z.npy").mkdir()
    fails(lambda: write_embedding(tmp_path / "z.npy", Z, CELLS), "is a folder")


def test_an_earlier_zarr_result_is_replaced(tmp_path):
    for factor in (1, 2):
        write_embedding(tmp_path / "z.zarr", factor * Z, CELLS, toy())
        np.testing.assert_array_equal(read(tmp_path / "z.zarr").obsm["X_fusionttt"], factor * Z)


def test_the_real_mudata_is_written_in_every_format(real_data, tmp_path):
    source = read(real_data / "citefuse_ctcl.h5mu")
    array = np.random.default_rng(0).normal(size=(source.n_obs, 4)).astype(np.float32)
    for name in ("z.h5mu", "z.zarr", "z.h5ad"):
        write_embedding(tmp_path / name, array, source.obs_names, source)
        np.testing.assert_array_equal(read(tmp_path / name).obsm["X_fusionttt"], array)
    with quiet():
        assert set(mudata.read_h5mu(tmp_path / "z.h5mu").mod) == {"rna", "prot", "hto"}
