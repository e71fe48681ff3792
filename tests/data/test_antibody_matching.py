import h5py
import numpy as np
import pytest

from scfusionttt.data.antibody_matching import match_proteins


def match(wanted, names, species="human"):
    """Return the name that each wanted protein goes by, None where it has none."""
    found = match_proteins(wanted, names, species=species)
    assert len(set(found[found >= 0])) == (found >= 0).sum()
    return [names[place] if place >= 0 else None for place in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CD8a", "CD8"),
        ("PD-1", "PD-1 (CD279)"),
        ("PD-1", "CD279 (PD-1)"),
        ("CD279", "PD1"),
        ("PD-1_TotalSeqB", "cd279"),
        ("PD1_CD279", "CD279 (PD-1)"),
        ("CD127", "IL7Ralpha (CD127)"),
        ("CD127 (IL-7Ra)", "CD127_A019D5_TotalC"),
        ("TIGIT", "TIGIT (VSTM3)"),
        ("HLA-DR", "MHCII (HLA-DR)"),
        ("hla.dr", "MHCII (HLA-DR)"),
        ("CD107a", "LAMP1"),
        ("CD3", "cd3.1"),
        ("CD3", "CD3_UCHT1"),
        ("CD3", "CD3:UCHT1|CD3E|AHS0231|pAbO"),
        ("HLA-DR", "HLA-DR|CD74|AHS0035|pAbO"),
        ("HLA-DR", "HLA-DR-CD74-AHS0035-pAbO"),  # Seurat's name
        ("HLA-DR|CD74|AHS0035|pAbO", "HLA.DR.CD74.AHS0035.pAbO"),  # R's
        ("CD4", "cd4.2"),
        ("CD45", "cd45.1"),
        ("CD45", "Hu.CD45_HI30"),
        ("CD45RA", "CD45RA_HI100_TotalC"),
        ("CD45RA", "CD45RA (PTPRC)"),
        ("CD90", "CD90 (Thy1)"),
        ("CD11a/CD18 (LFA-1)", "cd11a.cd18"),
        ("CD274", "B7-H1 (PD-L1)"),
        ("CD158b (KIR2DL2/L3, NKAT2)", "cd158b"),
        ("CD194_CCR4", "CCR4_CD194"),
        ("TCR a/b", "tcrab"),
        ("TCR Vd2", "tcr.v.2"),
        ("CD4", "CD4 (RPA-T4) Mouse IgG1, kappa"),
    ],
)
def test_one_antigen_under_two_panels_names_is_one_protein(one, other):
    assert match(["CD19", one], [other, "CD19"]) == ["CD19", other]
    assert match([other], [one]) == [one]


@pytest.mark.parametrize(
    ("one", "other", "species"),
    [
        # isoforms, also where the gene or a clone stands beside them
        ("CD45", "CD45RA", "human"),
        ("CD45RA", "CD45RO", "human"),
        ("CD45RA (PTPRC)", "CD45RO (PTPRC)", "human"),
        ("CD45RA_HI100", "CD45RO_UCHL1", "human"),
        ("CD45RA_HI100", "CD45_HI30", "human"),
        ("CD45", "CD45 RABC", "human"),
        ("PTPRC", "CD45RA (PTPRC)", "human"),
        ("CD44", "CD44v6", "human"),
        ("CD44", "CD44 v6", "human"),
        ("CD44", "CD44 v6 (CD44)", "human"),
        # alleles
        ("CD90.1", "CD90.2", "mouse"),
        ("CD45", "CD45.1", "mouse"),
        ("HLA-A", "HLA-A2", "human"),
        # chains and complexes
        ("CD8a", "CD8b", "human"),
        ("CD3E", "CD3D", "human"),
        ("CD3 gamma", "CD3", "human"),
        ("CD11a", "CD11a/CD18", "human"),
        ("CD49d", "CD49d/CD29", "human"),
        ("CD49d", "CD49d_CD29", "human"),
        ("CD18", "CD18/CD11a", "human"),
        ("CD49d", "CD49f", "human"),
        ("CD41", "CD41/CD61", "human"),
        ("beta2-microglobulin", "HLA-A,B,C", "human"),
        ("HLA-DR", "HLA-DQ", "human"),
        ("HLA-DR", "HLA-DR,DP,DQ", "human"),
        ("HLA-DR", "MHC class II", "human"),
        ("CD16", "CD16/32", "mouse"),
        ("TCRb", "TRBC1", "human"),
        ("TCR a/b", "TCR g/d", "human"),
        ("TCR Vd2", "TCR g/d", "human"),
        ("TCR Va7.2", "TCR Va24-Ja18", "human"),
        ("Ig light chain k", "Ig light chain l", "human"),
        ("IgM", "IgD", "human"),
        # families
        ("CD1a", "CD1c", "human"),
        ("CD66", "CD66 (a,c,e)", "human"),
        ("CD66a", "CD66a/c/e", "human"),
        ("CD158", "CD158a", "human"),
        ("CD158a", "CD158b", "human"),
        ("CD235a", "CD235ab", "human"),
        ("Gr-1", "Ly-6G", "mouse"),
        # sugars and peptides
        ("CD162", "CLA", "human"),
        ("TRA-1-60-R", "TRA-1-81", "human"),
        ("H-2Kb", "H-2Kb bound to SIINFEKL", "mouse"),
        # numbers, brackets and clones that say nothing
        ("CD3", "CD31", "human"),
        ("Siglec-8", "Siglec-10", "human"),
        ("Notch 1", "Notch 2", "human"),
        ("CD26 (Adenosine)", "CD73 (Adenosine)", "human"),
        ("CD29 (human)", "CD46 (human)", "human"),
        ("CD3_OKT3", "CD8_OKT8", "human"),
        # controls and hashtags
        ("IgG1_control", "IgG Fc", "human"),
        ("IgG", "IgG (Fc)", "human"),
        ("CD4", "CD4 isotype control", "human"),
        ("Hashtag 1", "Hashtag 2", "human"),
        ("CD298", "Hashtag 1 (CD298)", "human"),
    ],
)
def test_two_antigens_are_never_taken_for_each_other(one, other, species):
    """A protein that is missed counts as not measured; a wrong one would be believed."""
    assert match([one], [other], species) == match([other], [one], species) == [None]


def test_the_name_comes_before_the_antigen_and_that_before_the_gene():
    there = ["CD8", "cd8a", "CD8a"]
    assert match(["CD8a"], there) == ["CD8a"]
    assert match(["CD8A_TotalSeqB"], there) == ["cd8a"]
    assert match(["CD8a", "CD8"], ["CD8"]) == [None, "CD8"]
    assert match(["PD-L1"], ["CD274", "B7-H1 (PD-L1)"]) == ["B7-H1 (PD-L1)"]


def test_of_antibodies_of_one_spelling_the_first_takes_the_first():
    assert match(["CD3"], ["cd3.2", "cd3.1"]) == ["cd3.2"]
    assert match(["cd279"], ["PD-1 (CD279)", "PD1 (CD279)"]) == ["PD-1 (CD279)"]


def test_a_gene_decides_between_two_alone():
    """Of several antibodies of a gene, none is known to be the one that is meant."""
    assert match(["CD279"], ["PD-1"]) == ["PD-1"]
    assert match(["CD279"], ["PD-1", "PDCD1"]) == match(["PD-1", "PDCD1"], ["CD279"])[:1] == [None]


def test_a_panel_may_be_empty():
    assert match([], ["CD3"]) == match([], []) == []
    assert match(["CD3"], []) == [None]


PANELS = {"pbmc10k": "prot", "malt_subset": "prot", "citefuse_ctcl": "prot", "mosaic_224adt": "adt"}


@pytest.mark.parametrize(
    ("one", "other", "n_found", "some"),
    [
        ("pbmc10k", "malt_subset", 14, {}),
        ("pbmc10k", "citefuse_ctcl", 11, {"CD8a_TotalSeqB": "CD8", "CD127_TotalSeqB": "IL7Ralpha (CD127)"}),
        ("pbmc10k", "mosaic_224adt", 14, {"CD3_TotalSeqB": "cd3.1", "PD-1_TotalSeqB": "cd279"}),
        ("malt_subset", "citefuse_ctcl", 11, {"PD-1": "PD-1 (CD279)", "CD25": None, "IgG1-control": None}),
        ("malt_subset", "mosaic_224adt", 14, {"CD8a": "cd8a", "IgG1-control": None}),
        (
            "citefuse_ctcl",
            "mosaic_224adt",
            35,
            {
                "MHCII (HLA-DR)": "hla.dr",
                "PD-L1 (CD274)": "cd274",
                "CD45RA": "cd45ra",
                "B220 (CD45R)": None,
                "TCRb": None,
                "IgG1": None,
            },
        ),
    ],
)
def test_panels_of_real_data_find_each_other(real_data, one, other, n_found, some):
    """Of PBMC10K's 14 proteins the panel of 224 antibodies gave 10."""
    names = [read_names(real_data, name) for name in (one, other)]
    found = dict(zip(names[0], match(*names), strict=True))
    back = match(*reversed(names))
    assert np.count_nonzero(list(found.values())) == np.count_nonzero(back) == n_found
    assert {name: found[name] for name in some} == some


def read_names(folder, name):
    with h5py.File(folder / f"{name}.h5mu") as file:
        var = file[f"mod/{PANELS[name]}/var"]
        return [name.decode() for name in var[var.attrs["_index"]][:]]
