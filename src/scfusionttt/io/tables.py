"""Tables from and to files, and checks of output paths before the work."""

from pathlib import Path

import pandas as pd

from scfusionttt.errors import InputFileError, OutputError, name_some
from scfusionttt.io.atomic import check_target, replacing

TABLE_ENDINGS = (".csv", ".tsv")
PAGE_ENDINGS = (".html", ".htm")
JSON_ENDINGS = (".json",)


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as ``.csv`` or ``.tsv``, with its index as the first column.

    Booleans are written as TRUE and FALSE, which R and pandas read as such; R reads True and False as text.
    """
    words = {True: "TRUE", False: "FALSE"}
    table = table.apply(lambda column: column.map(words) if pd.api.types.is_bool_dtype(column) else column)
    separator = "\t" if checked_ending(path, TABLE_ENDINGS) == ".tsv" else ","
    with replacing(path) as temporary:
        table.to_csv(temporary, sep=separator)


def read_map(path: str | Path, columns: tuple[str, str]) -> dict[str, str]:
    """Read two columns of a ``.csv`` or ``.tsv`` file as text, the first as keys.

    Raises
    ------
    InputFileError
        The file cannot be read, lacks one of the columns, or has two values for a key.
    """
    try:
        separator = "\t" if Path(path).suffix.lower() == ".tsv" else ","
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read as a table ({error})") from error
    if not set(columns) <= set(table):
        found = ", ".join(map(str, table.columns)) or "none"
        raise InputFileError(f"{path}: the first line must name the columns {' and '.join(columns)} (found: {found})")
    pairs = table[[*columns]].apply(lambda column: column.str.strip()).drop_duplicates()
    if (repeated := pairs[columns[0]].duplicated()).any():
        several = pairs.loc[repeated, columns[0]].unique()
        raise InputFileError(f"{path}: keep one {columns[1]} for each {columns[0]}; several: {name_some(several)}")
    return dict(zip(pairs[columns[0]], pairs[columns[1]]))


def check_file_path(path: str | Path, endings: tuple[str, ...]) -> None:
    """Raise OutputError, before the work, if a file with one of these endings cannot be written to `path`."""
    checked_ending(path, endings)
    check_target(path, folder=False)


def checked_ending(path: str | Path, supported: tuple[str, ...]) -> str:
    """Return the ending of a file name in lower case; an OutputError lists the supported ones."""
    ending = Path(path).suffix.lower()
    if ending not in supported:
        raise OutputError(f"{path}: the ending '{ending}' is not supported; use {', '.join(supported)}")
    return ending
