"""The cells that a user gives to a model, checked."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias, Unpack

import numpy as np
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.assemble import CountOptions, assemble
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.findings import raise_or_warn, require_usable
from scfusionttt.data.store.stored import StoredCiteSeq
from scfusionttt.data.validate import check
from scfusionttt.data.validate import drop_empty as without_empty
from scfusionttt.errors import InputDataError, SettingError, name_some
from scfusionttt.fitting.placement import FEWEST_CELLS
from scfusionttt.model.scvi_names import ARGUMENTS

log = logging.getLogger("scfusionttt")

Data: TypeAlias = "AnnData | MuData | CiteSeq"


class InputOptions(CountOptions, total=False):
    """How to read AnnData or MuData; every method of FusionTTT that takes data takes these keyword arguments."""

    #: Leave out cells without RNA counts instead of refusing the input.
    drop_empty: bool


def check_cells(
    data: Data, *, training: bool = False, drop_empty: bool = False, **options: Unpack[CountOptions]
) -> CiteSeq:
    """Return the raw counts of RNA and proteins, checked.

    Parameters
    ----------
    training
        Also log warnings that matter when a model is trained on the cells.
    drop_empty, **options
        See :class:`InputOptions`.

    Raises
    ------
    InputDataError
        The cells cannot be used.
    SettingError
        An option was given for a store or a CiteSeq, for which it has no effect.
    """
    for name in options.keys() - CountOptions.__annotations__.keys():
        known = ", ".join([*CountOptions.__annotations__, "drop_empty"])
        raise SettingError(f"there is no argument {name!r}; use {ARGUMENTS.get(name, f'one of {known}')}")
    if isinstance(data, StoredCiteSeq):  # checked when it was written
        require_no_options({**options, "drop_empty": drop_empty}, "a store")
        return data
    if isinstance(data, CiteSeq):
        require_no_options(options, "a CiteSeq")
    cite, notes = assemble(data, **options)
    raise_or_warn(notes)
    if cite.findings is None:
        if drop_empty:
            cite, dropped = without_empty(cite)
            if dropped:
                log.info("left out %d cells without RNA counts: %s", len(dropped), name_some(dropped, most=10))
        cite = replace(cite, findings=tuple(check(cite)))
    findings = cite.findings or ()
    require_usable(findings)
    for finding in findings:
        if training and finding.severity == "warning":
            log.warning("warning: %s", finding)
    return cite


def require_no_options(options: Mapping[str, object], what: str) -> None:
    """Refuse options that differ from their defaults for an input on which they have no effect."""
    given = [f"{name}={value!r}" for name, value in options.items() if value not in (None, False, "same")]
    if given:
        remedy = "set it when the store is written" if what == "a store" else "give AnnData or MuData"
        raise SettingError(f"{' and '.join(given)} cannot be used with {what}; {remedy}")


def cells_to_learn_from(cite: CiteSeq, *, place: bool = False) -> CiteSeq:
    """Return the cells with RNA, which alone are trained on, and log how many others there are.

    Raises
    ------
    InputDataError
        There are none or, with `place`, too few with proteins as well to learn from where the others lie.
    """
    cells = cite.with_rna()
    n_others = cite.rna.n_obs - cells.rna.n_obs
    if not n_others:
        return cite
    if not cells.rna.n_obs:
        raise InputDataError("no cell has RNA, and proteins alone cannot be trained on; add cells with both")
    assert cells.protein is not None
    n_both = int((~np.isnan(cells.protein.X)).any(axis=1).sum())
    if place and n_both < FEWEST_CELLS:
        raise InputDataError(
            f"{n_both} cells have both RNA and proteins, too few to place the {n_others} cells without RNA "
            f"(at least {FEWEST_CELLS}); leave these out with cells='rna'"
        )
    log.info("%d cells without RNA are not trained on", n_others)
    return cells


@contextmanager
def each_line_once() -> Iterator[None]:
    """Log each message once, although several steps log it for the same cells."""
    logged: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = len(logged)
        logged.add(record.getMessage())
        return len(logged) > known

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)
