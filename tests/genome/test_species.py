import pytest

from scfusionttt.errors import FeatureError
from scfusionttt.genome import SpeciesMixtureError, infer_species, resolve_genes

HUMAN = ["CD4", "CD8A", "PTPRC", "MS4A1", "NCAM1"]
MOUSE = ["Cd4", "Cd8a", "Ptprc", "Ms4a1", "Ncam1"]


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (HUMAN, "human"),
        (MOUSE, "mouse"),
        ([f"hg19_{name}" for name in HUMAN], "human"),
        ([f"mm10___{name}" for name in MOUSE], "mouse"),
        ([f"HUMAN_{name}" for name in HUMAN], "human"),  # GSE100866
        ([f"MOUSE_{name}" for name in MOUSE], "mouse"),
        ([f"GRCh38-{name}" for name in HUMAN], "human"),  # Seurat replaces the underscore
        ([name.lower() for name in [*HUMAN, "CD160", "HLA-A", "HLA-B"]], "human"),
        (["ENSG00000010610.2"], "human"),
        (["ENSMUSG00000023274"], "mouse"),
    ],
)
def test_the_species_is_read_from_names(names, species):
    assert infer_species(names) == species


def test_gene_ids_tell_the_species_where_names_do_not():
    assert infer_species(["a", "b"], gene_ids=["ENSMUSG00000023274", "ENSMUSG00000026395"]) == "mouse"


@pytest.mark.parametrize(
    "names",
    [
        [*(f"hg19_{name}" for name in HUMAN), *(f"mm10_{name}" for name in MOUSE)],
        [*(f"HUMAN_{name}" for name in HUMAN), *(f"MOUSE_{name}" for name in MOUSE)],
        [*(f"hg19-{name}" for name in HUMAN), *(f"mm10-{name}" for name in MOUSE)],
        ["ENSG00000010610", "ENSMUSG00000023274"],
        HUMAN + MOUSE,
    ],
)
def test_mixture_is_refused(names):
    with pytest.raises(SpeciesMixtureError, match=r"mixture of \d+ human and \d+ mouse genes"):
        infer_species(names)


def test_a_stray_gene_is_no_mixture():
    assert infer_species([f"hg19_{i}" for i in range(97)] + ["mm10_Cd4"] * 3) == "human"


@pytest.mark.parametrize("names", [["chr1:100-200", "chr2:5-9"], [], ["", None]])
def test_names_of_neither_species_are_refused(names):
    with pytest.raises(FeatureError, match="neither human nor mouse"):
        infer_species(names)


@pytest.mark.parametrize(
    ("prefix", "species"),
    [
        ("ENSMMUG", "Macaca mulatta"),
        ("ENSSSCG", "Sus scrofa"),
        ("ENSDARG", "Danio rerio"),
        ("ENSXXXG", "another species"),
    ],
)
def test_an_unsupported_species_is_named_by_its_ids(prefix, species):
    """The symbols decided, which are mostly those of man."""
    ids = [f"{prefix}0000000000{i}" for i in range(5)]
    for names, gene_ids in ((HUMAN, ids), (ids, None)):
        with pytest.raises(FeatureError, match=rf"from {species} \({prefix}\), not human or mouse"):
            infer_species(names, gene_ids)


def test_symbols_are_resolved_if_the_species_of_the_ids_is_unsupported():
    ids = [f"ENSMMUG0000000000{i}" for i in range(5)]
    assert resolve_genes(HUMAN, gene_ids=ids, species="human").counts["matched"] == 5
