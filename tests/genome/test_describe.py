import pytest

from scfusionttt.errors import FeatureError
from scfusionttt.genome import describe


def test_names_are_described_as_genes_or_as_proteins():
    table = describe(["CD4", "CD3", "IgG2a", "HTO1", "nonsense", "CD1"])
    assert list(table.columns) == [
        "name",
        "kind",
        "symbol",
        "gene_id",
        "chromosome",
        "start",
        "end",
        "strand",
        "how",
    ]
    assert table["kind"].tolist() == ["gene", "protein", "isotype", "hashtag", "lost", "lost"]
    assert table["symbol"].tolist()[:2] == ["CD4", "CD3E"]
    assert table.loc[5, "how"].startswith("one of CD1A")


def test_species_by_spelling_or_option():
    assert describe(["Cd4", "B220"])["symbol"].tolist() == ["Cd4", "Ptprc"]
    assert describe(["CD45RA_TotalSeqB"])["symbol"].tolist() == ["PTPRC"]
    assert describe(["CD4"], species="mouse")["symbol"].tolist() == ["Cd4"]


def test_mixture_is_refused():
    with pytest.raises(FeatureError, match="mixture"):
        describe(["CD4", "Cd4"])
