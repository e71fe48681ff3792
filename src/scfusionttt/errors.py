"""Errors that the user can fix.

Each message is one line that names the cause (file, cells, genes, key) and says what to do. The command line prints it
on stderr and exits with 2.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any


class UserError(Exception):
    """The input or the call is invalid; the message names the cause and the remedy."""


class InputFileError(UserError):
    """A file is missing, truncated or of an unsupported kind."""


class InputDataError(UserError):
    """The counts, cells or modalities of an input cannot be used."""


class FeatureError(UserError):
    """Genes or proteins cannot be resolved, or do not match those of the model."""


class LabelError(UserError):
    """A label key or its values cannot be used."""


class SettingError(UserError):
    """A setting does not exist or has an invalid value."""


class ModelFolderError(UserError):
    """A model folder is incomplete, damaged or from a newer format."""


class OutputError(UserError):
    """A result cannot be written to the given path."""


class DownloadError(UserError):
    """A public data set cannot be downloaded, or its content is not the expected one."""


class NotInstalledError(SettingError):
    """What was asked for needs software that is not installed."""


class NonFiniteLossError(UserError):
    """The training loss is NaN or infinite."""


class LostRankError(UserError):
    """Another process of the same run is gone: killed, out of memory, or its machine is."""


def require(condition: bool, message: str) -> None:
    """Raise SettingError unless `condition` is true."""
    if not condition:
        raise SettingError(message)


def require_fraction(name: str, value: Any, *, example: float) -> None:
    """Raise SettingError unless the value of a setting is a number between 0 and 1, both excluded."""
    is_fraction = isinstance(value, Real) and 0 < float(value) < 1
    require(is_fraction, f"{name} must be between 0 and 1 (got {value!r}), e.g. {example}")


def missing_extra(extra: str, purpose: str) -> NotInstalledError:
    """Return the error for libraries of an extra of the package that are missing; `purpose` says what needs which."""
    return NotInstalledError(f"{purpose}; pip install 'scfusionttt[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def name_some(names: Sequence[object], most: int = 3) -> str:
    """Return the first few names and how many more there are, for an error message."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
