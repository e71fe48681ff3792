"""Match the antibodies of two panels under their different names."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd

from scfusionttt.genome.antibody_names import antigen, key
from scfusionttt.genome.antigens import identifying_gene, known_antigens


def match_proteins(wanted: Sequence[str], names: Sequence[str], *, species: str) -> np.ndarray:
    """Return the position of each wanted protein among the names, [p] int, -1 where there is none.

    Proteins match by name; then by antigen, without vendors' additions; then by known spellings of the antigen
    (``PD-1 (CD279)``, ``cd3.1``); then by coding gene, if the gene has a single antigen and one antibody is left on
    each side. No name is used twice: equal names are matched in order.
    """
    mine, theirs = pd.Series(wanted, dtype=object), pd.Series(names, dtype=object)
    columns = fill(np.full(len(mine), -1), mine, theirs)
    columns = fill(columns, mine.map(antigen_key), theirs.map(antigen_key))
    if (columns >= 0).all():
        return columns
    antigens = [known_antigens(panel, species=species) for panel in (mine, theirs)]
    columns = _by_spelling(columns, *antigens)
    genes = [pd.Series([identifying_gene(one) for one in panel], dtype=object) for panel in antigens]
    genes[0] = genes[0].where(columns < 0)
    genes[1] = genes[1].drop(columns[columns >= 0]).reindex(theirs.index)
    return fill(columns, unrepeated(genes[0]), unrepeated(genes[1]))


def proteins_called(name: str, proteins: pd.DataFrame) -> np.ndarray:
    """Return the positions of the proteins of this name; else of this antigen; else of this coding gene.

    Parameters
    ----------
    proteins
        [p], with `name` and, if known, `symbol` of the coding gene.
    """
    names = proteins["name"].astype(str)
    readings = [names.str.lower() == name.lower(), names.map(antigen_key) == antigen_key(name)]
    if "symbol" in proteins:
        readings.append(proteins["symbol"].astype(str).str.lower() == name.lower())
    found = [np.flatnonzero(reading) for reading in readings if reading.any()]
    return found[0] if found else np.empty(0, dtype=np.intp)


def renamed_proteins(wanted: Sequence[str], names: Sequence[str], columns: np.ndarray) -> list[str]:
    """Return the proteins that matched under another antigen's name, such as ``PD-1 as CD279``."""
    pairs = [(ours, names[place]) for ours, place in zip(wanted, columns, strict=True) if place >= 0]
    return [f"{ours} as {theirs}" for ours, theirs in pairs if antigen_key(ours) != antigen_key(theirs)]


def antigen_key(name: str) -> str:
    """Return the antigen without vendors' additions; isoforms of a gene, such as CD45RA and CD45RO, stay distinct."""
    return key(antigen(name))


def fill(columns: np.ndarray, wanted: pd.Series, names: pd.Series) -> np.ndarray:
    """Assign free columns to unmatched names; equal names are matched in order."""
    left = np.flatnonzero((columns < 0) & wanted.notna())
    free = np.setdiff1d(np.flatnonzero(names.notna()), columns)
    column = dict(zip(_numbered(names.iloc[free]), free, strict=True))
    filled = columns.copy()
    filled[left] = [column.get(name, -1) for name in _numbered(wanted.iloc[left])]
    return filled


def unrepeated(names: pd.Series) -> pd.Series:
    """Return the names that occur once; the others are missing."""
    return names.where(~names.duplicated(keep=False))


def _by_spelling(columns: np.ndarray, mine: list[dict[str, str]], theirs: list[dict[str, str]]) -> np.ndarray:
    """Match by known spellings: the best spelling of one side with any spelling of the other."""
    ranks = [[pd.Series(rank, dtype=object) for rank in zip_longest(*panel)] for panel in (mine, theirs)]
    for number, rank in enumerate(ranks[0]):
        for other in ranks[1] if number == 0 else ranks[1][:1]:
            columns = fill(columns, rank, other)
    return columns


def _numbered(names: pd.Series) -> Iterator[tuple[str, int]]:
    return zip(names, names.groupby(names).cumcount(), strict=True)
