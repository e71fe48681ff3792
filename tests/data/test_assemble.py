import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from mudata import MuData
from scipy import sparse

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq, by_modality, has_rna
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.simulation.simulate import simulate
from support import raises_one_line

CELLS = [f"c{i}" for i in range(6)]
GENES = ["CD3E", "CD4", "CD8A", "MS4A1"]
PROTEINS = ["CD3", "CD4", "CD19"]
RNA = np.random.default_rng(0).poisson(1.0, (6, 4)).astype(np.float32)
PROTEIN = np.random.default_rng(1).poisson(9.0, (6, 3)).astype(np.float32)


def table(matrix, cells=CELLS, features=GENES, **obs):
    var = pd.DataFrame(index=list(features)[: matrix.shape[1]])
    with quiet():
        return AnnData(matrix.copy(), obs=pd.DataFrame(obs, index=list(cells)), var=var)


def mudata(rna=None, protein=None, names=("rna", "prot"), **obs):
    rna = table(sparse.csr_matrix(RNA)) if rna is None else rna
    protein = table(PROTEIN, features=PROTEINS) if protein is None else protein
    with quiet():
        data = MuData(dict(zip(names, (rna, protein))))
    for key, values in obs.items():
        data.obs[key] = values
    return data


def fails(data, *words, error=InputDataError, **options):
    with raises_one_line(error, *words):
        as_citeseq(data, **options)


def check_equal(cite, rna=RNA, protein=PROTEIN):
    assert isinstance(cite.rna.X, sparse.csr_matrix)
    assert cite.rna.X.dtype == np.float32
    assert cite.rna.X.has_canonical_format
    np.testing.assert_array_equal(cite.rna.X.toarray(), rna)
    assert list(cite.obs.index) == list(cite.rna.obs_names)
    if protein is None:
        assert cite.protein is None
    else:
        assert type(cite.protein.X) is np.ndarray
        assert cite.protein.X.dtype == np.float32
        np.testing.assert_array_equal(cite.protein.X, protein)
        assert list(cite.protein.obs_names) == list(cite.rna.obs_names)


@pytest.mark.parametrize("names", [("rna", "prot"), ("RNA", "ADT"), ("gex", "Protein")])
def test_modalities_are_found_by_known_names(names):
    check_equal(as_citeseq(mudata(names=names)))


def test_modalities_are_chosen_by_option():
    data = mudata(names=("counts", "tags"))
    fails(data, "no RNA found", "counts, tags", "rna_modality")
    fails(data, "no modality 'rnaa'", "counts, tags", rna_modality="rnaa")
    check_equal(as_citeseq(data, rna_modality="counts", protein_modality="tags"))
    with pytest.warns(UserWarning, match=r"modality left out: 'tags' \(3 features\); .* protein_modality='tags'"):
        check_equal(as_citeseq(data, rna_modality="counts"), protein=None)


def test_feature_types_are_split_and_others_left_out():
    matrix = sparse.csr_matrix(np.hstack([RNA[:, :2], PROTEIN, np.full((6, 1), 0.5), RNA[:, 2:]]))
    data = table(matrix, features=[*GENES[:2], *PROTEINS, "guide", *GENES[2:]])
    data.var["feature_types"] = (
        ["Gene Expression"] * 2 + ["Antibody Capture"] * 3 + ["CRISPR Guide Capture"] + ["Gene Expression"] * 2
    )
    cite = as_citeseq(data)  # CD4 the gene and CD4 the antibody stay apart
    check_equal(cite)
    assert list(cite.rna.var_names) == GENES
    assert list(cite.protein.var_names) == PROTEINS
    data.var["feature_types"] = "Peaks"
    fails(data, "no RNA found", "Peaks", "Gene Expression")


@pytest.mark.parametrize("key", ["protein_expression", "ADT", "prot"])
def test_proteins_are_found_in_obsm(key):
    data = table(sparse.csr_matrix(RNA))
    data.obsm[key] = pd.DataFrame(PROTEIN, index=CELLS, columns=PROTEINS)
    cite = as_citeseq(data)
    check_equal(cite)
    assert list(cite.protein.var_names) == PROTEINS
    data.obsm["mine"] = data.obsm.pop(key)
    with pytest.warns(UserWarning, match=r"left out: obsm\['mine'\] \(3 columns\); .* protein_modality='mine'"):
        check_equal(as_citeseq(data), protein=None)
    check_equal(as_citeseq(data, protein_modality="mine"))
    fails(data, "no obsm['other']", "mine", protein_modality="other")


def test_a_warning_reports_proteins_without_names():
    data = table(sparse.csr_matrix(RNA))
    data.obsm["prot"] = PROTEIN
    with pytest.warns(UserWarning, match=r"obsm\['prot'\] has no protein names and is not used; make it a DataFrame"):
        check_equal(as_citeseq(data), protein=None)
    fails(data, "no protein names", "DataFrame", protein_modality="prot")


BOTH = sparse.csr_matrix(np.hstack([RNA, PROTEIN]))


def side_by_side(**var):
    """RNA and antibodies in one matrix."""
    data = table(BOTH, features=[*GENES, *PROTEINS])
    for column, values in var.items():
        data.var[column] = values
    return data


@pytest.mark.parametrize("column", ["Type", "modality"])
def test_feature_types_are_recognised_in_a_column_of_any_name(column):
    """Antibodies in a matrix with such a column were trained on as genes."""
    types = ["Gene Expression"] * 4 + ["Antibody Capture"] * 3
    data = side_by_side(gene_ids=[f"ENSG{i:011d}" for i in range(7)], **{column: types})
    check_equal(as_citeseq(data))


@pytest.mark.parametrize("kind", ["Custom", "Protein Expression"])
def test_a_warning_names_features_of_unknown_type(kind):
    data = side_by_side(feature_types=["Gene Expression"] * 4 + [kind] * 3)
    with pytest.warns(UserWarning, match=rf"3 of type '{kind}' \(.*\); if they are .* protein_modality='{kind}'"):
        check_equal(as_citeseq(data), protein=None)
    check_equal(as_citeseq(data, protein_modality=kind))


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_features_without_a_type_are_named(dtype):
    """With pandas 3, the warning counted 0 of them and named none, and the error was a TypeError."""
    types = pd.array(["Gene Expression"] * 3 + [None] + ["Antibody Capture"] * 3, dtype=dtype)
    with pytest.warns(UserWarning, match=r"left out: 1 of type 'nan' \(MS4A1\)"):
        check_equal(as_citeseq(side_by_side(feature_types=types)), rna=RNA[:, :3])
    data = table(RNA, features=GENES)
    data.var["feature_types"] = pd.array(["Peaks", None, "Peaks", None], dtype=dtype)
    with raises_one_line(InputDataError, "the feature types are Peaks, nan;"):
        as_citeseq(data)


@pytest.mark.parametrize("container", ["AnnData", "MuData", "protein modality"])
def test_a_warning_names_features_of_unknown_type_beside_antibodies(container):
    """Antibodies of the type Custom were left out without a word if others were of the type Antibody Capture."""
    data = side_by_side(feature_types=["Gene Expression"] * 4 + ["Antibody Capture"] * 2 + ["Custom"])
    whole = {
        "AnnData": lambda: data,
        "MuData": lambda: MuData({"rna": data}),
        "protein modality": lambda: MuData({"rna": data[:, :4].copy(), "prot": data[:, 4:].copy()}),
    }
    with quiet():
        given = whole[container]()
    with pytest.warns(UserWarning, match=rf"left out: 1 of type 'Custom' \({PROTEINS[2]}\); .* 'Antibody Capture' in"):
        check_equal(as_citeseq(given), protein=PROTEIN[:, :2])
    check_equal(as_citeseq(data, protein_modality="Custom"), protein=PROTEIN[:, 2:])  # a choice is not warned of


def test_a_warning_names_modalities_of_unknown_type_beside_proteins():
    """muon makes a modality of each of 10x's feature types."""
    with quiet():
        data = MuData(side_by_side(feature_types=["Gene Expression"] * 4 + ["Antibody Capture"] * 2 + ["Custom"]))
    words = r"modality left out: 'Custom' \(1 features\); if it holds proteins, add them to modality 'prot'"
    with pytest.warns(UserWarning, match=words):
        check_equal(as_citeseq(data), protein=PROTEIN[:, :2])
    data.mod["Custom"].var["feature_types"] = "CRISPR Guide Capture"
    check_equal(as_citeseq(data), protein=PROTEIN[:, :2])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["CD3_TotalSeqB", "CD4.1_TotalSeqB", "B2M"], r"2 gene names \(CD3_TotalSeqB, CD4.1_TotalSeqB\) read as"),
        (["CD45RA", "CD56", "HLA-DR"], r"3 gene names \(CD45RA, CD56, HLA-DR\) read as antibodies"),
        (["adt_CD3", "B2M", "ACTB"], r"1 gene name \(adt_CD3\) reads as antibodies"),
    ],
)
def test_a_warning_names_genes_that_read_as_antibodies(names, words):
    genes = [f"GENE{i}" for i in range(30)]
    data = table(np.ones((6, 33), dtype=np.float32), features=[*genes, *names])
    with pytest.warns(UserWarning, match=words):
        assert as_citeseq(data).protein is None


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["CD3", "CD4", "CD8A", "CD14", "CD16", "CD56", "HLA-DR"], None),
        (
            ["CD4", "CD8A", "CD14", "TIGIT"],
            ["CTCATTGTAACTCCT", "TGTTCCCGCTCAACT", "GCGCAACTTGATGAT", "TCTCAGACCTCCGTA"],
        ),
        (["CD4-CTCATTGTAACTCCT", "CD8A-TGTTCCCGCTCAACT", "unmapped"], None),
    ],
)
def test_antibodies_alone_are_refused(names, ids):
    """The folder of CITE-seq-Count was trained on as RNA."""
    data = table(np.ones((6, len(names)), dtype=np.float32), features=names)
    if ids is not None:
        data.var["gene_ids"] = ids
    fails(data, "no RNA found", "only antibodies", names[0], "add the RNA")


def test_a_transposed_matrix_is_refused():
    """It was said to have genes of neither human nor mouse."""
    genes = simulate(8, 300, 2, 2)["rna"].var_names
    barcodes = [f"AAACCTGA{end}-1" for end in "ACGT"]
    counts = np.ones((300, 4), dtype=np.float32)
    fails(table(counts, cells=genes, features=barcodes), "cells are named like genes", "AAACCTGAA-1", "adata.T")
    as_citeseq(table(counts[:30], cells=genes[:30], features=GENES))  # a name for each cell, whatever it is


def test_feature_types_within_a_modality():
    """The antibodies of such an RNA modality were genes of the model, and its proteins at the same time."""
    types = ["Gene Expression"] * 4 + ["Antibody Capture"] * 3
    check_equal(as_citeseq(mudata(rna=side_by_side(feature_types=types))))
    with quiet():
        check_equal(as_citeseq(MuData({"rna": side_by_side(feature_types=types)})))
    check_equal(as_citeseq(mudata(protein=side_by_side(feature_types=types))))


@pytest.mark.parametrize("key", ["X_adt", "CITE", "antibody_counts"])
def test_a_warning_names_obsm_entries_that_may_be_proteins(key):
    data = table(sparse.csr_matrix(RNA))
    data.obsm[key] = PROTEIN
    data.obsm["X_pca"] = PROTEIN + 0.5
    data.obsm["X_umap_adt"] = PROTEIN[:, :2] + 0.5
    with pytest.warns(UserWarning, match=rf"left out: obsm\['{key}'\] \(3 columns\); .* protein_modality='{key}'"):
        check_equal(as_citeseq(data), protein=None)


@pytest.mark.parametrize("names_key", ["protein_names", "protein_expression_names"])
def test_protein_names_are_found_in_uns(names_key):
    """As scvi-tools stores them; the proteins had been left out."""
    data = table(sparse.csr_matrix(RNA))
    data.obsm["protein_expression"] = PROTEIN
    data.uns[names_key] = np.array(PROTEINS)
    cite = as_citeseq(data)
    check_equal(cite)
    assert list(cite.protein.var_names) == PROTEINS
    data.uns[names_key] = PROTEINS[:2]
    with pytest.warns(UserWarning, match="no protein names"):
        check_equal(as_citeseq(data), protein=None)


def test_protein_names_of_their_table_come_before_those_of_another():
    data = table(sparse.csr_matrix(RNA))
    data.obsm.update({"protein_expression": PROTEIN * 2, "adt": PROTEIN})
    data.uns.update({"protein_names": ["x", "y", "z"], "adt_names": PROTEINS})
    assert list(as_citeseq(data, protein_modality="adt").protein.var_names) == PROTEINS
    data.obsm["adt"], data.uns["adt_names"] = PROTEIN[:, :2], PROTEINS[:2]  # protein_names has a name too many
    assert list(as_citeseq(data, protein_modality="adt").protein.var_names) == PROTEINS[:2]


def test_obsm_tables_with_text_are_no_proteins():
    """A table named like proteins ended every command with a traceback."""
    data = table(sparse.csr_matrix(RNA))
    data.obsm["adt_quality"] = pd.DataFrame({"lane": "A", "score": 1}, index=CELLS)
    check_equal(as_citeseq(data), protein=None)


def test_text_among_the_proteins_is_refused():
    """It raised a traceback, even in `validate`."""
    data = table(sparse.csr_matrix(RNA))
    frame = pd.DataFrame(PROTEIN, index=CELLS, columns=PROTEINS)
    data.obsm["prot"] = frame.assign(batch="b", seen=pd.Timestamp("2024-01-01"), spin=1j)
    fails(data, "obsm['prot']", "not numbers in 3 columns (batch, seen, spin)", "to obs")
    data.obsm["prot"] = frame.astype(object).assign(CD4=pd.Categorical(PROTEIN[:, 1]))
    check_equal(as_citeseq(data))


@pytest.mark.parametrize("first", ["counts", "normalised"])
def test_the_table_with_counts_is_chosen_among_several(first):
    data = table(sparse.csr_matrix(RNA))
    frames = {"counts": pd.DataFrame(PROTEIN, index=CELLS, columns=PROTEINS)}
    frames |= {"normalised": np.log1p(frames["counts"]), "text": frames["counts"].assign(CD3="x")}
    rest = [name for name in frames if name != first]
    keys = dict(zip(("protein_expression", "Protein", "adt"), [first, *rest]))
    for key, name in keys.items():
        data.obsm[key] = frames[name]
    (taken,) = (key for key, name in keys.items() if name == "counts")
    with pytest.warns(UserWarning, match=rf"taken from obsm\['{taken}'\], not from .*protein_modality"):
        check_equal(as_citeseq(data))
    check_equal(as_citeseq(data, protein_modality=taken))
    data.obsm["protein_counts"] = PROTEIN
    with pytest.warns(UserWarning, match=rf"taken from obsm\['{taken}'\], .*obsm\['protein_counts'\]"):
        check_equal(as_citeseq(data))


def test_only_one_modality_may_have_the_layer():
    """Files with RNA counts in X and protein counts in a layer, or vice versa, could not be read."""
    for modality in ("rna", "prot"):
        data = mudata()
        data[modality].layers["raw"] = data[modality].X.copy()
        data[modality].X = np.log1p(data[modality].X)
        other = "protein" if modality == "rna" else "RNA"
        with pytest.warns(UserWarning, match=f"{other} has no layer 'raw', so its counts were taken from X"):
            check_equal(as_citeseq(data, layer="raw"))
        fails(data, "RNA has no layer 'other'", layer="other")
    data["rna"].layers["counts"] = data["rna"].X.copy()
    with pytest.warns(UserWarning, match=r"RNA has no layer 'raw', .* taken from layers\['counts'\]"):
        check_equal(as_citeseq(data, layer="raw"))
    data["rna"].layers["raw"] = data["rna"].X.copy()
    check_equal(as_citeseq(data, layer="raw"))


def test_rna_alone_is_enough():
    check_equal(as_citeseq(table(sparse.csr_matrix(RNA))), protein=None)
    fails(table(sparse.csr_matrix(RNA)), "no modalities", rna_modality="rna")


@pytest.mark.parametrize("layer", [None, "counts", "spliced"])
def test_counts_come_from_the_layer_before_x(layer):
    data = table(np.log1p(RNA))
    data.layers[layer or "counts"] = RNA.copy()
    check_equal(as_citeseq(data, layer=layer), protein=None)
    fails(data, "no layer 'other'", layer or "counts", layer="other")


def test_counts_come_from_raw_only_if_x_is_fractional():
    data = table(RNA)
    data.raw = data.copy()
    check_equal(as_citeseq(data), protein=None)
    data.X = np.log1p(RNA)
    with pytest.warns(UserWarning, match=r"taken from \.raw; store them in layers\['counts'\]"):
        check_equal(as_citeseq(data), protein=None)
    fewer = table(np.log1p(RNA))
    fewer.raw = table(RNA)[:, :2].copy()
    fails(fewer, "look normalised")
    fewer.raw = fewer.copy()
    fails(fewer, "look normalised")


def test_counts_come_from_raw_if_names_are_repeated():
    """Symbols of 10x repeat; the values were called normalised, as if there were no other matrix."""
    data = table(np.log1p(RNA), features=[GENES[0], *GENES[:-1]])
    data.raw = table(RNA, features=data.var_names)
    with pytest.warns(UserWarning, match=r"taken from \.raw"):
        cite = as_citeseq(data)
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA)


def test_normalised_values_are_refused():
    fails(table(sparse.csr_matrix(np.log1p(RNA))), "RNA", "look normalised, not raw counts", "layers['counts']", "c0")
    fails(mudata(protein=table(np.log1p(PROTEIN), features=PROTEINS)), "protein", "look normalised")


def test_all_genes_of_raw_are_used():
    """CELLxGENE keeps the variable genes in X and all in .raw; a model then missed genes that the file had."""
    data = table(RNA)
    data.raw = data.copy()
    data = data[:, ::2].copy()
    data.X = np.log1p(data.X)
    for source, protein in ((data, None), (mudata(rna=data), PROTEIN)):
        with pytest.warns(UserWarning, match=f"raw counts of all {RNA.shape[1]} features were taken from .raw"):
            cite = as_citeseq(source)
        np.testing.assert_array_equal(cite.rna.X.toarray(), RNA)
        assert list(cite.rna.var_names) == list(table(RNA).var_names)
        if protein is not None:
            np.testing.assert_array_equal(cite.protein.X, protein)


@pytest.mark.parametrize("place", ["X", "layers['counts']"])
def test_a_warning_tells_that_raw_has_counts_of_more_genes(place):
    """Only the variable genes were trained on, and nothing said so."""
    data = table(RNA)
    data.raw = data.copy()
    data = data[:, :1].copy()
    if place != "X":
        data.layers["counts"] = data.X.copy()
    with pytest.warns(UserWarning, match=re.escape(f"{place} has counts of 1 features, and .raw of all 4")):
        check_equal(as_citeseq(data), rna=RNA[:, :1], protein=None)
    as_citeseq(data, layer="X")  # a choice is not warned of
    data.raw = AnnData(np.log1p(RNA), var=table(RNA).var)  # as in tutorials of scanpy
    as_citeseq(data)


@pytest.mark.parametrize("n_genes", [2, 4])
def test_counts_of_raw_in_a_view_of_a_file(n_genes, tmp_path):
    """AnnData makes no view of a view of a file: a traceback."""
    data = table(np.log1p(RNA))
    data.raw = table(sparse.csr_matrix(RNA))
    data[:, :n_genes].copy().write_h5ad(tmp_path / "raw.h5ad")
    backed = read_h5ad(tmp_path / "raw.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"taken from \.raw"):
        cite = as_citeseq(backed[1:])
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA[1:])
    backed.file.close()


def test_counts_of_raw_in_a_file_are_those_of_their_genes(tmp_path):
    """AnnData ignores which genes of .raw in a file are asked for: the counts came in the order of .raw."""
    data = table(np.log1p(RNA))
    data.raw = table(sparse.csr_matrix(RNA[:, ::-1]), features=GENES[::-1])
    data.write_h5ad(tmp_path / "raw.h5ad")
    backed = read_h5ad(tmp_path / "raw.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"taken from \.raw"):
        cite = as_citeseq(backed)
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA)
    backed.file.close()


def test_raw_without_feature_types_does_not_turn_antibodies_into_genes():
    data = table(RNA)
    data.raw = data.copy()
    data = data[:, 1:].copy()
    data.X = np.log1p(data.X)
    data.var["feature_types"] = ["Gene Expression"] * (data.n_vars - 1) + ["Antibody Capture"]
    with pytest.warns(UserWarning, match="taken from .raw"):
        cite = as_citeseq(data)
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA[:, 1:-1])
    np.testing.assert_array_equal(cite.protein.X, RNA[:, -1:])


def with_fractions():
    """RNA of which a fifth of the counts is 0.4 too large, as after EM."""
    counts = sparse.csr_matrix(RNA)
    changed = round(0.2 * counts.nnz)
    counts.data[:changed] += 0.4
    return counts, 100 * changed / counts.nnz


def test_a_few_fractions_are_not_called_normalised_and_can_be_rounded():
    """EM and ambient correction give them; "put raw counts in layers" was of no use to those users."""
    counts, share = with_fractions()
    data = table(counts)
    fails(data, f"RNA has fractional values ({share:.2g} % of those above zero)", "ambient correction", "round=True")
    with pytest.warns(UserWarning, match="RNA: counts with fractions were rounded"):
        cite = as_citeseq(data, round=True)
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA)
    np.testing.assert_array_equal(data.X.toarray(), counts.toarray())
    with pytest.warns(UserWarning, match="RNA: values that look normalised, not counts were rounded"):
        as_citeseq(table(np.log1p(RNA)), round=True)


def test_counts_with_rounding_errors_are_not_called_normalised():
    """As after undoing a logarithm: every value is fractional, and none is far from a count."""
    data = table(sparse.csr_matrix(RNA * np.float32(1.00001)))
    fails(data, "RNA has fractional values (100 % of those above zero)", "round=True")
    with pytest.warns(UserWarning, match="RNA: counts with fractions were rounded"):
        np.testing.assert_array_equal(as_citeseq(data, round=True).rna.X.toarray(), RNA)
    fails(table(np.log1p(RNA)), "(100 % of those above zero)", "look normalised")


def test_proteins_are_rounded_and_stay_missing():
    protein = np.where(PROTEIN > 0, PROTEIN + 0.3, PROTEIN)
    protein[0, 0] = np.nan
    with pytest.warns(UserWarning, match="protein: .* rounded"):
        rounded = as_citeseq(mudata(protein=table(protein, features=PROTEINS)), round=True).protein.X
    assert np.isnan(rounded[0, 0])
    np.testing.assert_array_equal(rounded.ravel()[1:], PROTEIN.ravel()[1:])


def test_whole_counts_are_rounded_without_a_warning():
    np.testing.assert_array_equal(as_citeseq(table(RNA), round=True).rna.X.toarray(), RNA)


def test_x_can_be_chosen_over_layers():
    """layers["counts"] of SoupX had precedence, and there was no name for X."""
    data = table(RNA)
    data.layers["counts"] = with_fractions()[0].toarray()
    data.layers["log"] = np.log1p(RNA)
    np.testing.assert_array_equal(as_citeseq(data, layer="X").rna.X.toarray(), RNA)
    with pytest.warns(UserWarning) as caught:
        fails(data, "fractional values")
    text = " ".join(str(one.message) for one in caught)  # newer pandas warns of options that anndata sets
    assert "RNA: layers['counts'] has fractional values" in text
    assert "other matrices: log (fractional values), X (whole values)" in text
    assert "layer='X'" in text
    both = mudata()
    both["prot"].layers["counts"] = both["prot"].X + 1
    np.testing.assert_array_equal(as_citeseq(both, layer="X").protein.X, PROTEIN)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "has NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-1, "negative values")]
)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_bad_rna_values_name_their_cells(value, words, kind):
    bad = RNA.copy()
    bad[[1, 4], 2] = value
    fails(table(kind(bad)), "RNA", words, "2 cells (c1, c4)")


def test_nan_proteins_are_not_measured_and_other_bad_values_are_refused():
    bad = PROTEIN.copy()
    bad[2] = np.nan
    for kind in (np.asarray, sparse.csr_matrix):
        check_equal(as_citeseq(mudata(protein=table(kind(bad), features=PROTEINS))), protein=bad)
    bad[3, 0] = -2
    fails(mudata(protein=table(bad, features=PROTEINS)), "protein", "negative", "1 cell (c3)")
    bad[3, 0] = np.inf
    fails(mudata(protein=table(bad, features=PROTEINS)), "protein", "infinite", "1 cell (c3)")


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", ">i4", "int8", "uint16", "int64", "bool"])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csc_array])
def test_any_container_and_dtype(dtype, kind):
    matrix = RNA.astype(bool) if dtype == "bool" else RNA
    if dtype in ("float16", ">f4", ">i4") and kind is not np.asarray:
        data = table(kind(matrix))
        data.X.data = data.X.data.astype(dtype)  # scipy builds none, but files hold them
    else:
        data = table(kind(matrix.astype(dtype)))
    check_equal(as_citeseq(data), rna=matrix.astype(np.float32), protein=None)


def test_text_instead_of_numbers():
    data = table(RNA)
    data.layers["counts"] = np.full(RNA.shape, "x", dtype=object)
    fails(data, "must be numbers")


def test_backed_files_are_read(tmp_path):
    table(sparse.csr_matrix(RNA)).write_h5ad(tmp_path / "sparse.h5ad")
    table(RNA).write_h5ad(tmp_path / "dense.h5ad")
    for name in ("sparse.h5ad", "dense.h5ad"):
        data = read_h5ad(tmp_path / name, backed="r")
        check_equal(as_citeseq(data), protein=None)
        data.file.close()


def test_duplicate_and_explicit_zero_entries_are_canonical():
    parts = (np.array([1, 2, 0, 3], dtype=np.float32), np.array([3, 3, 1, 0]), np.array([0, 2, 4]))
    data = table(RNA[:2], cells=CELLS[:2])
    data.X = sparse.csr_matrix(parts, shape=(2, 4))
    check_equal(as_citeseq(data), rna=[[0, 0, 0, 3], [3, 0, 0, 0]], protein=None)


def test_proteins_in_another_order_are_aligned_by_name():
    order = [3, 1, 5, 0, 2, 4]
    protein = table(PROTEIN[order], cells=[CELLS[i] for i in order], features=PROTEINS)
    check_equal(as_citeseq(mudata(protein=protein)))


def test_modalities_with_different_cells():
    """Two cells have RNA only, one has proteins only."""
    protein = table(PROTEIN[[4, 2, 0, 1, 5]], cells=["c4", "c2", "c0", "c1", "new"], features=PROTEINS)
    data = mudata(protein=protein)
    fails(data, "RNA has 6 cells and proteins 5, 4 in both", "cells='overlap'", "keep the 4 cells", "cells='rna'")
    kept = [0, 1, 2, 4]
    cite = as_citeseq(data, cells="overlap")
    check_equal(cite, rna=RNA[kept], protein=PROTEIN[kept])
    assert list(cite.obs.index) == [CELLS[i] for i in kept]
    expected = PROTEIN.copy()
    expected[[3, 5]] = np.nan
    check_equal(as_citeseq(data, cells="rna"), protein=expected)
    fails(data, "cells must be", "same, overlap, rna or all", error=SettingError, cells="some")


def test_cells_with_proteins_alone():
    data = mudata(protein=table(PROTEIN[:3], cells=["c4", "new", "c0"], features=PROTEINS, lane=["x", "y", "x"]))
    data["rna"].obs["lane"] = "x"
    cite = as_citeseq(data, cells="all")
    assert list(cite.obs.index) == list(data.obs_names)
    place = cite.obs.index.get_loc("new")
    assert list(np.flatnonzero(~has_rna(cite.rna))) == [place]
    assert cite.rna.X[[place]].nnz == 0
    assert cite.obs["lane"].to_dict() == dict.fromkeys(CELLS, "x") | {"new": "y"}
    np.testing.assert_array_equal(cite.protein.X[place], PROTEIN[1])
    check_equal(cite.with_rna(), protein=as_citeseq(data, cells="rna").protein.X)
    assert by_modality(cite) == {"both": 2, "RNA alone": 4, "proteins alone": 1}


def test_cells_of_a_mudata_that_was_not_updated():
    """Cells that its obs does not have yet were left out in silence."""
    data = mudata()
    data.mod["prot"] = table(PROTEIN, cells=["c4", "new", "newer", "c0", "c1", "c2"], features=PROTEINS)
    cite = as_citeseq(data, cells="all")
    assert list(cite.obs.index) == [*CELLS, "new", "newer"]
    np.testing.assert_array_equal(cite.protein.X[[4, 6]], PROTEIN[[0, 1]])


def test_a_layer_is_offered_where_there_is_no_x():
    """The error said that there is no matrix."""
    data = table(RNA)
    data.layers["raw"], data.X = data.X, None
    fails(data, "RNA has no X; put raw counts in X or layers['counts'], or choose a layer: raw")


def test_normalised_proteins_in_obsm():
    """Layers and X hold no proteins of obsm: the advice could not be followed."""
    data = table(RNA)
    data.obsm["adt"] = pd.DataFrame(np.log1p(PROTEIN), index=CELLS, columns=PROTEINS)
    fails(data, "for a table in obsm, put them there, or choose another with protein_modality")


def test_cells_without_any_name_in_common():
    data = mudata(protein=table(PROTEIN, cells=[f"{cell}-1" for cell in CELLS], features=PROTEINS))
    for cells in ("same", "overlap"):
        fails(data, "0 in both", "RNA 'c0', proteins 'c0-1'", "same cell names", cells=cells)


@pytest.mark.parametrize("empty", ["rna", "prot"])
def test_a_modality_without_cells(empty):
    """There was no cell to name in the error: it was an IndexError."""
    data = mudata()
    data.mod[empty] = data[empty][:0].copy()
    for cells in ("same", "overlap"):
        fails(data, "0 in both; leave out the modality without cells", cells=cells)


def test_duplicated_cells_are_named():
    cells = ["c0", "c0", "c1", "c2", "c2", "c3"]
    data = table(RNA, cells=cells)
    fails(data, "2 cell names (c0, c2)", "make them unique")


def test_var_may_have_lists_and_repeated_columns():
    """Both ended in a traceback; ids of genes that are there twice are refused."""
    data = table(RNA)
    data.var["all_ids"] = [[name, "other"] for name in data.var_names]
    data.var[["length", "second"]] = 1
    data.var = data.var.rename(columns={"second": "length"})
    cite = as_citeseq(data)
    assert list(cite.rna.var) == ["all_ids", "length"]
    assert cite[np.arange(3)].rna.n_obs == 3
    data.var.columns = ["all_ids", "gene_ids", "gene_ids"]
    fails(data, "several columns of var are called gene_ids; rename or drop all but one")


def test_duplicated_genes_are_kept():
    data = table(RNA, features=["CD4", "CD4", "CD8A", "CD4"])
    cite = as_citeseq(data)
    check_equal(cite, protein=None)
    assert list(cite.rna.var_names) == ["CD4", "CD4", "CD8A", "CD4"]


def test_obs_joins_the_modality_with_the_global_obs():
    rna = table(RNA, label=list("aabbcc"), own=range(6))
    data = mudata(rna=rna)
    data.obs = pd.DataFrame(
        {"rna:label": list("aabbcc"), "rna:old": range(6), "label": list("xxyyzz"), "prot:own": 0, "whole": 1},
        index=data.obs_names,
    )[::-1]
    data.obs = data.obs.loc[data.obs_names]
    cite = as_citeseq(data)
    assert sorted(cite.obs) == ["label", "old", "own", "prot:own", "whole"]
    assert list(cite.obs["label"].loc[data["rna"].obs_names]) == list("xxyyzz")
    assert list(cite.obs["own"].loc[data["rna"].obs_names]) == list(range(6))


@pytest.mark.parametrize("missing", [pd.array([None] * 6, dtype="Int64"), np.full(6, np.nan), [None] * 6])
def test_a_global_column_without_values_does_not_hide_that_of_the_modality(missing):
    """Labels of the RNA modality were lost: the global column took precedence though it was empty."""
    data = mudata(rna=table(RNA, label=list("aabbcc")))
    data.obs = pd.DataFrame({"label": missing, "empty": missing}, index=data.obs_names)
    obs = as_citeseq(data).obs
    assert list(obs["label"].loc[data["rna"].obs_names]) == list("aabbcc")
    assert obs["empty"].isna().all()


@pytest.mark.parametrize("first", ["rna", "prot"])
def test_cells_follow_the_order_of_the_global_obs(first):
    """`mdata.obsm[key] = result` follows the global obs, whose order is that of the first modality."""
    data = mudata(protein=table(PROTEIN)[::-1].copy())
    with quiet():
        data = MuData({name: data.mod[name] for name in (first, "rna", "prot")})
    cite = as_citeseq(data)
    assert list(cite.rna.obs_names) == list(cite.protein.obs_names) == list(cite.obs.index) == list(data.obs_names)
    order = data["rna"].obs_names.get_indexer(data.obs_names)
    np.testing.assert_array_equal(cite.rna.X.toarray(), RNA[order])
    np.testing.assert_array_equal(cite.protein.X, PROTEIN[order])


def test_the_callers_object_is_not_changed():
    rna = table(np.log1p(RNA), label=list("aabbcc"))
    rna.layers["counts"] = sparse.csr_matrix(RNA)
    data = mudata(rna=rna, whole=list("uvuvuv"))
    before = data.obs.copy(), rna.obs.copy(), rna.var.copy()
    cite = as_citeseq(data)
    cite.rna.X.data[:] = -1
    cite.protein.X[:] = -1
    cite.obs["label"] = "changed"
    cite.rna.var["new"] = 0
    assert data["rna"].layers["counts"].toarray().tolist() == RNA.tolist()
    assert data["prot"].X.tolist() == PROTEIN.tolist()
    for found, expected in zip((data.obs, data["rna"].obs, data["rna"].var), before):
        pd.testing.assert_frame_equal(found, expected)


def test_citeseq_is_returned_as_is_and_can_be_indexed():
    cite = as_citeseq(mudata(whole=list("uvuvuv")))
    assert as_citeseq(cite) is cite
    part = cite[np.array([True, False, False, True, False, False])]
    check_equal(part, rna=RNA[[0, 3]], protein=PROTEIN[[0, 3]])
    assert list(part.obs["whole"]) == ["u", "v"]
    invalid = CiteSeq(cite.rna.copy(), None, cite.obs)
    invalid.rna.X.data[0] = np.nan
    fails(invalid, "has NaN")


def test_objects_of_other_types_are_refused():
    fails(pd.DataFrame(RNA), "expected AnnData or MuData, got DataFrame")


@pytest.mark.parametrize(
    ("name", "cells", "shape", "n_proteins"),
    [
        ("pbmc10k.h5mu", "same", (6855, 4000), 14),
        ("malt_subset.h5mu", "same", (2100, 13733), 17),
        ("citefuse_ctcl.h5mu", "same", (500, 19521), 49),
        ("mosaic_224adt.h5mu", "overlap", (800, 500), 224),
        ("mosaic_224adt.h5mu", "rna", (1200, 500), 224),
        ("pbmc3k.h5ad", "same", (2700, 12572), 0),
        ("sln111_d2_mouse.h5ad", "same", (7564, 4005), 0),
    ],
)
def test_real_data_have_their_cells_genes_and_proteins(real_data, name, cells, shape, n_proteins):
    cite = as_citeseq(read(real_data / name), cells=cells)
    assert cite.rna.shape == shape
    assert (0 if cite.protein is None else cite.protein.n_vars) == n_proteins
    assert len(cite.obs) == shape[0]


def test_real_mosaic_cells_differ(real_data):
    data = read(real_data / "mosaic_224adt.h5mu")
    fails(data, "RNA has 1200 cells and proteins 1200, 800 in both", "cells='overlap'")
    cite = as_citeseq(data, cells="rna")
    assert np.isnan(cite.protein.X).all(axis=1).sum() == 400
    assert list(cite.obs) == ["batch", "celltype"]
    assert cite.obs["celltype"].notna().all()
