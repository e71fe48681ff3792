"""Infer the species, human or mouse, from the names of the genes."""

from collections.abc import Iterable
from functools import cache

import pandas as pd

from scfusionttt.errors import FeatureError, name_some
from scfusionttt.genome.names import (
    PREFIXES,
    as_text,
    count_ids,
    ensembl_ids,
    other_species,
    species_prefix,
    strip_species,
)
from scfusionttt.genome.tables import RELEASES, read_shipped

#: A second species with a smaller fraction of the names is treated as contamination or spike-in.
_STRAY = 0.05
#: Smallest fraction of known names for a species to be inferred.
_LEAST = 0.1
#: Number of names that are looked up to tell cells from genes.
_SOME = 1000
_MOUSE_SPELLING = r"[A-Z][a-z]|mt-|\d+[A-Z]\d+Rik"
_BOTH = (("human", "mouse"), ("mouse", "human"))


class SpeciesMixtureError(FeatureError):
    """The features come from human and from mouse."""


def infer_species(names: Iterable[object], gene_ids: Iterable[object] | None = None) -> str:
    """Return "human" or "mouse" according to prefixes (``hg19_``, ``MOUSE_``), Ensembl ids, then the case of symbols.

    Parameters
    ----------
    names
        Gene names, [g].
    gene_ids
        Ensembl ids of the same genes, [g], if known.

    Raises
    ------
    SpeciesMixtureError
        Both species have at least 5 % of the features with a prefix or an id.
    FeatureError
        The Ensembl ids are from another species, or less than 10 % of the names are genes of either species.
    """
    text = as_text(names)
    ids = text if gene_ids is None else as_text(gene_ids)
    for marked in (_by_prefix(text), count_ids(ensembl_ids(ids).dropna())):
        if sum(marked.values()) > len(text) / 2:
            return _majority(marked)
    if (other := other_species(ids)) is not None:
        raise FeatureError(
            f"the gene ids are from {other}, not human or mouse; "
            "to use gene symbols as those of human or mouse, choose species"
        )
    known = _by_symbol(text)
    if max(known.values()) < max(1, _LEAST * len(text)):
        some = name_some(text.tolist())
        raise FeatureError(
            f"the genes are neither human nor mouse: {max(known.values())} of {len(text)} names are known ({some}); "
            "use gene symbols or Ensembl ids, or choose species"
        )
    return _majority(known)


def gene_share(names: pd.Index) -> float:
    """Return the fraction of names, of some of many, that are Ensembl ids or symbols of genes, in any case."""
    some = as_text(names[:: max(1, len(names) // _SOME)])
    symbols = strip_species(some).str.upper().isin(_human_symbols())  # most genes of the mouse have the same
    return float((symbols | ensembl_ids(some).notna()).mean()) if len(some) else 0.0


@cache
def _human_symbols() -> frozenset[str]:
    return frozenset(read_shipped(RELEASES["human"][0])["symbol"].str.upper())


def _by_prefix(names: pd.Series) -> dict[str, int]:
    return {species: int(names.str.match(species_prefix(species)).sum()) for species in PREFIXES}


def _by_symbol(names: pd.Series) -> dict[str, int]:
    """Count the names that are symbols of only one species, with their case (CD4 / Cd4).

    If there are few (names in lower case), case is ignored and all names count for the species that knows more.
    """
    human = names.isin(read_shipped(RELEASES["human"][0])["symbol"])
    if human.mean() > 0.5 and names.str.match(_MOUSE_SPELLING).mean() < _STRAY:
        return {"human": int(human.sum()), "mouse": 0}  # no need to read the mouse table
    symbols = {species: read_shipped(releases[0])["symbol"] for species, releases in RELEASES.items()}
    known = {species: names.isin(column) for species, column in symbols.items()}
    if max(column.mean() for column in known.values()) >= _LEAST:
        return {species: int((known[species] & ~known[other]).sum()) for species, other in _BOTH}
    upper = names.str.upper()
    counts = {species: int(upper.isin(column.str.upper()).sum()) for species, column in symbols.items()}
    return {species: counts[species] if counts[species] > counts[other] else 0 for species, other in _BOTH}


def _majority(counts: dict[str, int]) -> str:
    species, other = sorted(counts, key=lambda name: -counts[name])
    share = counts[other] / sum(counts.values())
    if share >= _STRAY:
        raise SpeciesMixtureError(
            f"the features are a mixture of {counts['human']} human and {counts['mouse']} mouse genes; "
            "keep the genes of one species, or choose species"
        )
    return species
