import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scfusionttt.errors import FeatureError, InputFileError
from scfusionttt.genome import load_genes, resolve_genes
from scfusionttt.genome.lookup import GeneLookup


def one(name, **options):
    options.setdefault("species", "human")
    return resolve_genes([name], **options).table.iloc[0]


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("CD4", "CD4", "symbol"),
        ("cd4", "CD4", "symbol"),
        ("c1ORF112", "C1orf112", "symbol"),
        ("ENSG00000010610", "CD4", "id"),
        ("ENSG00000010610.10", "CD4", "id"),
        ("GRCh38_ENSG00000010610.10", "CD4", "id"),
        ("SEPT9", "SEPTIN9", "previous"),
        ("MARCH2", "MARCHF2", "previous"),
        ("CD20", "MS4A1", "previous"),
        ("PD-1", "PDCD1", "alias"),
        ("hg19_CD4", "CD4", "symbol"),
        ("GRCh38___CD4", "CD4", "symbol"),
        ("hg38_hla-a", "HLA-A", "symbol"),
        ("HUMAN_CD4", "CD4", "symbol"),
        ("GRCh38-HLA-DRA", "HLA-DRA", "symbol"),
        ("hg19-ENSG00000010610", "CD4", "id"),
        ("HLA.DRA", "HLA-DRA", "symbol"),
        ("TBCE-1", "TBCE", "made unique"),
        ("MATR3.1", "MATR3", "made unique"),
        ("NKX2-1", "NKX2-1", "symbol"),
    ],
)
def test_a_human_gene_is_found_by_its_names(name, symbol, how):
    found = one(name)
    assert (found["symbol"], found["how"], found["status"]) == (symbol, how, "matched")
    assert found["name"] == name


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("mm10_Cd4", "Cd4"), ("GRCm38_Ptprc", "Ptprc"), ("Itgam-1", "Itgam"), ("MOUSE_Cd4", "Cd4"), ("mm10-Cd4", "Cd4")],
)
def test_a_mouse_gene_is_found_by_its_names(name, symbol):
    assert one(name, species="mouse")["symbol"] == symbol


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "<NA>", "NA"])
def test_a_missing_name_is_no_gene(name):
    """SCN11A has the alias NAN and XK was NA: they were the genes of missing names that were turned into text."""
    assert one(name)["status"] == "lost"
    assert [one(symbol)["symbol"] for symbol in ("SCN11A", "XK")] == ["SCN11A", "XK"]


def test_gene_ids_go_before_names():
    found = resolve_genes(["CD8A", "CD8A", "CD8A"], gene_ids=["ENSG00000010610.1", None, "nonsense"]).table
    assert found["symbol"].tolist() == ["CD4", "CD8A", "CD8A"]
    assert found["how"].tolist() == ["id", "symbol", "symbol"]


def test_clone_name_keeps_its_name_and_gets_the_newest_place():
    found = one("AL645608.8")
    assert (found["symbol"], found["gene_id"], found["assembly"]) == ("AL645608.8", "ENSG00000272512", "GRCh38")


def test_retired_gene_keeps_its_old_place_and_says_so():
    found = one("RP4-669L17.4")
    assert (found["status"], found["assembly"], found["start"]) == ("matched", "GRCh37", 334126)


def test_ambiguous_names_list_their_candidates():
    found = one("CD16")
    assert (found["status"], found["candidates"]) == ("ambiguous", "FCGR3A|FCGR3B")
    assert found[["symbol", "chromosome", "start"]].isna().all()


def test_a_symbol_on_many_chromosomes_is_ambiguous_and_on_one_place_is_not():
    assert one("Y_RNA")["status"] == "ambiguous"
    assert one("MATR3")["status"] == "matched"


def test_contig_only_gene_is_placed_on_its_contig():
    assert one("KIR2DL5A")["chromosome"].startswith("CHR_HSCHR19")


def test_lost_names_stay_in_their_place():
    found = resolve_genes(["nonsense", "CD4", "", None, "CD4"], species="human")
    assert found.table["status"].tolist() == ["lost", "matched", "lost", "lost", "matched"]
    assert found.counts == {"matched": 2, "ambiguous": 0, "lost": 3}
    assert found.names("lost") == ["nonsense", "", ""]
    assert found.summary().startswith("2 of 5 human names matched (40.00 %); 3 lost: nonsense")


def test_nothing_found_and_nothing_asked():
    assert resolve_genes(["nonsense", "nothing"], species="mouse").counts["lost"] == 2
    assert len(resolve_genes([], species="human").table) == 0


def test_the_species_in_any_case():
    found = resolve_genes(["Cd4"], species="Mouse")
    assert (found.species, found.counts["matched"]) == ("mouse", 1)


def test_names_are_resolved_by_a_users_table():
    table = pd.DataFrame({"symbol": ["Aaa"], "gene_id": ["ENSRNOG00000000001"], "chromosome": ["7"], "start": [3]})
    table = table.assign(end=9, strand="+", previous="Old1|Old2", alias="")
    found = resolve_genes(["old2", "ENSRNOG00000000001.2", "CD4"], table=table)
    assert found.species == "other"
    assert found.table["symbol"].tolist()[:2] == ["Aaa", "Aaa"]
    assert found.table["status"].tolist() == ["matched", "matched", "lost"]


def test_names_are_resolved_by_a_single_assembly():
    found = resolve_genes(["SEPT9", "RP11-206L10.2", "CD45"], table="GRCh37")
    assert found.species == "human"
    assert found.table["symbol"].tolist() == ["SEPT9", "RP11-206L10.2", "PTPRC"]
    assert set(found.table["assembly"]) == {"GRCh37"}


def test_tables_and_ids_that_do_not_fit_are_refused():
    with pytest.raises(InputFileError, match="no column symbol"):
        resolve_genes(["CD4"], table=pd.DataFrame({"chromosome": ["1"], "start": [1]}))
    with pytest.raises(FeatureError, match="1 gene ids for 2 gene names"):
        resolve_genes(["CD4", "CD8A"], gene_ids=["ENSG00000010610"])
    with pytest.raises(FeatureError, match="'rat' has no gene table"):
        resolve_genes(["Cd4"], species="rat")


@pytest.mark.parametrize("assembly", ["GRCh38", "GRCh38.93", "GRCh37"])
def test_every_id_and_symbol_of_every_human_release_is_known(assembly):
    genes = load_genes(assembly)
    by_id = resolve_genes(genes["gene_id"], species="human").table
    assert (by_id["status"] == "matched").all()
    assert by_id["gene_id"].tolist() == genes["gene_id"].tolist()
    by_symbol = resolve_genes(genes["symbol"].unique(), species="human")
    assert by_symbol.counts["lost"] == 0
    assert by_symbol.counts["ambiguous"] < 300


@settings(max_examples=20)
@given(st.lists(st.text(max_size=12), max_size=20))
def test_one_row_per_name_whatever_the_name(names):
    table = resolve_genes(names, species="human").table
    assert table["name"].tolist() == [name.strip() for name in names]
    assert set(table["status"]) <= {"matched", "ambiguous", "lost"}
    placed = table["status"] == "matched"
    assert table.loc[placed, ["symbol", "chromosome", "start", "how", "assembly"]].notna().all(axis=None)
    assert table.loc[~placed, ["symbol", "chromosome", "start", "assembly"]].isna().all(axis=None)


def test_names_are_looked_up_together_and_no_more_once_they_matched(monkeypatch):
    """Looked up one by one, 20,000 names took minutes; `benchmarks/names.py` measures the time."""
    sizes = []
    find = GeneLookup.find
    monkeypatch.setattr(
        GeneLookup, "find", lambda self, names, level: sizes.append(len(names)) or find(self, names, level)
    )
    names = load_genes("GRCh38.93")["symbol"].drop_duplicates().sample(20_000, random_state=0)
    resolve_genes(names)
    assert len(sizes) <= 20  # kinds of names times releases, whatever the number of names
    assert sizes[0] == 20_000
    assert sum(sizes) < 60_000


def test_genes_of_another_species_are_lost():
    """Where both were sequenced, a human model had read its genes from the mouse's columns."""
    found = resolve_genes(["mm10_Cd3e", "GRCh38_CD3E", "mm10___Actb", "CD8A"], species="human").table
    assert found["status"].tolist() == ["lost", "matched", "lost", "matched"]
    ids = ["ENSMUSG00000032093", "ENSG00000198851", ""]
    found = resolve_genes(["Cd3e", "Cd3e", "Cd3e"], gene_ids=ids, species="human").table
    assert found["status"].tolist() == ["lost", "matched", "matched"]
    assert resolve_genes(["GRCh38_CD3E", "mm10_Cd3e"], species="mouse").table["status"].tolist() == ["lost", "matched"]
