"""Every error that is the user's to mend.

Each message is one line that names what is at fault (file, cells, genes, key) and says what to do.
The command line prints it on stderr and exits with 2.
"""

from collections.abc import Sequence


class UserError(Exception):
    """The input or the call is at fault; the message names the cause and the remedy."""


class InputFileError(UserError):
    """A file is missing, truncated or of a kind that is not read."""


class InputDataError(UserError):
    """The counts, cells or modalities of an input cannot be used as they are."""


class FeatureError(UserError):
    """Genes or proteins do not resolve, or do not match the model's."""


class LabelError(UserError):
    """A label key or its values cannot be used."""


class SettingError(UserError):
    """A setting does not exist or has a value that makes no sense."""


class ModelFolderError(UserError):
    """A model folder is incomplete, damaged or from a newer format."""


class OutputError(UserError):
    """A result cannot be written where it was asked for."""


class DownloadError(UserError):
    """A public data set cannot be downloaded, or its content is not the expected one."""


class NonFiniteLossError(UserError):
    """Training met a loss that is NaN or infinite."""


class LostRankError(UserError):
    """Another process of the same run is gone: killed, out of memory, or its machine is."""


def name_some(names: Sequence[object], most: int = 3) -> str:
    """Return the first few names and how many more there are, for an error message."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
