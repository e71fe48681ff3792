import gzip
import os
import struct

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scipy.io import mmwrite

from scfusionttt.errors import InputFileError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from support import raises_one_line

COUNTS = np.array([[1, 0, 3, 7], [0, 2, 0, 0], [5, 0, 1, 9]], dtype=np.float32)
CELLS = ["AAA-1", "CCC-1", "GGG-1"]
SYMBOLS = ["CD4", "NA", "CD4", "CD4"]
IDS = ["ENSG00000010610", "ENSG00000000002", "ENSG00000000003", "CD4_antibody"]
TYPES = ["Gene Expression"] * 3 + ["Antibody Capture"]


def save(data, path, kind):
    """Write in silence, so that only the reader's own warnings would show."""
    with quiet():
        getattr(data, f"write_{kind}")(path)


def toy_anndata():
    return AnnData(
        sparse.csr_matrix(COUNTS),
        obs=pd.DataFrame(index=CELLS),
        var=pd.DataFrame(index=["CD4", "MS4A1", "CD8A", "LYZ"]),
    )


def toy_mudata():
    rna, protein = toy_anndata(), toy_anndata()
    protein.var_names = ["CD4_adt", "CD19_adt", "CD8_adt", "CD14_adt"]
    with quiet():
        return MuData({"rna": rna, "prot": protein})


def write_10x_h5(path, group="matrix"):
    """Write as Cell Ranger does: features in columns, so that CSC of genes x cells is CSR of cells x genes."""
    matrix = sparse.csr_matrix(COUNTS.astype(np.int32))
    with h5py.File(path, "w") as file:
        place = file.create_group(group)
        place["data"], place["indices"], place["indptr"] = matrix.data, matrix.indices, matrix.indptr
        place["shape"] = np.array([4, 3])
        place["barcodes"] = np.array(CELLS, dtype="S")
        if group == "matrix":
            features = place.create_group("features")
            for name, values in {"id": IDS, "name": SYMBOLS, "feature_type": TYPES, "genome": ["GRCh38"] * 4}.items():
                features[name] = np.array(values, dtype="S")
        else:
            place["genes"], place["gene_names"] = np.array(IDS, dtype="S"), np.array(SYMBOLS, dtype="S")


def write_10x_folder(folder, *, version=3, gz=True, prefix=""):
    folder.mkdir(exist_ok=True)
    opened = gzip.open if gz else open
    end = ".gz" if gz else ""
    with opened(folder / f"{prefix}matrix.mtx{end}", "wb") as file:
        mmwrite(file, sparse.coo_matrix(COUNTS.T.astype(int)))
    columns = [IDS, SYMBOLS, TYPES][:version]
    name = "features" if version == 3 else "genes"
    with opened(folder / f"{prefix}{name}.tsv{end}", "wt") as file:
        file.writelines("\t".join(row) + "\n" for row in zip(*columns))
    with opened(folder / f"{prefix}barcodes.tsv{end}", "wt") as file:
        file.writelines(cell + "\n" for cell in CELLS)
    return folder


def assert_counts(adata):
    assert list(adata.obs_names) == CELLS
    np.testing.assert_array_equal(sparse.csr_matrix(adata.X).toarray(), COUNTS)


@pytest.mark.parametrize("name", ["a.h5ad", "misnamed.h5mu", "noending"])
def test_h5ad_is_known_by_its_content(tmp_path, name):
    save(toy_anndata(), tmp_path / name, "h5ad")
    found = read(tmp_path / name)
    assert isinstance(found, AnnData)
    assert_counts(found)


@pytest.mark.parametrize("name", ["a.h5mu", "misnamed.h5ad"])
def test_h5mu_is_known_by_its_content(tmp_path, name):
    save(toy_mudata(), tmp_path / name, "h5mu")
    found = read(str(tmp_path / name))
    assert isinstance(found, MuData)
    assert list(found.mod) == ["rna", "prot"]
    assert_counts(found["rna"])


def test_zarr_of_anndata_and_of_mudata_is_read(tmp_path):
    save(toy_anndata(), tmp_path / "a.zarr", "zarr")
    save(toy_mudata(), tmp_path / "m.zarr", "zarr")
    assert_counts(read(tmp_path / "a.zarr"))
    found = read(tmp_path / "m.zarr")
    assert isinstance(found, MuData)
    assert_counts(found["rna"])


@pytest.mark.parametrize("group", ["matrix", "hg19"])
def test_10x_h5_of_both_versions_keeps_all_features_and_their_names(tmp_path, group):
    write_10x_h5(tmp_path / "f.h5", group)
    found = read(tmp_path / "f.h5")
    assert_counts(found)
    assert list(found.var_names) == SYMBOLS
    assert list(found.var["gene_ids"]) == IDS
    if group == "matrix":
        assert list(found.var["feature_types"]) == TYPES


@pytest.mark.parametrize("group", ["matrix", "hg19"])
@pytest.mark.parametrize("name", ["matrix_v2", "background_removed"])
def test_matrices_of_cellbender_are_read(tmp_path, group, name):
    """It names the group of the counts after its own version, next to groups of its fit."""
    write_10x_h5(tmp_path / "f.h5", group)
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.move(group, name)
        file[name]["latent_cell_probability"] = np.ones(3)
        file.create_group("droplet_latents")["cell_size"] = np.ones(3)
        file.create_group("metadata")["barcodes_analyzed"] = np.arange(3)
    result = read(tmp_path / "f.h5")
    assert_counts(result)
    assert list(result.var_names) == SYMBOLS
    assert list(result.var["gene_ids"]) == IDS
    if group == "matrix":
        assert list(result.var["feature_types"]) == TYPES


def test_a_10x_h5_of_two_genomes_is_not_called_damaged(tmp_path):
    write_10x_h5(tmp_path / "f.h5", "hg19")
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file.copy("hg19", "mm10")
    with pytest.raises(InputFileError, match=r"f\.h5 has 2 genomes \(hg19, mm10\).* read one with scanpy") as error:
        read(tmp_path / "f.h5")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_10x_folders_of_both_versions_are_read(tmp_path, version, gz, prefix):
    found = read(write_10x_folder(tmp_path / "f", version=version, gz=gz, prefix=prefix))
    assert_counts(found)
    assert list(found.var_names) == SYMBOLS  # a gene called "NA" is a gene
    assert list(found.var["gene_ids"]) == IDS
    assert ("feature_types" in found.var) == (version == 3)


def test_cells_of_a_10x_folder_can_be_written_to_any_file(tmp_path):
    """The index of the cells was called 0, a number: AnnData raised a TypeError, after all the work."""
    found = read(write_10x_folder(tmp_path / "f"))
    assert found.obs_names.name is None
    save(found, tmp_path / "f.h5ad", "h5ad")
    assert_counts(read(tmp_path / "f.h5ad"))


def test_hidden_files_of_macos_are_ignored(tmp_path):
    folder = write_10x_folder(tmp_path / "f")
    for name in ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"):
        (folder / f"._{name}").write_bytes(b"Mac OS X")
    assert_counts(read(folder))


def test_a_file_and_its_gz_may_stand_side_by_side_if_equal(tmp_path):
    folder = write_10x_folder(tmp_path / "f")
    write_10x_folder(folder, gz=False)
    assert_counts(read(folder))
    for name in ("features.tsv", "matrix.mtx"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        fails(folder, f"{name} and {name}.gz differ; remove the one")


def write_folder(folder, matrix, names):
    folder.mkdir(parents=True)
    with (folder / matrix).open("wb") as file:
        mmwrite(file, sparse.coo_matrix(COUNTS.astype(int)))
    for name, lines in names.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.mark.parametrize("prefix", ["", "GSM1_"])
@pytest.mark.parametrize("matrix", ["cells_x_genes", "cells_x_features"])
def test_folders_of_kallisto_and_bustools_are_read(tmp_path, prefix, matrix):
    names = {f"{prefix}{matrix}.genes.txt": IDS, f"{prefix}{matrix}.barcodes.txt": CELLS}
    found = read(write_folder(tmp_path / "f", f"{prefix}{matrix}.mtx", names))
    assert_counts(found)
    assert list(found.var_names) == list(found.var["gene_ids"]) == IDS
    assert "feature_types" not in found.var


def test_folders_of_alevin_fry_are_read(tmp_path):
    names = {"quants_mat_cols.txt": IDS, "quants_mat_rows.txt": CELLS}
    folder = write_folder(tmp_path / "out" / "alevin", "quants_mat.mtx", names)
    assert_counts(read(folder))
    fails(tmp_path / "out", "did you mean", "alevin")


def test_spliced_and_unspliced_counts_of_alevin_fry_are_not_read_as_three_genes(tmp_path):
    three = ["CD4", "CD4-U", "CD4-A"]
    fails(
        write_folder(tmp_path / "f", "quants_mat.mtx", {"quants_mat_cols.txt": three, "quants_mat_rows.txt": CELLS}),
        "USA mode", "pyroe.load_fry",
    )  # fmt: skip


@pytest.mark.parametrize("matrix", ["DGE.mtx", "count_matrix.mtx"])
def test_folders_of_parse_are_read(tmp_path, matrix):
    genes = ["gene_id,gene_name,genome", *(f"{gene_id},{name},hg38" for gene_id, name in zip(IDS, SYMBOLS))]
    cells = ["bc_wells,sample,tscp_count", *(f"{cell},s1,{i}" for i, cell in enumerate(CELLS))]
    found = read(write_folder(tmp_path / "f", matrix, {"all_genes.csv": genes, "cell_metadata.csv": cells}))
    assert_counts(found)
    assert list(found.var_names) == SYMBOLS
    assert list(found.var["gene_ids"]) == IDS
    assert "feature_types" not in found.var
    assert list(found.obs["tscp_count"]) == [0, 1, 2]


def test_a_10x_matrix_may_have_the_cells_in_rows(tmp_path):
    folder = write_10x_folder(tmp_path / "f", gz=False)
    with (folder / "matrix.mtx").open("wb") as file:
        mmwrite(file, sparse.coo_matrix(COUNTS.astype(int)))
    assert_counts(read(folder))


def test_a_square_10x_matrix_has_the_features_in_rows(tmp_path):
    folder = write_10x_folder(tmp_path / "f", gz=False)
    square = sparse.coo_matrix(COUNTS[:, :3].T.astype(int))
    with (folder / "matrix.mtx").open("wb") as file:
        mmwrite(file, square)
    (folder / "features.tsv").write_text("".join(f"{name}\n" for name in IDS[:3]))
    np.testing.assert_array_equal(read(folder).X.toarray(), COUNTS[:, :3])


def test_names_as_r_writes_them_are_refused_with_the_cause(tmp_path):
    """A header was called a truncated file, and "Gene Expression" was not RNA, of which there was none."""
    folder = write_10x_folder(tmp_path / "f", gz=False)
    plain = {name: (folder / name).read_text() for name in ("features.tsv", "barcodes.tsv")}
    for headed in (["features.tsv"], ["barcodes.tsv"], plain):
        for name, text in plain.items():
            (folder / name).write_text(("id\tname\ttype\n" if name in headed else "") + text)
        fails(folder, "the first line of the features or barcodes seems to be a header; remove it")
    for name, text in plain.items():
        rows = [line.split("\t") for line in text.splitlines()]
        (folder / name).write_text("".join("\t".join(f'"{field}"' for field in row) + "\n" for row in rows))
    fails(folder, "features.tsv has its names in quotes; remove them (in R: write.table(..., quote = FALSE))")


def test_a_matrix_of_another_name_is_named(tmp_path):
    fails(write_folder(tmp_path / "f", "spliced.mtx", {"barcodes.tsv": CELLS}), "rename spliced.mtx to matrix.mtx")


def fails(path, *words):
    with raises_one_line(InputFileError, path.name, *words):
        read(path)


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    """A file written with Blosc, say, was called damaged."""
    adata = AnnData(np.ones((50, 40), dtype=np.float32))
    adata.write_h5ad(tmp_path / "a.h5ad", compression="lzf")
    content = (tmp_path / "a.h5ad").read_bytes()
    assert content.count(struct.pack("<HH", h5py.h5z.FILTER_LZF, 8)) >= 1
    with h5py.File(tmp_path / "a.h5ad") as file:
        assert file["X"].compression == "lzf"
    unknown = content.replace(struct.pack("<HH", h5py.h5z.FILTER_LZF, 8), struct.pack("<HH", 399, 8))
    (tmp_path / "a.h5ad").write_bytes(unknown)
    fails(tmp_path / "a.h5ad", "compressed with lzf (HDF5 filter 399)", "install hdf5plugin")


def test_a_message_says_that_a_large_file_is_being_read(tmp_path, monkeypatch, caplog):
    save(toy_anndata(), tmp_path / "a.h5ad", "h5ad")
    folder = write_10x_folder(tmp_path / "f")
    with caplog.at_level("INFO", logger="scfusionttt"):
        read(tmp_path / "a.h5ad")
        assert not caplog.text
        monkeypatch.setattr("scfusionttt.io.read.LARGE", 100)
        read(tmp_path / "a.h5ad")
        read(folder)
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"reading {tmp_path / 'a.h5ad'}", f"reading {folder}",
    ]  # fmt: skip


def test_missing_and_empty_files_are_refused(tmp_path):
    fails(tmp_path / "no.h5ad", "no such file")
    (tmp_path / "empty.h5ad").touch()
    fails(tmp_path / "empty.h5ad", "empty (0 bytes)", "again")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, kept):
    for name, data in {"t.h5ad": toy_anndata(), "t.h5mu": toy_mudata()}.items():
        save(data, tmp_path / name, name[2:])
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
        fails(tmp_path / name, "damaged or incomplete")


def test_a_file_without_one_of_its_parts_is_called_damaged(tmp_path):
    """A file of the right kind whose parts do not fit is distinguished from one of another kind."""
    save(toy_anndata(), tmp_path / "d.h5ad", "h5ad")
    with h5py.File(tmp_path / "d.h5ad", "r+") as file:
        del file["X/indptr"]
    fails(tmp_path / "d.h5ad", "damaged or incomplete")


def test_files_of_other_kinds_are_named(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["assays"] = 1
    fails(tmp_path / "other.h5", "HDF5 of another kind", "assays", ".h5mu")
    with h5py.File(tmp_path / "hollow.h5", "w"):
        pass
    fails(tmp_path / "hollow.h5", "HDF5 of another kind", "nothing")
    (tmp_path / "table.h5ad").write_text("gene,cell\nCD4,1\n")
    fails(tmp_path / "table.h5ad", "text file")
    (tmp_path / "noise.h5ad").write_bytes(bytes(2000))
    fails(tmp_path / "noise.h5ad", "not an HDF5 file")
    (tmp_path / "a.h5ad.gz").write_bytes(gzip.compress(b"x" * 100))
    fails(tmp_path / "a.h5ad.gz", "gunzip")
    (tmp_path / "matrix.mtx.gz").write_bytes(gzip.compress(b"%%MatrixMarket"))
    fails(tmp_path / "matrix.mtx.gz", "use its folder")


def test_a_folder_without_a_matrix_is_refused_and_one_inside_suggested(tmp_path):
    fails(tmp_path, "without matrix.mtx")
    write_10x_folder(tmp_path / "filtered_feature_bc_matrix")
    fails(tmp_path, "did you mean", "filtered_feature_bc_matrix")


def test_10x_folders_with_missing_or_cut_files_are_refused(tmp_path):
    folder = write_10x_folder(tmp_path / "f", gz=False)
    barcodes = (folder / "barcodes.tsv").read_text()
    (folder / "barcodes.tsv").write_text("AAA-1\n")
    fails(folder / "matrix.mtx", "use its folder")
    with pytest.raises(InputFileError, match=r"4 x 3, but there are 4 features and 1 barcodes"):
        read(folder)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(InputFileError, match=r"no barcodes\.tsv"):
        read(folder)
    (folder / "barcodes.tsv").write_text(barcodes)
    whole = (folder / "matrix.mtx").read_text()
    (folder / "matrix.mtx").write_text(whole[: len(whole) // 2])
    with pytest.raises(InputFileError, match="damaged or incomplete"):
        read(folder)
    (folder / "matrix.mtx").unlink()
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(whole.encode())[:-20])
    with pytest.raises(InputFileError, match="is truncated"):
        read(folder)


def test_a_few_bytes_that_stand_for_more_than_memory_holds_are_refused(tmp_path, monkeypatch):
    folder = write_10x_folder(tmp_path / "m")
    monkeypatch.setattr(os, "sysconf", lambda name: 2**10)  # pages, and bytes of a page: a machine of 1 MiB
    assert read(folder).shape == (3, 4)
    bomb = gzip.compress(bytes(2**22))
    assert len(bomb) < 5000
    (folder / "barcodes.tsv.gz").write_bytes(bomb)
    with pytest.raises(InputFileError, match=r"barcodes\.tsv\.gz unpacks to .* more than"):
        read(folder)
    header = b"%%MatrixMarket matrix coordinate integer general\n4 3 1000000000\n1 1 1\n"
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(header))
    write_10x_folder(tmp_path / "other")
    (folder / "barcodes.tsv.gz").write_bytes((tmp_path / "other" / "barcodes.tsv.gz").read_bytes())
    with pytest.raises(InputFileError, match=r"matrix\.mtx\.gz declares 15 GiB"):
        read(folder)


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    save(toy_anndata(), tmp_path / "mine.h5ad", "h5ad")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    fails(tmp_path / "mine.h5ad", "no permission")


def test_a_zarr_store_with_cut_chunks_is_refused(tmp_path):
    save(toy_anndata(), tmp_path / "d.zarr", "zarr")
    for chunk in (tmp_path / "d.zarr" / "X").rglob("[0-9]"):
        chunk.write_bytes(chunk.read_bytes()[:5])
    fails(tmp_path / "d.zarr", "damaged or incomplete")


def chunks_of(array):
    return [path for path in array.rglob("*") if path.is_file() and path.name.lstrip("0123456789.") == ""]


def test_zarr_chunks_of_zeros_are_valid(tmp_path):
    """Zarr writes none for zeros: an empty layer and counts in the first gene alone were called incomplete."""
    data = toy_anndata()
    data.X = sparse.csr_matrix(COUNTS * [1, 0, 0, 0])
    data.layers["empty"] = sparse.csr_matrix(COUNTS.shape, dtype=np.float32)
    save(data, tmp_path / "a.zarr", "zarr")
    for array in ("X/indices", "layers/empty/indptr"):
        assert not chunks_of(tmp_path / "a.zarr" / array)
    result = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(result.X.toarray()[:, 0], [1, 0, 5])
    assert result.X.sum() == 6
    assert result.layers["empty"].nnz == 0


def test_stored_zeros_of_a_layer_are_read_with_a_warning(tmp_path):
    data = toy_anndata()
    data.layers["zeros"] = data.X.copy()
    data.layers["zeros"].data[:] = 0
    save(data, tmp_path / "a.zarr", "zarr")
    with pytest.warns(UserWarning, match="1 of 1 chunks of layers/zeros/data are missing and were read as zeros"):
        result = read(tmp_path / "a.zarr")
    assert result.layers["zeros"].sum() == 0
    assert_counts(result)


@pytest.mark.parametrize("array", ["data", "indices", "indptr"])
@pytest.mark.parametrize("matrix", ["X", "layers/other"])
def test_lost_chunks_of_a_sparse_matrix_are_refused(tmp_path, matrix, array):
    data = toy_anndata()
    data.layers["other"] = data.X.copy()
    with quiet():
        data.write_zarr(tmp_path / "a.zarr", chunks=(2,))
    sorted(chunks_of(tmp_path / "a.zarr" / matrix / array))[0].unlink()
    if (matrix, array) == ("layers/other", "data"):
        with pytest.warns(UserWarning, match="layers/other/data are missing and were read as zeros"):
            read(tmp_path / "a.zarr")
    else:
        fails(tmp_path / "a.zarr", f"a chunk of {matrix}/{array} is missing")


def test_a_lost_first_chunk_of_row_ends_is_refused(tmp_path):
    """All entries would become those of one row, some in one place."""
    save(toy_anndata(), tmp_path / "a.zarr", "zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")["X"]
    ends = group["indptr"][:]
    assert ends.tolist() == [0, 3, 4, 7]
    del group["indptr"]
    group.create_array("indptr", shape=(4,), chunks=(2,), dtype="i4", fill_value=0)[:] = ends
    chunks_of(tmp_path / "a.zarr" / "X" / "indptr")[0].unlink()
    fails(tmp_path / "a.zarr", "a chunk of X/indptr is missing")


def test_raw_of_mudata_is_read_from_zarr(tmp_path):
    """Mudata leaves it out, so that counts in .raw were lost and the values called normalised."""
    data = toy_mudata()
    data["rna"].raw = data["rna"].copy()
    data["rna"].X = data["rna"].X.log1p()
    save(data, tmp_path / "m.zarr", "zarr")
    save(data, tmp_path / "m.h5mu", "h5mu")
    for name in ("m.zarr", "m.h5mu"):
        raw = read(tmp_path / name)["rna"].raw
        np.testing.assert_array_equal(raw.X.toarray(), COUNTS)
        assert list(raw.var_names) == list(data["rna"].var_names)


def add_unsupported(file, slot="obsm", key="airr"):
    """Add a part with an encoding that no installed reader knows."""
    file[slot].create_group(key).attrs.update({"encoding-type": "newer-type", "encoding-version": "0.1.0"})


@pytest.mark.parametrize("slot", ["uns", "obsm", "varm", "obsp", "varp"])
def test_parts_that_are_not_needed_and_not_supported_are_left_out(tmp_path, slot):
    """Awkward arrays of scirpy and parts written by a newer anndata made a file "damaged"."""
    data = toy_anndata()
    data.obsm["X_pca"], data.uns["kept"], data.raw = COUNTS[:, :2], "a", data.copy()
    save(data, tmp_path / "a.h5ad", "h5ad")
    save(data, tmp_path / "a.zarr", "zarr")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        add_unsupported(file, slot)
    add_unsupported(zarr.open_group(tmp_path / "a.zarr", mode="r+", use_consolidated=False), slot)
    with quiet():
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    for name in ("a.h5ad", "a.zarr"):
        with pytest.warns(UserWarning, match=rf"{name}: left out {slot}\['airr'\] \(No read method"):
            result = read(tmp_path / name)
        assert_counts(result)
        np.testing.assert_array_equal(result.obsm["X_pca"], COUNTS[:, :2])
        np.testing.assert_array_equal(result.raw.X.toarray(), COUNTS)
        assert result.uns["kept"] == "a"
        assert "airr" not in getattr(result, slot)


def test_unsupported_parts_of_mudata_are_left_out(tmp_path):
    data = toy_mudata()
    save(data, tmp_path / "m.h5mu", "h5mu")
    with h5py.File(tmp_path / "m.h5mu", "r+") as file:
        add_unsupported(file["mod/rna"])
        add_unsupported(file, "uns", "thing")
    with pytest.warns(UserWarning, match=r"left out rna: obsm\['airr'\] .*, uns\['thing'\]"):
        result = read(tmp_path / "m.h5mu")
    assert list(result.mod) == ["rna", "prot"]
    assert list(result.obs_names) == list(data.obs_names)
    assert_counts(result["rna"])
    np.testing.assert_array_equal(result["prot"].X.toarray(), COUNTS)


@pytest.mark.parametrize("place", ["X", "layers/counts"])
def test_counts_that_are_not_supported_are_refused_with_the_cause(tmp_path, place):
    save(toy_anndata(), tmp_path / "a.h5ad", "h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        if place in file:
            del file[place]
        group = file.create_group(place)
        group.attrs.update({"encoding-type": "newer-type", "encoding-version": "0.1.0"})
    fails(tmp_path / "a.h5ad", "cannot be read with the installed packages", "update anndata")


def test_the_tables_of_spatialdata_are_named(tmp_path):
    zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2).create_group("tables")
    save(toy_anndata(), tmp_path / "s.zarr" / "tables" / "cells", "zarr")
    fails(tmp_path / "s.zarr", "is SpatialData", "s.zarr/tables/cells")
    assert_counts(read(tmp_path / "s.zarr" / "tables" / "cells"))
