import pandas as pd
import pytest

from scfusionttt.errors import FeatureError, InputFileError
from scfusionttt.genome import ASSEMBLIES, load_genes, resolve_antibodies
from scfusionttt.genome.antibodies import TABLE, read_as_antibodies
from scfusionttt.genome.antibody_names import is_hashtag, is_isotype, key
from scfusionttt.genome.chromosomes import is_main


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("CD16_TotalSeqB", "FCGR3A"),
        ("HLA-DR", "HLA-DRA"),
        ("CD3", "CD3E"),
        ("CD45RA", "PTPRC"),
        ("CD45RO-TotalSeqC", "PTPRC"),
        ("CD15 (SSEA-1)", "FUT4"),
        ("CD15_(SSEA-1)_TotalA", "FUT4"),
        ("CD8a", "CD8A"),
        ("CD56", "NCAM1"),
        ("CD57 Recombinant", "B3GAT1"),
        ("TCR a/b", "TRAC"),
        ("TCR α/β", "TRAC"),
        ("Hu.TCR.AB", "TRAC"),
        ("TCR gamma/delta", "TRDC"),
        ("CD274 (B7-H1, PD-L1)", "CD274"),
        ("B220 (CD45R)", "PTPRC"),
        ("anti-human CD4", "CD4"),
        ("anti-human/mouse CD44", "CD44"),
        ("TotalSeq-A0034 anti-human CD3", "CD3E"),
        ("TotalSeq™-A0034 anti-human CD3 Antibody", "CD3E"),
        ("CD3_TotalSeq™-C", "CD3E"),
        ("anti-human/mouse/rat CD278 (ICOS)", "ICOS"),
        ("Hu.CD3_UCHT1", "CD3E"),
        ("HuMs.CD44_IM7", "CD44"),
        ("adt_CD4", "CD4"),
        ("ADT_CD8a", "CD8A"),
        ("prot_CD19", "CD19"),
        ("CD4-ADT", "CD4"),
        ("CD3-CTCATTGTAACTCCT", "CD3E"),
        ("CD3:UCHT1|CD3E|AHS0231|pAbO", "CD3E"),
        ("cd3.1", "CD3E"),
        ("CD3-1", "CD3E"),
        ("CD31", "PECAM1"),
        ("cd45.2", "PTPRC"),
        ("hla.dr", "HLA-DRA"),
        ("cd66a.c.e", "CEACAM1"),
        ("IL7Ralpha (CD127)", "IL7R"),
        ("IL-7Rα", "IL7R"),
        ("IL-5Rα", "IL5RA"),
        ("ICAM-1", "ICAM1"),
        ("Nectin 4", "NECTIN4"),
        ("TNF-R2", "TNFRSF1B"),
        ("TRAIL-R2", "TNFRSF10B"),
        ("VEGFR-1", "FLT1"),
        ("GARP", "LRRC32"),
        ("HLA_A2", "HLA-A"),
        ("IgM", "IGHM"),
        ("IgD", "IGHD"),
        ("IgG Fc", "IGHG1"),
        ("IgA", "IGHA1"),
        ("CD3D", "CD3D"),
        ("CD300A", "CD300A"),
        ("CD317", "BST2"),
        ("RAGE", "AGER"),
        ("PAC-1", "ITGA2B"),
        ("CD40 Ligand", "CD40LG"),
        ("Fas Ligand (CD178)", "FASLG"),
        ("CD27-L", "CD70"),
        ("CD200-R", "CD200R1"),
        ("ENSG00000010610", "CD4"),
    ],
)
def test_a_human_antibody_is_matched_to_the_gene_of_its_antigen(name, symbol):
    found = resolve_antibodies([name]).table.iloc[0]
    assert (found["name"], found["symbol"], found["kind"]) == (name, symbol, "antibody")
    assert found["status"] == "matched"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("CD4", "Cd4"),
        ("Ms.CD4", "Cd4"),
        ("CD45.1", "Ptprc"),
        ("anti-mouse CD16/32", "Fcgr3"),
        ("anti-mouse/rat CD29", "Itgb1"),
        ("anti-rat/mouse CD90.1", "Thy1"),
        ("rat CD90/mouse CD90.1", "Thy1"),
        ("I-A_I-E_TotalA", "H2-Aa"),
        ("TER-119_Erythroid_Cells_TotalA", "Gypa"),
        ("Ly-6G", "Ly6g"),
        ("CD170 (Siglec-F)", "Siglecf"),
        ("Folate Receptor 4", "Izumo1r"),
        ("BP-1", "Enpep"),
        ("Qa-1b", "H2-T23"),
        ("Qa-1", "H2-T23"),
        ("RAE-1", "Raet1d"),
        ("CD317", "Bst2"),
        ("Sca-1", "Ly6a"),
        ("Fas-L", "Fasl"),
    ],
)
def test_a_mouse_antibody_is_matched_to_the_gene_of_its_antigen(name, symbol):
    assert resolve_antibodies([name], species="mouse").table["symbol"].tolist() == [symbol]


@pytest.mark.parametrize(
    "name",
    [
        "IgG1_control_TotalSeqB",
        "IgG2a-control",
        "IgG2a",
        "adt_IgG1",
        "mouse IgG1 isotype Ctrl",
        "Mouse IgG1, κ isotype Ctrl",
        "mIgG2a_control",
        "IgG2a Ctrl",
        "Mouse IgG1 (MOPC-21)",
        "Rat IgG2c (RTK4174)",
        "IgG2a (eBM2a) Mouse",
        "Rat IgG2b",
        "Rat.IgG1.iso",
        "Arm.ham.IgG.iso",
        "IgG_Hamster",
        "IgG1_Mouse_k",
        "RatIgG2b",
        "ArmenianHamsterIgG",
        "MsIgG1",
        "control_mIgM",
        "IsoIgG2A",
        "Isotype_MOPC.21",
        "RTK4530",
    ],
)
def test_an_isotype_control_is_recognised(name):
    assert is_isotype(name)
    found = resolve_antibodies([name]).table.iloc[0]
    assert (found["kind"], found["status"], found["how"]) == ("isotype", "lost", "isotype")


@pytest.mark.parametrize(
    "name", ["IgM", "IgD", "IgG Fc", "IgG (Fc)", "anti-mouse IgM", "Ig light chain k", "CD32", "LIGHT"]
)
def test_antigens_are_not_isotypes(name):
    assert not is_isotype(name)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("CD4 (RPA-T4) Mouse IgG1, kappa", "CD4"),
        ("TIGIT (A15153G) Mouse IgG2a, κ", "TIGIT"),
        ("TIGIT (A15153G) MouseIgG2a", "TIGIT"),
        ("CD19_mouse_IgG1", "CD19"),
        ("CD62L Rat IgG2a", "SELL"),
    ],
)
def test_an_antibody_named_with_its_own_isotype_is_no_control(name, symbol):
    """It was left out of the model."""
    found = resolve_antibodies([name]).table.iloc[0]
    assert (found["kind"], found["symbol"]) == ("antibody", symbol)


@pytest.mark.parametrize(
    "name", ["CD4 isotype control, Mouse IgG1", "KLH control (X40) Mouse IgG1", "MOPC-21 (x) Mouse IgG1"]
)
def test_a_control_of_an_antibody_is_a_control(name):
    assert resolve_antibodies([name]).table.loc[0, "kind"] == "isotype"


@pytest.mark.parametrize(
    "name",
    ["HTO28_5P", "HTO_A", "Hashtag1", "Hashtag-1", "anti-human Hashtag 1", "hash-tag 3", "CMO301", "SampleTag01_hs"],
)
def test_a_hashtag_is_recognised(name):
    assert is_hashtag(name)
    assert resolve_antibodies([name]).table.loc[0, "kind"] == "hashtag"


@pytest.mark.parametrize("name", ["Sca-1", "Gr-1", "NK1.1", "TER-119", "H-2", "RAE-1", "Ly-6G"])
def test_an_antigen_that_humans_lack_is_no_other_gene(name):
    """Sca-1 was taken for ATXN1, which was called SCA1, and Gr-1 for GR, the glucocorticoid receptor."""
    assert resolve_antibodies([name]).table["status"].tolist() == ["lost"]
    assert resolve_antibodies([name], species="mouse").table["status"].tolist() == ["matched"]


def test_unknown_and_ambiguous_stay_in_their_place():
    found = resolve_antibodies(["FITC", "CD4", "CD1", None])
    assert found.table["status"].tolist() == ["lost", "matched", "ambiguous", "lost"]
    assert set(found.table.loc[2, "candidates"].split("|")) == {"CD1A", "CD1B", "CD1C"}


def test_summary_names_what_is_left_out():
    line = resolve_antibodies(["CD4", "IgG1", "HTO1", "FITC"]).summary()
    assert line == (
        "1 of 2 human names matched (50.00 %); 1 isotype left out: IgG1; 1 hashtag left out: HTO1; 1 lost: FITC"
    )


def test_overrides_come_before_the_table(tmp_path):
    names = ["CD3", "mystery", "CD4", "FITC"]
    table = pd.DataFrame({"name": ["cd3", "Mystery", "CD4"], "symbol": ["CD3G", "isotype", ""]})
    path = tmp_path / "own.csv"
    table.to_csv(path, index=False)
    for overrides in (table, path):
        found = resolve_antibodies(names, overrides=overrides).table
        assert found["symbol"].fillna("").tolist() == ["CD3G", "", "", ""]
        assert found["kind"].tolist() == ["antibody", "isotype", "antibody", "antibody"]
        assert found.loc[0, "how"] == "override"


def test_overrides_without_names_and_symbols_are_refused(tmp_path):
    with pytest.raises(InputFileError, match="need the columns name and symbol, but have a"):
        resolve_antibodies(["CD4"], overrides=pd.DataFrame({"a": ["b"]}))
    with pytest.raises(InputFileError, match="need the columns name and symbol, but have 0, 1"):
        resolve_antibodies(["CD4"], overrides=pd.DataFrame([["CD4", "CD4"]]))
    with pytest.raises(InputFileError, match="cannot be read"):
        resolve_antibodies(["CD4"], overrides=tmp_path / "none.tsv")


def test_the_species_of_antibodies_is_read_as_that_of_genes():
    assert resolve_antibodies(["CD3"], species="Human").table["symbol"].tolist() == ["CD3E"]
    with pytest.raises(FeatureError, match="species 'rat' has no gene table"):
        resolve_antibodies(["CD3"], species="rat")


def test_separators_fold_but_not_between_digits():
    assert key("PD-1") == key("pd 1") == key("PD1")
    assert key("CD3.1") != key("CD31")
    assert key("4-1BB") == key("4.1BB")


def test_curated_genes_exist_on_a_main_chromosome():
    table = pd.read_csv(TABLE, sep="\t", dtype=str, keep_default_na=False)
    assert table["antigen"].map(key).is_unique
    for species, assembly in (("human", "GRCh38"), ("mouse", "GRCm39")):
        genes = load_genes(assembly)
        placed = set(genes["symbol"][is_main(genes["chromosome"])])
        # KIR2DL5A is in no primary assembly.
        assert set(table[species]) - placed - {"", "KIR2DL5A"} == set()


@pytest.mark.parametrize("name", ["unmapped", "no_match", "bad_struct", "total_reads", "Unmapped", "no.match"])
def test_rows_of_counting_tools_are_no_antibodies(name):
    """They became proteins of the model and targets to predict."""
    assert resolve_antibodies([name]).table["kind"].tolist() == ["bookkeeping"]
    assert resolve_antibodies([name]).names("matched") == []


def test_names_that_only_antibodies_have():
    antibodies = ["CD3", "CD45RA", "CD56", "HLA-DR", "CD3_TotalSeqB", "adt_CD4", "CD4-CTCATTGTAACTCCT", "IgG1 control"]
    # these were genes without a word
    antibodies += ["CD16:3G8|FCGR3A|AHS0053|pAbO", "CD4_TotalA", "A0034-CD3", "CD3_C0034", "Hu.CD3_UCHT1"]
    antibodies += ["CD16:3G8-FCGR3A-AHS0053-pAbO", "CD4.CD4.AHS0032.pAbO", "anti_human_CD3"]
    assert read_as_antibodies([*antibodies, "CD4", "CD8A", "MS4A1", "IGHG1", "HLA-DRA"]) == antibodies


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_no_gene_reads_as_an_antibody(assembly):
    assert read_as_antibodies(load_genes(assembly)["symbol"]) == []
