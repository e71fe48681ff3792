"""The order of features in the sequence."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from scfusionttt.errors import FeatureError, SettingError
from scfusionttt.genome.chromosomes import UNPLACED, karyotypic_rank

KINDS = ("genome", "reverse", "shuffled", "chromosomes", "family", "expression", "list")


def order_features(
    table: pd.DataFrame,
    kind: str = "genome",
    *,
    seed: int = 0,
    expression: Sequence[float] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the permutation that sorts features.

    Parameters
    ----------
    table
        Features, one row each, [f]: chromosome and start as in `Resolution.table` (for a protein, those of its coding
        gene; missing if unplaced); for ``family`` and ``list`` also name and symbol.
    kind
        ``genome``: by chromosome (karyotypic order), then start. ``reverse``: the same from the end. In both, unplaced
        features come last in input order, and equal positions keep the input order (``reverse``: the opposite).
        ``shuffled``: random. ``chromosomes``: chromosomes as in the genome, random within each. ``family``: by symbol,
        its letters first and then its numbers, since genes of one family and often one function share the letters
        (RPL3, RPL4; CD3D, CD3E), as the nomenclature committees name them; by name without a symbol. ``expression``:
        highest first, missing values last. ``list``: as in `names`, followed by the other features in input order.
    seed
        Seed of ``shuffled`` and ``chromosomes``.
    expression
        Mean expression per feature, any unit, [f].
    names
        Feature names or symbols in the desired order; names that the table lacks are ignored.

    Returns
    -------
    int64 array [f]: `table.iloc[permutation]` is sorted.

    Raises
    ------
    SettingError
        The kind is unknown, or `expression` or `names` is missing or of the wrong length.
    FeatureError
        None of `names` is in the table.
    """
    if kind == "genome":
        placed, unplaced = _by_place(table)
        return np.concatenate([placed, unplaced])
    if kind == "reverse":
        placed, unplaced = _by_place(table)
        return np.concatenate([placed[::-1], unplaced])
    if kind == "shuffled":
        return np.random.default_rng(seed).permutation(len(table))
    if kind == "chromosomes":
        placed, unplaced = _by_place(table)
        rank = karyotypic_rank(table["chromosome"])[placed]
        return np.concatenate([placed[np.lexsort((np.random.default_rng(seed).random(len(placed)), rank))], unplaced])
    if kind == "family":
        symbols = table["symbol"].fillna(table["name"]).astype(str).str.upper()
        keys = symbols.map(_letters_and_numbers).tolist()
        return np.array(sorted(range(len(table)), key=keys.__getitem__), dtype=np.int64)
    if kind == "expression":
        if expression is None or len(expression) != len(table):
            given = "none" if expression is None else len(expression)
            raise SettingError(f"order 'expression' needs one mean for each of {len(table)} features (got {given})")
        return np.argsort(-np.asarray(expression, dtype=float), kind="stable")
    if kind == "list":
        return _by_list(table, names)
    raise SettingError(f"order must be one of {', '.join(KINDS)} (got {kind!r})")


def _letters_and_numbers(symbol: str) -> list[str | int]:
    """Split RPL13A into RPL, 13, A, so that it sorts after RPL3."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", symbol)]


def _by_place(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    rank = karyotypic_rank(table["chromosome"])
    start = pd.to_numeric(table["start"]).to_numpy(dtype=float, na_value=np.nan)
    rank[np.isnan(start)] = UNPLACED
    order = np.lexsort((start, rank))
    n_placed = int((rank != UNPLACED).sum())
    return order[:n_placed], np.flatnonzero(rank == UNPLACED)


def _by_list(table: pd.DataFrame, names: Sequence[str] | None) -> np.ndarray:
    if names is None or not len(names):
        raise SettingError("order 'list' needs the names of features in the desired order")
    wanted = pd.Index([str(name) for name in names]).drop_duplicates()
    place = np.full(len(table), -1)
    for column in ("name", "symbol"):
        if column in table:
            place = np.where(place >= 0, place, wanted.get_indexer(pd.Index(table[column])))
    if (place < 0).all():
        raise FeatureError(f"order 'list': none of its {len(wanted)} names is a feature; use the names in the input")
    return np.argsort(np.where(place >= 0, place, len(wanted)), kind="stable")
