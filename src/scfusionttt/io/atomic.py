"""Atomic writing: a full disk or a killed process leaves the earlier result intact."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scfusionttt.errors import OutputError

_FULL = "No space left on device"


def never(folder: Path) -> bool:
    """Return False: no folder with content may be overwritten."""
    return False


@contextmanager
def replacing(path: str | Path, *, ours: Callable[[Path], bool] = never) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder, which is moved to `path` once complete.

    Parameters
    ----------
    path
        Path of the result, which changes only if the block ends without an error.
    ours
        Function that returns whether a folder with content is an earlier result of this kind and may be replaced.

    Yields
    ------
    Path
        A path that does not exist yet, in a hidden folder next to the target (on the same file system).

    Raises
    ------
    OutputError
        The folder is missing or read-only, the disk is full, or `path` is a folder with other content.
    """
    target = Path(path).resolve()  # follows a symbolic link, which is kept
    try:
        _check_kind(target, ours=ours)
        hidden = _hidden_folder(target)
        try:
            yield hidden / target.name
            _move(hidden / target.name, target, aside=hidden / "earlier")
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _FULL not in str(error):  # h5py reports a full disk by either
            raise
        raise OutputError(f"{path} was not written: {_reason(error)}; nothing was changed") from error


def check_target(path: str | Path, *, folder: bool, ours: Callable[[Path], bool] = never) -> None:
    """Raise OutputError, before the work, if `replacing` would fail.

    `folder` is True if a folder will be written and False for a file; neither replaces the other.
    """
    target = Path(path).resolve()
    try:
        _check_kind(target, folder=folder, ours=ours)
        _hidden_folder(target).rmdir()  # a read-only disk, or a name that is too long with the temporary ending
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_reason(error)}; choose another name or folder") from error


def _check_kind(target: Path, *, folder: bool | None = None, ours: Callable[[Path], bool]) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it or choose another")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target} cannot be written: no permission to write in {target.parent}")
    if target.is_dir() and any(target.iterdir()) and not ours(target):
        raise OutputError(f"{target} is a folder with other content and is not overwritten; choose another name")
    if folder is not None and target.exists() and target.is_dir() != folder:
        kinds = ("folder", "file") if target.is_dir() else ("file", "folder")
        raise OutputError(f"{target} is a {kinds[0]} and is not overwritten; choose another name for the {kinds[1]}")


def _hidden_folder(target: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))


def _move(new: Path, target: Path, *, aside: Path) -> None:
    if not target.is_dir():
        new.replace(target)
        return
    if not new.is_dir():
        raise OutputError(f"{target} is a folder; choose another name for the file")
    try:
        target.replace(aside)  # a folder with content cannot be replaced in one step
        new.replace(target)
    except BaseException:  # including signals, also at the end of the first step: the folder aside is removed on exit
        if not target.exists():
            aside.replace(target)
        raise


def _reason(error: Exception) -> str:
    if _FULL in str(error) or " requested and " in str(error):  # the second is NumPy's message
        return "the disk is full"
    if isinstance(error, PermissionError):
        return "no permission to write to it"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]
