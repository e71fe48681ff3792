"""Known antigens in antibody names, to recognise different names of the same antigen."""

import re
from collections.abc import Iterable

from scfusionttt.genome.antibodies import curated, genes_of
from scfusionttt.genome.antibody_names import antigen, given, heads, is_hashtag, is_isotype, key, spellings

#: Genes with several antigens: isoforms (CD45RA, CD44v6), alleles (CD90.1, HLA-A2), peptides (H-2Kb), sugars and
#: other epitopes (CLA, TRA-1-60, CD235ab), families (Gr-1, CD66a/c/e, CD158) or complexes for which the gene
#: encodes one chain (CD11a/CD18, MHC class II, CD16/32, TCR a/b).
_SEVERAL = re.compile(
    r"B2M|CD44|CD209|CEACAM\d+|CLEC10A|CR2|FCGR3A?|GYPA|H2-.*|HLA-[ABC]|HLA-DRA|IGH[AG].*|ITGA2B|ITGAL|KIR.*|LY6G|MAPT"
    r"|MICA|PODXL|PTPRC|SELPLG|TGFB1|THY1|TR[ABDG]C\d?|TRBV6-5",
    re.IGNORECASE,
)

#: Ambiguous names, which controls and families have as well.
_VAGUE = frozenset({"igg", "cd66"})


def known_antigens(names: Iterable[str], *, species: str) -> list[dict[str, str]]:
    """Return the known antigens in each name, [p]: the key of each spelling with its coding gene, best first.

    ``PD-1 (CD279)`` has two, ``cd3.1`` and ``CD3_UCHT1`` have one; controls, hashtags and unknown names have none.
    """
    # The antigens in a name have priority over those without a number, and these over those without a clone.
    readings = [
        [] if is_hashtag(name) or is_isotype(name) else [given(name), spellings(name), _without_clone(name, species)]
        for name in names
    ]
    genes = genes_of({reading for ways in readings for way in ways for reading in way}, species)
    return [_first_known(ways, genes) for ways in readings]


def identifying_gene(antigens: dict[str, str]) -> str | None:
    """Return the coding gene of a name's antigens; None if the gene has other antigens, too."""
    symbol = next(iter(antigens.values()), None)
    return None if symbol is None or _SEVERAL.fullmatch(symbol) else symbol


def _first_known(ways: list[list[str]], genes: dict[str, str]) -> dict[str, str]:
    found = ([reading for reading in way if reading in genes and key(reading) not in _VAGUE] for way in ways)
    known = next(filter(None, found), [])
    if not known:
        return {}
    symbol = genes[known[0]]
    # In brackets, a gene with several antigens is less specific than the name: CD45RA (PTPRC).
    vague = {key(symbol)} if _SEVERAL.fullmatch(symbol) else set()
    others = [reading for reading in known[1:] if genes[reading] == symbol and key(reading) not in vague]
    return {key(reading): symbol for reading in [known[0], *others]}


def _without_clone(name: str, species: str) -> list[str]:
    """Return the antigen before a clone: CD3 for ``CD3_UCHT1``; none for ``CD49d/CD29`` or ``CD45 RABC``."""
    genes = curated(species)
    for head in heads(name):
        if key(head) in genes:
            rest = antigen(name)[len(head) :]
            others = {genes.get(key(part)) for part in re.split(r"[\s_.:|/,\-]+", rest)}
            is_clone = (
                re.search(r"\d", rest) and not re.match(r"\s*[/,+&]", rest) and others <= {None, genes[key(head)]}
            )
            return [head] if is_clone else []
    return []
