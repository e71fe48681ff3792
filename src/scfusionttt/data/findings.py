"""Errors, warnings and notes about an input."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scfusionttt.errors import InputDataError, name_some


@dataclass(frozen=True)
class Finding:
    """One error, warning or note about an input.

    Attributes
    ----------
    severity
        ``error``: the input cannot be used as it is; ``warning``: it can, but should be looked at; ``note``: for
        information.
    code
        Stable name for programs, such as ``empty_cells``.
    message, remedy
        One line each: what was found, and what to do about it.
    names
        All cells or features concerned (the message names the first few).
    """

    severity: Literal["error", "warning", "note"]
    code: str
    message: str
    remedy: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values for JSON."""
        return asdict(self) | {"names": list(self.names)}


def require_usable(findings: Iterable[Finding]) -> None:
    """Raise the first error as InputDataError."""
    for finding in findings:
        if finding.severity == "error":
            raise InputDataError(str(finding))


def raise_or_warn(findings: Iterable[Finding]) -> None:
    """Raise the first error as InputDataError, and issue the warnings before it."""
    for finding in findings:
        if finding.severity == "error":
            raise InputDataError(str(finding))
        if finding.severity == "warning":
            warnings.warn(str(finding), stacklevel=3)


def named(names: Any, noun: str) -> str:
    """Return ``3 cells (a, b, c)``, ``1 gene (a)`` or ``9 cells (a, b, c and 6 more)``."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({name_some(names)})"
