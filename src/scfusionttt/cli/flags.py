"""Messages of the library in the words of the command line."""

import logging
import re
from functools import cache

#: Not part of a longer name, a path or a column: obs['labels_key'].
_ALONE = r"(?<![\w.\-'\"/\[])"
_VALUE = r"(?P<quote>['\"]?)(?P<value>[\w.%\-]+)(?P=quote)"


class FlagFormatter(logging.Formatter):
    """Format log records with flags in place of Python arguments."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        return with_flags(super().format(record))


def with_flags(message: str) -> str:
    """Replace the names of Python arguments: ``train_fraction`` by ``--train-fraction``, ``cells='rna'`` by its flag.

    A name without an underscore could be a plain word, and is replaced only where it has a value.
    """
    for name, flag in _flags().items():
        message = re.sub(rf"{_ALONE}{name}=True\b", flag, message)
        message = re.sub(rf"{_ALONE}{name}={_VALUE}", rf"{flag} \g<value>", message)
        if "_" in name:
            message = re.sub(rf"{_ALONE}{name}\b(?!=)", flag, message)
    return message


@cache
def _flags() -> dict[str, str]:
    """Return the flag of each Python argument."""
    from typer.main import get_command

    from scfusionttt.cli import app

    verbs = get_command(app).commands.values()  # type: ignore[attr-defined]
    return {str(option.name): option.opts[0] for verb in verbs for option in verb.params if "--" in option.opts[0]}
