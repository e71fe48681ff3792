import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.findings import require_usable
from scfusionttt.data.validate import check, drop_empty, validate
from scfusionttt.errors import InputDataError
from scfusionttt.genome.tables import load_genes
from scfusionttt.io.quiet_warnings import quiet

SYMBOLS = (
    load_genes("GRCh38").query("chromosome == '1' and not symbol.str.startswith('ENSG')")["symbol"].unique().tolist()
)


def toy(n=80, g=250, *, cells=None, genes=None):
    """Usable CITE-seq: every cell and feature has counts."""
    rng = np.random.default_rng(0)
    cells = [f"c{i}" for i in range(n)] if cells is None else cells
    obs = pd.DataFrame({"cell_type": np.where(np.arange(n) % 4, "T", "B")}, index=cells)
    genes = SYMBOLS[:g] if genes is None else genes
    counts = rng.poisson(1.0, (n, g)) + np.eye(n, g)
    counts[:1] = 1
    with quiet():
        rna = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs[[]])
        rna.var_names = genes
        protein = AnnData(rng.poisson(20, (n, 5)).astype(np.float32) + 1, obs=obs[[]])
        protein.var_names = [f"P{i}" for i in range(5)]
        return CiteSeq(rna, protein, obs)


def only(findings, code):
    found = [finding for finding in findings if finding.code == code]
    assert len(found) == 1, [finding.code for finding in findings]
    assert "\n" not in str(found[0])
    return found[0]


def test_good_data_have_no_findings():
    assert check(toy()) == []
    report = validate(toy())
    assert not report.errors
    require_usable(report.findings)
    assert report.lines()[0] == "CiteSeq: usable"
    assert report.summary.labels == {"cell_type": {"T": 60, "B": 20}}
    assert (report.summary.cells, report.summary.genes, report.summary.proteins) == (80, 250, 5)
    assert report.summary.median_rna_counts == np.median(np.asarray(toy().rna.X.sum(axis=1)))


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (np.nan, "nan", "NaN"),
        (np.inf, "infinite", "infinite"),
        (-3, "negative", "negative"),
        (0.5, "not_counts", "round=True"),
    ],
)
def test_bad_rna_values_are_errors_with_their_cells(value, code, words):
    cite = toy()
    cite.rna.X.data[[0, -1]] = value
    finding = only(check(cite), code)
    assert finding.severity == "error"
    assert finding.names == ("c0", "c79")
    assert words in str(finding)
    with pytest.raises(InputDataError, match=words):
        require_usable(validate(cite).findings)


def test_every_bad_value_is_reported_not_only_the_first():
    cite = toy()
    cite.rna.X.data[:4] = [np.nan, np.inf, -1, 0.5]
    cite.protein.X[3, 1] = -0.5
    assert {finding.code for finding in validate(cite).errors} == {"nan", "infinite", "negative", "not_counts"}
    assert len(validate(cite).errors) == 6


def test_empty_cells_and_features():
    cite = toy()
    dense = cite.rna.X.toarray()
    dense[[2, 5]] = 0
    dense[:, [7]] = 0
    cite.rna.X = sparse.csr_matrix(dense)
    cite.protein.X[:, 4] = 0
    cite.protein.X[5] = np.nan
    cells = only(check(cite), "empty_cells")
    assert (cells.severity, cells.names) == ("error", ("c2", "c5"))
    assert "2 cells (c2, c5)" in str(cells)
    assert "drop_empty" in str(cells)
    genes = only(check(cite), "empty_genes")
    assert (genes.severity, genes.names) == ("warning", (SYMBOLS[7],))
    proteins = only(check(cite), "empty_proteins")
    assert (proteins.severity, proteins.names) == ("warning", ("P4",))
    assert "treated as measured" in str(proteins)

    kept, dropped = drop_empty(cite)
    assert dropped == ["c2", "c5"]
    assert kept.rna.n_obs == kept.protein.n_obs == len(kept.obs) == 78
    assert list(kept.protein.obs_names) == list(kept.rna.obs_names) == list(kept.obs.index)
    require_usable(check(kept))
    assert cite.rna.n_obs == 80


def unfiltered():
    """80 cells of about 250 counts among droplets of ambient RNA, 3 counts on average, and empty ones."""
    rna = toy().rna
    ambient = sparse.csr_matrix(np.random.default_rng(0).poisson(3 / rna.n_vars, (3000, rna.n_vars)))
    counts = sparse.vstack([ambient, rna.X, sparse.csr_matrix((5000, rna.n_vars))], format="csr").astype(np.float32)
    obs = pd.DataFrame(index=[f"c{i}" for i in range(counts.shape[0])])
    return CiteSeq(AnnData(counts, obs=obs, var=rna.var), None, obs)


def test_an_unfiltered_matrix_is_refused_in_one_line():
    """The advice was drop_empty, which keeps the ambient droplets; the cells were noted as doublets or debris."""
    cite = unfiltered()
    finding = only(check(cite), "unfiltered")
    assert finding.severity == "error"
    assert finding.message == "looks unfiltered: 99% of 8080 barcodes have fewer than 25 counts"
    assert "filtered_feature_bc_matrix" in finding.remedy
    assert {other.code for other in check(cite)} == {"unfiltered"}
    assert max(map(len, validate(cite).lines())) < 200

    kept, _ = drop_empty(cite)
    assert kept.rna.n_obs < 3080
    assert only(check(kept), "unfiltered").severity == "warning"


def test_cells_of_few_counts_are_not_called_unfiltered():
    cite = toy(n=400)
    cite.rna.X = sparse.csr_matrix(np.random.default_rng(0).poisson(0.02, (400, 250)) + np.eye(400, 250), dtype="f4")
    cite.rna.X.data[-1] = 500
    assert np.median(np.asarray(cite.rna.X.sum(axis=1))) < 10
    assert "unfiltered" not in {finding.code for finding in check(cite)}


def test_drop_empty_of_nothing_and_of_all():
    cite = toy()
    assert drop_empty(cite) == (cite, [])
    cite.rna.X = sparse.csr_matrix(cite.rna.shape, dtype=np.float32)
    with pytest.raises(InputDataError, match="every cell is empty"):
        drop_empty(cite)


def test_missing_proteins_are_reported_but_no_error():
    cite = toy()
    cite.protein.X[[1, 8], 0] = np.nan
    cite.protein.X[:, 3] = np.nan
    report = validate(cite)
    assert not report.errors
    assert only(report.findings, "unmeasured_proteins").names == ("P3",)
    assert len(only(report.findings, "missing_proteins").names) == 80


def test_repeated_and_blank_names_are_found():
    cite = toy(genes=["CD4", "CD4", "", *SYMBOLS[:247]], cells=["c", "c", *map(str, range(78))])
    cells = only(check(cite), "duplicated_cells")
    assert (cells.severity, cells.names) == ("error", ("c",))
    genes = only(check(cite), "duplicated_genes")
    assert (genes.severity, genes.names) == ("warning", ("CD4",))
    assert only(check(cite), "odd_gene_names").names == ("",)


def test_genes_of_two_species_are_found():
    genes = [f"GRCh38_G{i}" for i in range(200)] + [f"mm10_G{i}" for i in range(50)]
    finding = only(check(toy(genes=genes)), "mixed_species")
    assert "200 human and 50 mouse" in str(finding)


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        ([f"gene-{i}" for i in range(250)], "neither human nor mouse"),
        ([f"ENSSSCG{i:011d}" for i in range(250)], "gene ids are from Sus scrofa (ENSSSCG)"),
        ([f"GRCh38_{name}" for name in SYMBOLS[:200]] + [f"mm10_G{i}" for i in range(50)], "a mixture of 200 human"),
    ],
)
def test_genes_that_no_model_can_use_are_an_error(genes, words):
    """The report called such an input usable, and every other verb refused it."""
    finding = only(validate(toy(genes=genes)).errors, "unknown_genes")
    assert words in str(finding)


def test_genes_of_another_species_are_used_if_asked_for():
    cite = toy()
    cite.rna.var["gene_ids"] = [f"ENSMMUG{i:011d}" for i in range(250)]
    assert "Macaca mulatta (ENSMMUG)" in str(only(validate(cite).errors, "unknown_genes"))
    assert not validate(cite, species="human").errors
    nowhere = validate(toy(genes=[f"nowhere{i}" for i in range(250)]), species="human")
    assert "only 0 of 250 genes have a place" in str(only(nowhere.errors, "unknown_genes"))


def test_few_cells_and_few_genes_are_found():
    assert "only 1 cell;" in str(only(check(toy(n=1)), "few_cells"))
    assert "only 49 cells" in str(only(check(toy(n=49)), "few_cells"))
    assert "only 199 genes" in str(only(check(toy(g=199)), "few_genes"))
    assert only(check(toy(n=0)), "no_counts").severity == "error"


def test_library_size_outliers_and_huge_counts():
    cite = toy()
    cite.rna.X[4, 0] = 2.0**25
    assert only(check(cite), "library_size_outliers").names == ("c4",)
    huge = only(check(cite), "huge_counts")
    assert (huge.severity, huge.names) == ("note", ("c4",))


def as_mudata(cite):
    with quiet():
        return MuData({"rna": cite.rna, "prot": cite.protein})


def test_user_errors_are_findings(tmp_path):
    report = validate(tmp_path / "no.h5ad")
    assert report.summary is None
    assert only(report.errors, "InputFileError").message.endswith("no such file; check the path")
    with pytest.raises(InputDataError, match="no such file"):
        require_usable(report.findings)
    report = validate(as_mudata(toy()), layer="spliced")
    assert "no layer 'spliced'" in only(report.errors, "InputDataError").message
    differ = as_mudata(toy())
    with quiet():
        differ = MuData({"rna": differ["rna"], "prot": differ["prot"][:70].copy()})
    assert "cells='overlap'" in only(validate(differ).errors, "InputDataError").message
    assert not validate(differ, cells="overlap").errors


def test_a_normalised_file_is_not_usable(tmp_path):
    cite = toy()
    cite.rna.X = cite.rna.X.log1p()
    cite.rna.write_h5ad(tmp_path / "n.h5ad")
    report = validate(tmp_path / "n.h5ad")
    assert "look normalised" in str(only(report.errors, "not_counts"))
    assert report.summary.cells == 80
    assert report.lines()[0] == f"{tmp_path / 'n.h5ad'}: not usable as it is"
    assert any(line.startswith("error   not_counts: RNA") for line in report.lines())


def test_counts_from_raw_are_reported():
    adata = toy().rna
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()
    assert only(validate(adata).findings, "counts_from_raw").severity == "warning"


def test_report_is_json_and_errors_come_first():
    cite = toy(n=40)
    cite.rna.X.data[0] = np.nan
    report = validate(cite)
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["usable"] is False
    assert [finding["severity"] for finding in found["findings"]] == ["error", "warning"]
    assert found["findings"][0]["names"] == ["c0"]
    assert set(found["findings"][0]) == {"severity", "code", "message", "remedy", "names"}
    assert found["summary"]["labels"] == {"cell_type": {"T": 30, "B": 10}}


@pytest.mark.parametrize(
    ("name", "cells", "labels"),
    [
        ("pbmc10k.h5mu", "same", {"wnn_cluster", "cell_type"}),
        ("malt_subset.h5mu", "same", {"wnn_cluster"}),
        ("citefuse_ctcl.h5mu", "same", set()),
        ("mosaic_224adt.h5mu", "rna", {"batch", "celltype"}),
        ("pbmc3k.h5ad", "same", {"cell_type", "paper_label"}),
        ("sln111_d2_mouse.h5ad", "same", {"cell_type"}),
    ],
)
def test_real_data_have_no_errors(real_data, name, cells, labels):
    report = validate(real_data / name, cells=cells)
    assert not report.errors
    assert set(report.summary.labels) == labels


def test_cells_of_the_real_mosaic_lack_proteins(real_data):
    assert "800 in both" in only(validate(real_data / "mosaic_224adt.h5mu").errors, "InputDataError").message
    report = validate(real_data / "mosaic_224adt.h5mu", cells="rna")
    assert len(only(report.findings, "missing_proteins").names) == 400


def test_check_of_what_as_citeseq_returns():
    cite = as_citeseq(as_mudata(toy()))
    assert check(cite) == []
