"""The batches of a cohort: obs columns that name donors, lanes or runs, and their levels."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import numpy as np
import pandas as pd

from scfusionttt.data.cells import CiteSeq
from scfusionttt.errors import InputDataError, LabelError, name_some
from scfusionttt.keys import INPUT
from scfusionttt.labels import class_names, obs_column

log = logging.getLogger("scfusionttt")

#: Fewest cells from which the effect of a batch can be estimated.
FEWEST = 20
#: Expected number of cells with counts of a protein from which a batch without any is reported.
EXPECTED = 10
#: Name of the batch of a query whose batches are not known.
QUERY = "query"
#: obs columns that are likely to hold batches, in lower case.
_LIKELY = ("batch", "donor", "donor_id", "sample", "sample_id", "lane", "library", "run")
#: Association of batches and labels, 0 to 1, from which they are called confounded.
CONFOUNDED = 0.9


@dataclass(frozen=True)
class Cohort:
    """The batch keys of a model, and the levels that it was trained on.

    Attributes
    ----------
    levels
        For each obs column, the names of its batches in the order of their codes; empty if there are no batches.
    default
        Level of cells that lack the column of the first key. None: they are an error. "": they have no batch, and
        neither have cells of unknown batches, as for a model without batches to which queries were mapped.
    mapped
        Levels of the first key that were mapped, not trained on; their cells have no level in the other keys.
    """

    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: str | None = None
    mapped: tuple[str, ...] = ()

    @property
    def first(self) -> tuple[str, ...]:
        """Levels of the first key."""
        return next(iter(self.levels.values()), ())

    @property
    def n_levels(self) -> int:
        """Number of levels of all keys together."""
        return sum(map(len, self.levels.values()))

    @property
    def is_trained(self) -> bool:
        """Whether the model was trained on batches, and not only mapped to some."""
        return bool(self.levels) and self.default != ""

    @classmethod
    def of(cls, obs: pd.DataFrame, keys: str | Sequence[str]) -> Self:
        """Read the batches of the cells that a model is trained on.

        Raises
        ------
        InputDataError, LabelError
            A column does not exist, has missing values or a single level, or most of its batches are too small.
        """
        return cls({key: _levels(obs, key) for key in _as_list(keys)})

    def codes(self, obs: pd.DataFrame, names: np.ndarray | None = None) -> np.ndarray:
        """Return the level of each cell in each key, int64 [n, keys], numbered through all keys; -1: none.

        Parameters
        ----------
        obs
            Of n cells.
        names
            Their levels in the first key, [n]; None: those in `obs`. If given, the other keys may be missing.

        Raises
        ------
        InputDataError, LabelError
            A column is missing, or has batches that are not levels of this cohort.
        """
        codes = self.no_codes(len(obs))
        if not self.levels:
            return codes
        key, *others = self.levels
        is_query = names is not None
        if names is None:
            names = self._names(obs)
        codes[:, 0] = self._places(key, names, strict=self.is_trained)
        own, start = np.flatnonzero((codes[:, 0] >= 0) & ~np.isin(names, self.mapped)), len(self.first)
        for column, other in enumerate(others if len(own) else (), 1):
            if other in obs or not is_query:
                cells = obs.iloc[own]
                places = self._places(other, self._column(cells, other), strict=not is_query)
                codes[own, column] = np.where(places < 0, -1, start + places)
            start += len(self.levels[other])
        return codes

    def no_codes(self, n: int) -> np.ndarray:
        """Return the codes [n, keys] of cells whose batches do not matter, as where the network does not read them."""
        return np.full((n, len(self.levels)), -1, dtype=np.int64)

    def known_codes(self, obs: pd.DataFrame) -> np.ndarray:
        """Return the codes [n, keys] of the first key, which decides the staining; -1 in others and for new batches."""
        codes = self.no_codes(len(obs))
        if self.levels:
            with suppress(InputDataError, LabelError):  # the cells have no such column
                codes[:, 0] = self._places(next(iter(self.levels)), self._names(obs), strict=False)
        return codes

    def knows(self, obs: pd.DataFrame) -> bool:
        """Return whether :meth:`codes` finds the batches of all cells."""
        try:
            self.codes(obs)
        except (InputDataError, LabelError):
            return False
        return True

    def extended(self, names: np.ndarray, first: str) -> tuple[Self, range]:
        """Add the batches of a query to the first key.

        Parameters
        ----------
        names
            Batch of each cell of the query, [n].
        first
            First key of a cohort that has none; its cells are of no batch.

        Returns
        -------
        The larger cohort, and the levels that are new.
        """
        key, *others = self.levels or (first,)
        known = self.levels.get(key, ())
        new = tuple(name for name in sorted(set(names)) if name not in known)
        levels = {key: (*known, *new), **{other: self.levels[other] for other in others}}
        default = self.default if self.levels else ""
        if default != "" and set(names) == {self.unnamed}:
            default = self.unnamed
        return type(self)(levels, default, (*self.mapped, *new)), range(len(known), len(known) + len(new))

    @property
    def unnamed(self) -> str:
        """Name for the batch of the next query whose batches are not known."""
        numbered = (QUERY if number == 1 else f"{QUERY} {number}" for number in count(1))
        return next(name for name in numbered if name not in self.first)

    def _names(self, obs: pd.DataFrame) -> np.ndarray:
        """Return the level of each cell in the first key: of its column, else of a store's inputs, else the default."""
        key = next(iter(self.levels))
        if key not in obs and INPUT in obs:
            inputs = class_names(obs[INPUT])
            if set(inputs) <= set(self.first):
                return inputs
        if key not in obs and self.default is not None:
            return np.full(len(obs), self.default, dtype=object)
        return self._column(obs, key)

    def _column(self, obs: pd.DataFrame, key: str) -> np.ndarray:
        if key not in obs:
            raise InputDataError(
                f"there is no obs['{key}'], which names the batch of a cell for this model "
                f"({name_some(self.levels[key])}); add it, or embed these cells with map"
            )
        return class_names(obs_column(obs, key, role="batches"))

    def _places(self, key: str, names: np.ndarray, *, strict: bool) -> np.ndarray:
        """Return the places of names [n] among the levels of a key, [n]; -1: not among them, an error if `strict`."""
        places = pd.Index(self.levels[key]).get_indexer(pd.Index(names))
        if strict and (places < 0).any():
            new = [name or "missing" for name in dict.fromkeys(names[places < 0])]
            raise InputDataError(
                f"obs['{key}'] has batches that the model was not trained on: {name_some(new)}; "
                "embed these cells with map"
            )
        return places

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        levels = {key: list(names) for key, names in self.levels.items()}
        return {"levels": levels, "default": self.default, "mapped": list(self.mapped)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the result of :meth:`to_dict`; empty values are those of a model without batches."""
        levels = {str(key): tuple(map(str, names)) for key, names in values.get("levels", {}).items()}
        return cls(levels, values.get("default"), tuple(map(str, values.get("mapped", ()))))


def cohort_of(cite: CiteSeq, batch_key: str | Sequence[str] | None) -> Cohort:
    """Return the batches to train with: those of `batch_key`, else the inputs of a store, else none.

    An empty sequence means none in any case.
    """
    if batch_key is not None:
        cohort = Cohort.of(cite.obs, batch_key)
    elif INPUT in cite.obs and cite.obs[INPUT].nunique() > 1:
        cohort = Cohort.of(cite.obs, INPUT)
        log.info("no batch_key given: the inputs of the store are the batches")
    else:
        _suggest(cite.obs)
        return Cohort()
    for key, levels in cohort.levels.items():
        log.info("batches: %d levels of obs['%s']: %s", len(levels), key, name_some(levels, most=8))
    return cohort


def query_batches(cite: CiteSeq, batch_key: str | None, cohort: Cohort) -> np.ndarray:
    """Return the batch of each cell of a query, str objects [n].

    Without a key, the column is the cohort's first key or that of a store's inputs; without either, there is one batch.

    Raises
    ------
    InputDataError, LabelError
        The column does not exist or has missing values.
    """
    if batch_key is None:
        batch_key = next((key for key in (*list(cohort.levels)[:1], INPUT) if key in cite.obs), None)
    if batch_key is None:
        return np.full(len(cite.obs), cohort.unnamed, dtype=object)
    return _batches(cite.obs, batch_key)


def warn_of_zeros(counts: np.ndarray, proteins: pd.Index, levels: np.ndarray, cohort: Cohort) -> None:
    """Log a warning of the batches in which no cell has counts of a protein that many cells of others have.

    Parameters
    ----------
    counts, proteins
        Counts [n, p], NaN where not measured, and names [p].
    levels
        Level of each cell in the first key, [n].
    """
    measured = np.isfinite(counts)
    share = (counts > 0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
    zeros = []
    for level, name in enumerate(cohort.first):
        own = levels == level
        lacks = (measured[own].sum(axis=0) * share >= EXPECTED) & ~(counts[own] > 0).any(axis=0)
        if lacks.any():
            zeros.append(f"'{name}' ({name_some(list(proteins[lacks]))})")
    if zeros:
        log.warning(
            "warning: all counts of some proteins are zero in batches, treated as measured: %s; use NaN for proteins "
            "not measured", name_some(zeros, most=8),
        )  # fmt: skip


def warn_if_confounded(obs: pd.DataFrame, cohort: Cohort, labels_key: str, codes: np.ndarray) -> None:
    """Log a warning if batches and labels (`codes` [n], -1: unlabelled) are confounded."""
    for key in cohort.levels:
        association = cramers_v(class_names(obs[key])[codes >= 0], codes[codes >= 0]) if key in obs else 0.0
        if association >= CONFOUNDED:
            log.warning(
                "warning: obs['%s'] and obs['%s'] are confounded (Cramer's V %.2f): removing the batches may have "
                "removed differences between these labels; choose another batch_key", key, labels_key, association,
            )  # fmt: skip


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Return Cramer's V of two groupings of the same cells, 0 (independent) to 1 (one determines the other)."""
    from scipy.stats.contingency import association

    table = pd.crosstab(first, second)
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0


def _levels(obs: pd.DataFrame, key: str) -> tuple[str, ...]:
    """Return the batches of a column, sorted."""
    names = _batches(obs, key)
    sizes = pd.Series(names, dtype=object).value_counts().sort_index()
    if len(sizes) < 2:
        raise InputDataError(f"obs['{key}'] has a single batch ({sizes.index[0]}); leave batch_key out")
    small = sizes[sizes < FEWEST]
    if len(small) > len(sizes) / 2:
        raise InputDataError(
            f"obs['{key}'] has {len(sizes)} batches in {len(names)} cells, {len(small)} of them with fewer than "
            f"{FEWEST} cells; choose a column of donors, lanes or runs"
        )
    if len(small):
        log.warning(
            "warning: obs['%s'] has batches of fewer than %d cells, whose effect can hardly be estimated: %s",
            key, FEWEST, name_some([f"{name} ({n})" for name, n in small.items()]),
        )  # fmt: skip
    return tuple(map(str, sizes.index))


def _batches(obs: pd.DataFrame, key: str) -> np.ndarray:
    """Return the batch of each cell, str objects [n]; raise an InputDataError if any has none."""
    names = class_names(obs_column(obs, key, role="batches"))
    missing = np.flatnonzero(names == "")
    if len(missing):
        raise InputDataError(
            f"obs['{key}'] is missing in {len(missing)} of {len(names)} cells ({name_some(list(obs.index[missing]))}); "
            "fill it in, or leave these cells out"
        )
    return names


def _as_list(keys: Any) -> list[str]:
    is_one = isinstance(keys, str | pd.Series) or not np.iterable(keys)  # a column passed as values is one wrong key
    return [keys] if is_one else list(dict.fromkeys(keys))


def _suggest(obs: pd.DataFrame) -> None:
    """Log the first column that is named like one of batches and could be used as such."""
    for key in obs.columns:
        if str(key).lower() in _LIKELY and isinstance(obs[key], pd.Series):  # of repeated names, there are several
            sizes = pd.Series(class_names(obs[key]), dtype=object).value_counts()
            if len(sizes) > 1 and sizes.min() >= FEWEST:
                log.info("obs['%s'] may hold %d batches; batch_key='%s' removes their effects", key, len(sizes), key)
                return
