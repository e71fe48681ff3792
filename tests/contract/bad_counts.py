"""Matrices of every container and dtype, and values that are no counts."""

import numpy as np
import pandas as pd
from anndata import AnnData
from making import block, entry, matrix, modalities, refused, rna_of, same, used
from scipy import sparse

NORMALIZED = "values look normalised, not raw counts"
#: float16 and the like hold these counts exactly.
_FLIPPED = np.dtype(np.float32).newbyteorder()


def _layer(data, folder):
    data["rna"].layers["counts"] = data["rna"].X.copy()
    data["rna"].X = np.log1p(data["rna"].X)


def _other_layer(data, folder):
    data["rna"].layers["umi"] = data["rna"].X.copy()
    data["rna"].X = np.log1p(data["rna"].X)


def _raw(data, folder):
    data["rna"].raw = data["rna"].copy()
    data["rna"].X = np.log1p(data["rna"].X)


def _genes_in_raw(data, folder):
    """Every second gene, normalised, in X; the counts of all in .raw."""
    rna = data["rna"].copy()
    rna.raw = rna.copy()
    rna = rna[:, ::2].copy()
    rna.X = np.log1p(rna.X)
    return modalities(lambda whole: {"rna": rna, "prot": whole["prot"]})(data, folder)


def _no_matrix(data, folder):
    data["rna"].X = None


def _unsorted(x):
    x = x.copy()
    for start, stop in zip(x.indptr[:-1], x.indptr[1:]):
        x.indices[start:stop] = x.indices[start:stop][::-1].copy()
        x.data[start:stop] = x.data[start:stop][::-1].copy()
    x.has_sorted_indices = False
    return x


def _split_entries(x):
    """Return the same counts, each stored as two entries of one place: 1 and the rest, which may be 0."""
    x = x.tocoo()
    halves = np.concatenate([np.ones_like(x.data), x.data - 1])
    place = np.tile(x.row, 2), np.tile(x.col, 2)
    order = np.argsort(place[0], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(place[0], minlength=x.shape[0]))])
    return sparse.csr_matrix((halves[order], place[1][order], indptr), shape=x.shape)


def _stored_zeros(x):
    x = sparse.csr_matrix(x + sparse.csr_matrix((np.ones(x.shape[0]), (range(x.shape[0]), range(x.shape[0]))), x.shape))
    for row in range(x.shape[0]):
        x[row, row] -= 1
    return x


def _as_float16(x):
    return x.toarray().astype(np.float16)


def _obsm(frame: bool):
    def make(data, folder):
        adata, protein = rna_of(data), data["prot"]
        adata.obsm["protein_expression"] = protein.to_df() if frame else protein.X
        return adata

    return make


def _text_column(data, folder):
    adata = rna_of(data)
    adata.obsm["prot"] = data["prot"].to_df().assign(batch="b1")
    return adata


def _two_tables(data, folder):
    adata, counts = rna_of(data), data["prot"].to_df()
    adata.obsm["protein_expression"], adata.obsm["protein_counts"] = np.log1p(counts), counts
    return adata


def _protein_layer(data, folder):
    data["prot"].layers["raw"] = data["prot"].X.copy()
    data["prot"].X = np.log1p(data["prot"].X)


def _unfiltered(data, folder):
    """The cells among 30 times as many droplets of ambient RNA, and as many empty ones."""
    rna = rna_of(data)
    n, g = 30 * rna.n_obs, rna.n_vars
    ambient = sparse.csr_matrix(np.random.default_rng(0).poisson(2 / g, (n, g)))
    x = sparse.vstack([rna.X, ambient, sparse.csr_matrix((n, g))], format="csr").astype(np.float32)
    return AnnData(
        x, obs=pd.DataFrame({"cell_type": "T"}, index=[f"c{i}" for i in range(2 * n + rna.n_obs)]), var=rna.var
    )


def _corrected(layer):
    """Every 30th count of the RNA is 0.4 too large, in X or in a layer."""

    def make(data, folder):
        counts = data["rna"].X.copy()
        counts.data = np.where(np.arange(counts.nnz) % 30, counts.data, counts.data + 0.4)
        if layer is None:
            data["rna"].X = counts
        else:
            data["rna"].layers[layer] = counts

    return make


def _text(x):
    return np.where(x.toarray() > 0, "yes", "no").astype(object)


def _text_make(data, folder):
    adata = rna_of(data)
    return AnnData(_text(adata.X), obs=adata.obs, var=adata.var)


CASES = {
    "CSC": same(matrix(sparse.csc_matrix)),
    "dense": same(matrix(lambda x: x.toarray())),
    "dense, columns first": same(matrix(lambda x: np.asfortranarray(x.toarray()))),
    "int64": same(matrix(lambda x: x.astype(np.int64))),
    "uint16": same(matrix(lambda x: x.astype(np.uint16))),
    "int32, dense": same(matrix(lambda x: x.toarray().astype(np.int32))),
    "float64": same(matrix(lambda x: x.astype(np.float64))),
    "float16": same(matrix(_as_float16)),
    "big-endian": same(matrix(lambda x: x.toarray().astype(_FLIPPED))),
    "sparse proteins": same(matrix(sparse.csc_matrix, "prot")),
    "int64 proteins": same(matrix(lambda x: x.astype(np.int64), "prot")),
    "columns of each row out of order": same(matrix(_unsorted)),
    "two entries for one place, which add up": same(matrix(_split_entries)),
    "stored zeros": same(matrix(_stored_zeros)),
    "complex numbers": refused("counts must be numbers", matrix(lambda x: x.toarray().astype(np.complex64))),
    "text instead of counts": refused("counts must be numbers", _text_make),
    "yes and no instead of counts": used(matrix(lambda x: x.toarray() > 0)),
    "counts in layers['counts'], normalised X": same(_layer),
    "counts in another layer, named": same(
        _other_layer, "protein has no layer 'umi', so its counts were taken from X", options="--layer umi"
    ),
    "counts of the proteins in a layer, those of RNA in X": same(
        _protein_layer, "RNA has no layer 'raw', so its counts were taken from X", options="--layer raw"
    ),
    "counts in another layer, not named": refused(NORMALIZED, _other_layer),
    "counts in .raw, normalised X": same(_raw, "so the raw counts were taken from .raw"),
    "counts of all genes in .raw, half of them in a normalised X": same(
        _genes_in_raw, "so the raw counts of all 300 features were taken from .raw"
    ),
    "no matrix at all": refused("RNA has no matrix; put raw counts in X", _no_matrix),
    "RNA: NaN": refused("RNA has NaN in 1 cell (cell-000000)", entry(np.nan)),
    "RNA: NaN throughout": refused("RNA has NaN in 160 cells", block(np.nan)),
    "RNA: infinite": refused("RNA has infinite values in 1 cell (cell-000000)", entry(np.inf)),
    "RNA: minus infinite": refused("RNA has infinite values in 1 cell", entry(-np.inf)),
    "RNA: negative": refused("RNA has negative values in 1 cell", entry(-1)),
    "RNA: one fraction": refused("% of those above zero) in 1 cell", entry(0.5)),
    "RNA: 3 % fractions, as from EM": refused(
        "RNA has fractional values (3.3 % of those above zero)", _corrected(None)
    ),
    "RNA: 3 % fractions, as from EM, --round": same(
        _corrected(None), "RNA: counts with fractions were rounded", options="--round"
    ),
    "RNA: fractions in layers['counts'], whole numbers in X": refused(
        "from EM or ambient correction?", _corrected("counts")
    ),
    "RNA: fractions in layers['counts'], X chosen": same(_corrected("counts"), options="--layer X"),
    "RNA: log-normalised": refused(NORMALIZED, matrix(np.log1p)),
    "RNA: z-scored": refused(NORMALIZED, matrix(lambda x: (x.toarray() - x.toarray().mean(0)) / 3)),
    "RNA: beyond float32 (1e300)": refused("RNA has infinite values", entry(1e300)),
    "RNA: a huge count (1e30)": used(entry(1e30), "RNA has counts above 16777216"),
    "RNA: a count of 2^40 in int64": used(entry(2**40, dtype=np.int64), "RNA has counts above 16777216"),
    "RNA: the largest float32": used(entry(3.4e38), "RNA has counts above 16777216"),
    "RNA: cells without counts": refused(
        "no RNA counts in 2 cells (cell-000005, cell-000007); leave them out with --drop-empty", block(0, [5, 7])
    ),
    "RNA: cells without counts, --drop-empty": used(
        block(0, [5, 7]), "left out 2 cells without RNA counts: cell-000005, cell-000007", options="--drop-empty"
    ),
    "RNA: all barcodes, unfiltered": refused("looks unfiltered: 98% of 9760 barcodes have fewer than", _unfiltered),
    "RNA: no counts at all": refused("no RNA counts in 160 cells", block(0)),
    "RNA: no counts at all, --drop-empty": refused("every cell is empty", block(0), options="--drop-empty"),
    "RNA: genes without counts": used(block(0, features=slice(9)), "no counts in any cell for"),
    "protein: not measured in some cells (NaN)": used(
        block(np.nan, [1, 2], modality="prot"), "proteins not measured (NaN) in 2 cells (cell-000001, cell-000002)"
    ),
    "protein: measured in no cell (NaN)": used(
        block(np.nan, features=0, modality="prot"), "measured in no cell: 1 protein (CD3)"
    ),
    "protein: NaN throughout": used(block(np.nan, modality="prot"), "measured in no cell: 9 proteins"),
    "protein: zero throughout": used(
        block(0, features=0, modality="prot"), "all counts are zero for 1 protein (CD3), treated as measured"
    ),
    "protein: all zero": used(block(0, modality="prot"), "all counts are zero for 9 proteins"),
    "protein: cells without counts": used(block(0, [5, 7], modality="prot")),
    "protein: infinite": refused("protein has infinite values in 1 cell", entry(np.inf, "prot")),
    "protein: negative": refused("protein has negative values in 1 cell", entry(-2, "prot")),
    "protein: CLR-normalised": refused(
        "protein has fractional values", matrix(lambda x: np.log1p(x / x.mean(0)), "prot")
    ),
    "protein: a huge count (1e30)": used(entry(1e30, "prot"), "protein has counts above 16777216"),
    "proteins in obsm, a DataFrame": same(_obsm(True)),
    "proteins in obsm, without names": used(
        _obsm(False), "obsm['protein_expression'] has no protein names and is not used"
    ),
    "proteins in obsm, a text column among them": refused("not numbers in 1 column (batch)", _text_column),
    "proteins in obsm, normalised and as counts": same(
        _two_tables, "taken from obsm['protein_counts'], not from obsm['protein_expression']"
    ),
    "RNA only": used(lambda data, folder: rna_of(data)),
    "proteins only": refused("no RNA found: the modalities are prot", modalities(lambda data: {"prot": data["prot"]})),
    "modalities named gex and adt": same(modalities(lambda data: {"gex": data["rna"], "adt": data["prot"]})),
    "modalities named RNA and Protein": same(modalities(lambda data: {"RNA": data["rna"], "Protein": data["prot"]})),
    "modalities with other names": refused(
        "no RNA found: the modalities are transcripts, surface; choose those of RNA and proteins",
        modalities(lambda data: {"transcripts": data["rna"], "surface": data["prot"]}),
        verbs={"transfer": "no RNA found: the modalities are transcripts, surface"},
    ),
    "a third modality": same(
        modalities(lambda data: {**{name: data[name] for name in data.mod}, "atac": data["prot"][:, :2]})
    ),
    "a modality that is not there, named": refused(
        "there is no modality 'atac'; the input has rna, prot", lambda data, folder: None, options="--rna-modality atac"
    ),
    "a layer that is not there, named": refused(
        "RNA has no layer 'umi'", lambda data, folder: None, options="--layer umi"
    ),
}
