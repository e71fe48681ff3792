"""Files that are cut, damaged or of another kind."""

import gzip
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import zarr
from making import refused, rna_of, same, used, write
from scipy import sparse
from scipy.io import mmread, mmwrite

from scfusionttt.io.quiet_warnings import quiet


def _bytes(content: bytes, name: str = "in.h5mu"):
    def make(data, folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _cut(share: float, *, kind: str = "h5mu"):
    def make(data, folder):
        path = write(data if kind == "h5mu" else rna_of(data), folder / "whole")
        whole = path.read_bytes()
        (folder / f"cut.{kind}").write_bytes(whole[: int(share * len(whole))])
        return folder / f"cut.{kind}"

    return make


def _packed(data, folder):
    path = write(rna_of(data), folder / "cells")
    (folder / "cells.h5ad.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    return folder / "cells.h5ad.gz"


def _zip(data, folder):
    with zipfile.ZipFile(folder / "cells.zip", "w") as archive:
        archive.writestr("../cells.h5ad", b"x")
    return folder / "cells.zip"


def _hdf5(change, *, rna: bool = True):
    """Make by changing what stands in a good file."""

    def make(data, folder):
        path = write(rna_of(data) if rna else data, folder / "cells")
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def _other_hdf5(data, folder):
    with h5py.File(folder / "other.h5", "w") as file:
        file["assays"] = 1
    return folder / "other.h5"


def _hollow(data, folder):
    h5py.File(folder / "hollow.h5ad", "w").close()
    return folder / "hollow.h5ad"


def _replace(file, name, values):
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def _indices(change):
    def make(file):
        indices = file["X/indices"][()]
        change(indices)
        _replace(file, "X/indices", indices)

    return _hdf5(make)


def _shuffled_indptr(file):
    indptr = file["X/indptr"][()]
    indptr[1:-1] = indptr[1:-1][::-1]
    _replace(file, "X/indptr", indptr)


def _folder(name):
    def make(data, folder):
        (folder / name).mkdir()
        return folder / name

    return make


def _10x(change=lambda folder: None, *, one: str | None = None):
    def make(data, folder):
        place, rna = folder / "filtered", data["rna"]
        place.mkdir()
        with (place / "matrix.mtx").open("wb") as file:
            mmwrite(file, rna.X.T.astype(int).tocoo())
        rows = [f"{gene_id}\t{name}\tGene Expression" for gene_id, name in zip(rna.var["gene_ids"], rna.var_names)]
        (place / "features.tsv").write_text("\n".join(rows))
        (place / "barcodes.tsv").write_text("\n".join(rna.obs_names))
        change(place)
        return place if one is None else place / one

    return make


def _other_tool(matrix, features, cells, row="{id}"):
    """Make a folder of cells x genes, with a row for each gene and one for each cell; a header in .csv."""

    def make(data, folder):
        place, rna = folder / "counts", data["rna"]
        place.mkdir()
        with (place / matrix).open("wb") as file:
            mmwrite(file, sparse.coo_matrix(rna.X.astype(int)))
        ids = zip(rna.var["gene_ids"], rna.var_names)
        rows = [row.format(id=gene_id, name=name) for gene_id, name in ids]
        heads = [[name] if features.endswith(".csv") else [] for name in ("gene_id,gene_name,genome", "bc_wells")]
        (place / features).write_text("\n".join(heads[0] + rows))
        (place / cells).write_text("\n".join(heads[1] + list(rna.obs_names)))
        return place

    return make


def _transposed_matrix(folder):
    with (folder / "matrix.mtx").open("rb") as file:
        counts = mmread(file)
    with (folder / "matrix.mtx").open("wb") as file:
        mmwrite(file, counts.T)


def _pack_another(folder):
    (folder / "features.tsv.gz").write_bytes(gzip.compress((folder / "barcodes.tsv").read_bytes()))


def _empty_layer(data, folder):
    data["rna"].layers["empty"] = sparse.csr_matrix(data["rna"].shape, dtype=np.float32)
    with quiet():
        data.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


def _raw_in_zarr(data, folder):
    data["rna"].raw = data["rna"].copy()
    data["rna"].X = np.log1p(data["rna"].X)
    with quiet():
        data.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


def _unsupported(place):
    attributes = {"encoding-type": "newer-type", "encoding-version": "0.1.0"}

    def change(file):
        if place in file:
            del file[place]
        file.create_group(place).attrs.update(attributes)

    return _hdf5(change, rna=False)


def _spatialdata(data, folder):
    zarr.open_group(folder / "cells.zarr", mode="w", zarr_format=2).create_group("tables")
    with quiet():
        rna_of(data).write_zarr(folder / "cells.zarr" / "tables" / "cells")
    return folder / "cells.zarr"


def _shorten(name, share=0.5):
    def change(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return change


def _declare(folder):
    lines = (folder / "matrix.mtx").read_text().splitlines(keepends=True)
    size = next(i for i, line in enumerate(lines) if not line.startswith("%"))
    n_genes, n_cells, _ = lines[size].split()
    lines[size] = f"{n_genes} {n_cells} {10**12}\n"
    (folder / "matrix.mtx").write_text("".join(lines))


def _zarr(change=lambda store: None, *, dense: bool = False):
    def make(data, folder):
        adata = rna_of(data)
        if dense:
            adata.X = adata.X.toarray()
        with quiet():
            adata.write_zarr(folder / "cells.zarr", chunks=(160, 100))
        change(folder / "cells.zarr")
        return folder / "cells.zarr"

    return make


def _chunks(array):
    """Return the files that hold an array's values, in either format of zarr."""
    return sorted(path for path in array.rglob("*") if path.is_file() and path.name.lstrip("0123456789.") == "")


def _lose_chunk(name):
    return lambda store: _chunks(store / name)[0].unlink()


def _cut_chunk(store):
    path = _chunks(store / "X" / "data")[0]
    path.write_bytes(path.read_bytes()[:5])


def _huge_array(store):
    """Declare more values than any machine holds: a few bytes that would fill its memory."""
    with quiet():
        group = zarr.open_group(store, mode="r+")
        del group["X"]
        array = group.create_array("X", shape=(160, 10**12), chunks=(160, 10**6), dtype="f4")
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        zarr.consolidate_metadata(store)  # which goes before what is written now


def _huge_dataset(file):
    attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
    del file["X"]
    file.create_dataset("X", shape=(160, 10**12), chunks=(160, 1000), dtype="f4").attrs.update(attributes)


def _odd_name(name):
    return lambda data, folder: shutil.move(write(data, folder / "cells"), folder / name)


def _unreadable(data, folder):
    path = write(data, folder / "locked")
    path.chmod(0)
    return path


def _dangling(data, folder):
    (folder / "link.h5mu").symlink_to(folder / "gone.h5mu")
    return folder / "link.h5mu"


def _in_place(make):
    return lambda data, folder: Path(make(data, folder))


#: Scoring clusters reads two columns of obs, which are whole here, and nothing of what is damaged.
READS_LABELS = {"evaluate": ""}

#: Folders of matrices have no labels.
NO_LABELS = {verb: "there is no obs['cell_type']" for verb in ("finetune", "transfer", "evaluate")}

CASES = {
    "no such file": refused("no such file", lambda data, folder: folder / "missing.h5mu"),
    "a link to a file that is gone": refused("no such file", _dangling),
    "no permission to read": refused("no permission to read", _unreadable),
    "0 bytes": refused("is empty (0 bytes)", _bytes(b"")),
    ".h5mu cut at 20 %": refused("it is damaged or incomplete", _cut(0.2)),
    ".h5mu cut at 50 %": refused("it is damaged or incomplete", _cut(0.5)),
    ".h5mu without its last 1 %": refused("it is damaged or incomplete", _cut(0.99)),
    ".h5ad cut at 50 %": refused("it is damaged or incomplete", _cut(0.5, kind="h5ad")),
    "a table as text": refused("is a text file", _bytes(b"cell,gene\na,1\n")),
    "zeros": refused("not an HDF5 file", _bytes(bytes(3000))),
    "noise": refused("not an HDF5 file", _bytes(np.random.default_rng(0).bytes(3000))),
    "the signature of HDF5 and nothing else": refused("it is damaged", _bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))),
    ".h5ad packed with gzip": refused("unpack it first (gunzip)", _packed),
    "a zip archive": refused("is a zip archive; unpack it first", _zip),
    "an R object": refused("is an R object; write it as .h5ad", _bytes(b"RDX3\n" + bytes(100), "in.rds")),
    "HDF5 of another kind": refused("HDF5 of another kind (it has assays)", _other_hdf5),
    "HDF5 with nothing in it": refused("HDF5 of another kind (it has nothing)", _hollow),
    ".h5ad without X/indptr": refused("it is damaged", _hdf5(lambda file: file.__delitem__("X/indptr"))),
    ".h5ad without its cell names": refused("it is damaged", _hdf5(lambda file: file.__delitem__("obs/_index"))),
    ".h5ad with fewer cells in X than in obs": refused(
        "it is damaged", _hdf5(lambda file: file["X"].attrs.__setitem__("shape", [150, 300]))
    ),
    ".h5ad of an unknown encoding": refused(
        "cannot be read with the installed packages",
        _hdf5(lambda file: file["X"].attrs.__setitem__("encoding-type", "tensor")),
    ),
    ".h5ad whose X/indptr goes back": refused(
        "the sparse matrix is corrupt", _hdf5(_shuffled_indptr), verbs=READS_LABELS
    ),
    ".h5ad with a gene number past the last": refused(
        "the sparse matrix is corrupt", _indices(lambda indices: indices.__setitem__(5, 10**6)), verbs=READS_LABELS
    ),
    ".h5ad with a negative gene number": refused(
        "the sparse matrix is corrupt", _indices(lambda indices: indices.__setitem__(5, -7)), verbs=READS_LABELS
    ),
    ".h5ad that declares 10^12 genes": refused("GiB of values, more than", _hdf5(_huge_dataset)),
    ".h5mu without modalities": refused(
        "no RNA found: the modalities are none",
        _hdf5(lambda file: [file["mod"].__delitem__(name) for name in list(file["mod"])], rna=False),
        verbs=READS_LABELS,
    ),
    ".h5ad under the name .h5mu": same(_odd_name("cells.h5ad")),
    "a name with spaces, quotes and other alphabets": same(_odd_name("Zellen α 細胞 'x'.h5mu")),
    "an empty folder": refused("is a folder without matrix.mtx and not a Zarr store", _folder("hollow")),
    "a folder named .h5ad": refused("is a folder without matrix.mtx", _folder("cells.h5ad")),
    "10x folder": used(_10x(), verbs=NO_LABELS),
    "10x folder whose matrix has the cells in rows": used(_10x(_transposed_matrix), verbs=NO_LABELS),
    "10x folder with hidden files of macOS": used(
        _10x(lambda folder: (folder / "._matrix.mtx").write_bytes(bytes(10))), verbs=NO_LABELS
    ),
    "10x folder with two different files of features, one of them packed": refused(
        "differ; remove the one", _10x(_pack_another)
    ),
    "a folder of kallisto and bustools": used(
        _other_tool("cells_x_genes.mtx", "cells_x_genes.genes.txt", "cells_x_genes.barcodes.txt"), verbs=NO_LABELS
    ),
    "a folder of alevin-fry": used(
        _other_tool("quants_mat.mtx", "quants_mat_cols.txt", "quants_mat_rows.txt"), verbs=NO_LABELS
    ),
    "a folder of Parse": used(
        _other_tool("count_matrix.mtx", "all_genes.csv", "cell_metadata.csv", "{id},{name},hg38"), verbs=NO_LABELS
    ),
    "a folder with a matrix of an unknown name": refused(
        "rename counts.mtx to matrix.mtx", _other_tool("counts.mtx", "genes.txt", "cells.txt")
    ),
    ".h5ad with genes in rows": refused(
        "the cells are named like genes",
        lambda data, folder: write(data["rna"].T, folder / "cells"),
        verbs={"evaluate": "there is no obs['cell_type']"},
    ),
    "10x folder without barcodes": refused(
        "has no barcodes.tsv(.gz)", _10x(lambda folder: (folder / "barcodes.tsv").unlink())
    ),
    "10x folder without features": refused(
        "has no features.tsv(.gz)", _10x(lambda folder: (folder / "features.tsv").unlink())
    ),
    "10x folder with cut barcodes": refused(
        "do not belong together, or one is truncated", _10x(_shorten("barcodes.tsv"))
    ),
    "10x folder that declares 10^12 entries": refused("GiB of values, more than", _10x(_declare)),
    "10x folder with a cut matrix": refused("it is damaged", _10x(_shorten("matrix.mtx"))),
    "10x folder with empty features": refused("it is damaged", _10x(_shorten("features.tsv", 0.0))),
    "one file of a 10x folder": refused("is one file of a 10x matrix; use its folder", _10x(one="matrix.mtx")),
    "the folder above a 10x folder": refused("did you mean", lambda data, folder: _10x()(data, folder).parent),
    "Zarr": used(_zarr()),
    "Zarr, MuData with an empty layer, for which no chunks are stored": same(_empty_layer),
    "Zarr, MuData with counts in .raw": same(_raw_in_zarr, "so the raw counts were taken from .raw"),
    "SpatialData": refused("is SpatialData; choose one of its tables of counts", _spatialdata),
    "HDF5 with a part of obsm that the installed packages do not support": same(
        _unsupported("mod/rna/obsm/airr"), "left out rna: obsm['airr']"
    ),
    "HDF5 with a part of uns that the installed packages do not support": same(
        _unsupported("uns/newer"), "left out uns['newer']"
    ),
    "HDF5 with counts that the installed packages do not support": refused(
        "cannot be read with the installed packages", _unsupported("mod/rna/X")
    ),
    "Zarr, sparse, without a chunk": refused("a chunk of X/data is missing", _zarr(_lose_chunk("X/data"))),
    "Zarr, sparse, without a chunk of the gene numbers": refused(
        "a chunk of X/indices is missing", _zarr(_lose_chunk("X/indices"))
    ),
    "Zarr, dense, without a chunk": used(
        _zarr(_lose_chunk("X"), dense=True), "1 of 3 chunks of X are missing and were read as zeros"
    ),
    "Zarr with a cut chunk": refused("it is damaged", _zarr(_cut_chunk)),
    "Zarr without the cell names": refused(
        "1 cell name () occurs more than once",
        _zarr(lambda store: shutil.rmtree(store / "obs" / "_index")),
        verbs=READS_LABELS,
    ),
    "Zarr that declares 10^12 genes": refused("GiB of values, more than", _zarr(_huge_array)),
}
