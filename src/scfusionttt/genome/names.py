"""Prefixes and suffixes of gene names, and their removal."""

from collections.abc import Iterable

import pandas as pd

PREFIXES = {
    "human": ("hg19", "hg38", "GRCh37", "GRCh38", "HUMAN"),
    "mouse": ("mm9", "mm10", "mm39", "GRCm38", "GRCm39", "MOUSE"),
}
#: Missing names that were turned into text, in lower case: no aliases or previous symbols.
MISSING = ("", "na", "nan", "none", "<na>")
#: Ensembl prefixes of the supported species.
_IDS = {"human": "ENSG", "mouse": "ENSMUSG"}
#: Ensembl prefixes of other species that people sequence.
_OTHER_IDS = {
    "ENSMMUG": "Macaca mulatta", "ENSMFAG": "Macaca fascicularis", "ENSPTRG": "Pan troglodytes",
    "ENSCJAG": "Callithrix jacchus", "ENSSSCG": "Sus scrofa", "ENSRNOG": "Rattus norvegicus", "ENSDARG": "Danio rerio",
    "ENSBTAG": "Bos taurus", "ENSOARG": "Ovis aries", "ENSECAG": "Equus caballus", "ENSCAFG": "Canis familiaris",
    "ENSFCAG": "Felis catus", "ENSGALG": "Gallus gallus", "ENSOCUG": "Oryctolagus cuniculus",
    "ENSMAUG": "Mesocricetus auratus", "ENSCPOG": "Cavia porcellus", "ENSMPUG": "Mustela putorius furo",
    "ENSXETG": "Xenopus tropicalis",
}  # fmt: skip
#: A gene id anywhere in a name; version, ``_PAR_Y`` and an adjacent symbol are dropped.
_GENE_ID = r"(?i)(?:^|[^A-Z0-9])(ENS[A-Z]{0,6}G\d{11})(?!\d)"


def as_text(names: Iterable[object]) -> pd.Series:
    """Return names as text with the index 0..n-1; missing names are empty."""
    series = pd.Series(list(names), dtype=object)
    return series.where(series.notna(), "").astype(str).str.strip()


def species_prefix(*species: str) -> str:
    """Return a pattern that matches the prefixes of these species; Seurat writes ``-`` for ``_``."""
    return rf"(?i)^(?:{'|'.join(prefix for name in species for prefix in PREFIXES[name])})[-_]+"


def strip_species(names: pd.Series) -> pd.Series:
    """Remove a species prefix: ``hg19_CD4``, ``GRCh38___CD4``, ``HUMAN-CD4`` -> ``CD4``."""
    return names.str.replace(species_prefix(*PREFIXES), "", regex=True)


def of_another_species(names: pd.Series, ids: pd.Series, species: str) -> pd.Series:
    """Return whether a name has another species' prefix, or its Ensembl id (empty: none) is not of `species`, [g] bool.

    If both species were sequenced, ``mm10_Cd3e`` is not CD3E of the human cells.
    """
    if species not in PREFIXES:
        return pd.Series(False, index=names.index)
    others = species_prefix(*(name for name in PREFIXES if name != species))
    return names.str.contains(others, regex=True) | ((ids != "") & ~ids.str.startswith(_IDS[species]))


def count_ids(ids: pd.Series) -> dict[str, int]:
    """Return how many Ensembl ids each supported species has."""
    return {species: int(ids.str.startswith(prefix).sum()) for species, prefix in _IDS.items()}


def other_species(ids: pd.Series) -> str | None:
    """Return the species that most of the names or ids give, such as ``Sus scrofa (ENSSSCG)``; None if supported."""
    prefixes = ensembl_ids(ids).str.slice(stop=-11).dropna()
    if len(prefixes) <= len(ids) / 2 or (prefix := str(prefixes.mode()[0])) in _IDS.values():
        return None
    return f"{_OTHER_IDS.get(prefix, 'another species')} ({prefix})"


def ensembl_ids(names: pd.Series) -> pd.Series:
    """Return the Ensembl gene id in each name, without its version; missing if there is none."""
    return names.str.extract(_GENE_ID, expand=False).str.upper()


def without_suffix(names: pd.Series) -> pd.Series:
    """Undo made-unique names: ``TBCE-1`` (anndata) and ``TBCE.1`` (R) -> ``TBCE``; empty if there is no suffix."""
    return names.str.extract(r"^(.+)[-.]\d+$", expand=False).fillna("")
