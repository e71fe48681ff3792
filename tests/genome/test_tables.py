import gzip

import pytest

from scfusionttt.errors import InputFileError
from scfusionttt.genome import ASSEMBLIES, load_genes
from scfusionttt.genome.chromosomes import is_main
from scfusionttt.genome.readers import COLUMNS


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_shipped_table_is_sound(assembly):
    genes = load_genes(assembly)
    assert list(genes.columns) == list(COLUMNS)
    assert len(genes) > 55_000
    assert genes["gene_id"].is_unique
    assert (genes["symbol"] != "").all()
    assert (genes["start"] >= 1).all() and (genes["end"] >= genes["start"]).all()
    assert set(genes["strand"]) == {"+", "-"}
    assert is_main(genes["chromosome"]).mean() > 0.97


# Starts count from 1 in every release, as on ensembl.org.
@pytest.mark.parametrize(
    ("assembly", "symbol", "place"),
    [
        ("GRCh38", "TSPAN6", ("X", 100627108, 100639991, "-")),
        ("GRCh38.93", "TSPAN6", ("X", 100627109, 100639991, "-")),
        ("GRCh37", "TSPAN6", ("X", 99883667, 99894988, "-")),
        ("GRCm38", "Gnai3", ("3", 108107280, 108146146, "-")),
        ("GRCm39", "Gnai3", ("3", 108014596, 108053462, "-")),
    ],
)
def test_genes_have_the_places_of_their_release(assembly, symbol, place):
    gene = load_genes(assembly).set_index("symbol").loc[symbol]
    assert tuple(gene[["chromosome", "start", "end", "strand"]]) == place


def test_symbols_prefer_the_main_chromosome():
    genes = load_genes("GRCh38")
    assert is_main(genes.loc[genes["symbol"].isin(["HLA-DRA", "KIR2DL1", "TRBC1"]), "chromosome"]).all()
    assert not is_main(genes.loc[genes["symbol"] == "KIR2DL5A", "chromosome"]).any()


def test_older_releases_share_previous_and_alias_names():
    for assembly in ("GRCh38", "GRCh38.93", "GRCh37"):
        gene = load_genes(assembly).set_index("gene_id").loc["ENSG00000081237"]
        assert "CD45" in gene["previous"].split("|")


def test_what_a_caller_changes_stays_with_the_caller():
    genes = load_genes("GRCh38")
    genes["symbol"] = "X"
    assert load_genes("GRCh38")["symbol"].nunique() > 50_000


GTF = """#!genome-build test
chr1\tensembl\tgene\t11\t20\t.\t+\t.\tgene_id "ENSG00000000001.4"; gene_name "AAA"; gene_biotype "protein_coding";
chr1\tensembl\texon\t11\t20\t.\t+\t.\tgene_id "ENSG00000000001.4"; gene_name "AAA";
chrM\tensembl\tgene\t5\t9\t.\t-\t.\tgene_id "ENSG00000000002";
GL000220.1\tensembl\tgene\t7\t9\t.\t-\t.\tgene_id "ENSG00000000003"; gene_name "CCC; 1";
"""


@pytest.mark.parametrize("ending", [".gtf", ".gtf.gz"])
def test_genes_of_a_users_gtf_are_read(tmp_path, ending):
    path = tmp_path / f"own{ending}"
    path.write_bytes(gzip.compress(GTF.encode()) if ending.endswith("gz") else GTF.encode())
    genes = load_genes(path)
    assert genes["symbol"].tolist() == ["AAA", "ENSG00000000002", "CCC; 1"]
    assert genes["gene_id"].tolist() == ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    assert genes["chromosome"].tolist() == ["1", "MT", "GL000220.1"]
    assert genes["start"].tolist() == [11, 5, 7]


def test_a_users_table_may_have_other_column_names(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("gene_name,gene,chr,start\nAAA,A,chrX,5\n")
    genes = load_genes(str(path))
    assert genes.loc[0, ["symbol", "chromosome", "start", "end"]].tolist() == ["AAA", "X", 5, 5]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.tsv", "a\tb\n1\t2\n", "no column symbol, chromosome, start"),
        ("own.tsv", "symbol\tchromosome\tstart\nAAA\t1\tfirst\n", "start is not a whole number for AAA"),
        ("own.tsv", "symbol\tchromosome\tstart\n", "has no genes"),
        ("own.tsv", "", "cannot be read"),
        ("own.tsv", "symbol\tchromosome\n1\t2\t3\n1\t2\t3\t4\n", "cannot be read"),
        ("own.gtf", 'chr1\tx\texon\t1\t2\t.\t+\t.\tgene_id "G";\n', "no line has the feature type 'gene'"),
        ("own.tsv", "symbol\tchromosome\tstart\n\t1\t5\n", "1 genes have neither symbol nor gene_id"),
        ("own.tsv.gz", "not a gzip file", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputFileError, match=message) as error:
        load_genes(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_unknown_assembly_are_refused(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        load_genes(tmp_path / "none.gtf")
    with pytest.raises(InputFileError, match="neither a file nor one of GRCh38"):
        load_genes("hg20")
