"""Which antibodies of two panels are the same, whatever they are called."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd

from scfusionttt.genome.antibody_names import antigen, key
from scfusionttt.genome.antigens import known_antigens, telling_gene


def match_proteins(wanted: Sequence[str], names: Sequence[str], *, species: str) -> np.ndarray:
    """Return where each wanted protein stands among the names, [p] int, -1 where it does not.

    By name; then by antigen, without what vendors put around it; then by the spellings known of an antigen (``PD-1
    (CD279)``, ``cd3.1``); then by the coding gene, where one on each side is left of a gene that stands for one
    antigen. No name is taken twice: of equal ones the first takes the first.
    """
    mine, theirs = pd.Series(wanted, dtype=object), pd.Series(names, dtype=object)
    found = fill(np.full(len(mine), -1), mine, theirs)
    found = fill(found, mine.map(antigen_key), theirs.map(antigen_key))
    if (found >= 0).all():
        return found
    antigens = [known_antigens(panel, species=species) for panel in (mine, theirs)]
    found = _by_spelling(found, *antigens)
    genes = [pd.Series([telling_gene(one) for one in panel], dtype=object) for panel in antigens]
    genes[0] = genes[0].where(found < 0)
    genes[1] = genes[1].drop(found[found >= 0]).reindex(theirs.index)
    return fill(found, unrepeated(genes[0]), unrepeated(genes[1]))


def renamed_proteins(wanted: Sequence[str], names: Sequence[str], found: np.ndarray) -> list[str]:
    """Name the proteins that `match_proteins` found under another antigen's name: ``PD-1 as CD279``."""
    pairs = [(ours, names[place]) for ours, place in zip(wanted, found, strict=True) if place >= 0]
    return [f"{ours} as {theirs}" for ours, theirs in pairs if antigen_key(ours) != antigen_key(theirs)]


def antigen_key(name: str) -> str:
    """Fold what vendors put around an antigen's name: CD45RA stays apart from CD45RO, which the same gene codes."""
    return key(antigen(name))


def fill(found: np.ndarray, wanted: pd.Series, names: pd.Series) -> np.ndarray:
    """Give what is not found yet a column not taken yet; of equal names the first takes the first."""
    left = np.flatnonzero((found < 0) & wanted.notna())
    free = np.setdiff1d(np.flatnonzero(names.notna()), found)
    column = {name: place for name, place in zip(_numbered(names.iloc[free]), free, strict=True)}
    filled = found.copy()
    filled[left] = [column.get(name, -1) for name in _numbered(wanted.iloc[left])]
    return filled


def unrepeated(names: pd.Series) -> pd.Series:
    """Return the names that stand once; the others are missing."""
    return names.where(~names.duplicated(keep=False))


def _by_spelling(found: np.ndarray, mine: list[dict[str, str]], theirs: list[dict[str, str]]) -> np.ndarray:
    """Fill by known spellings: the best of one side is one that the other gives, be it in brackets."""
    ranks = [[pd.Series(rank, dtype=object) for rank in zip_longest(*panel)] for panel in (mine, theirs)]
    for number, rank in enumerate(ranks[0]):
        for other in ranks[1] if number == 0 else ranks[1][:1]:
            found = fill(found, rank, other)
    return found


def _numbered(names: pd.Series) -> Iterator[tuple[str, int]]:
    return zip(names, names.groupby(names).cumcount(), strict=True)
