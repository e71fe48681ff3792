"""Writing so that a full disk or a kill leaves the earlier result whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scfusionttt.errors import OutputError

_FULL = "No space left on device"


def never(folder: Path) -> bool:
    """Return that no folder with things in it may be written over."""
    return False


@contextmanager
def replacing(path: str | Path, *, ours: Callable[[Path], bool] = never) -> Iterator[Path]:
    """Give a temporary path of the same name to write a file or a folder to; move it into place once it is whole.

    Parameters
    ----------
    path
        Where the result shall be. Only a clean end of the block touches it.
    ours
        Whether a folder with things in it is an earlier result of this kind, and may go.

    Yields
    ------
    Path
        A path that does not exist yet, in a hidden folder beside the target (the same file system).

    Raises
    ------
    OutputError
        The folder is missing or cannot be written, the disk is full, or a folder stands there that is not ours.
    """
    target = Path(path).resolve()  # through a symbolic link, so that the link stays
    try:
        check_target(target, ours=ours)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield hidden / target.name
            _move(hidden / target.name, target, aside=hidden / "earlier")
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _FULL not in str(error):  # h5py tells of a full disk by either
            raise
        raise OutputError(f"{path} was not written: {_reason(error)}; nothing there was changed") from error


def check_target(path: str | Path, *, folder: bool | None = None, ours: Callable[[Path], bool] = never) -> None:
    """Raise OutputError where `replacing` would: before the work rather than after it.

    `folder` says whether a folder or a file will be written: neither takes the place of the other.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise OutputError(f"{path}: the folder {target.parent} does not exist; make it, or choose another")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: no permission to write in {target.parent}")
    if target.is_dir() and any(target.iterdir()) and not ours(target):
        raise OutputError(f"{target} is a folder with other things in it; it is left alone: choose another name")
    if folder is not None and target.exists() and target.is_dir() != folder:
        kinds = ("folder", "file") if target.is_dir() else ("file", "folder")
        raise OutputError(f"{target} is a {kinds[0]} and is left alone: choose another name for the {kinds[1]}")


def _move(new: Path, target: Path, *, aside: Path) -> None:
    if not target.is_dir():
        new.replace(target)
        return
    if not new.is_dir():
        raise OutputError(f"{target} is a folder; choose another name for the file")
    target.replace(aside)  # a folder with content cannot be replaced in one step
    try:
        new.replace(target)
    except BaseException:  # a signal too: what stands aside is removed on the way out
        if not target.exists():
            aside.replace(target)
        raise


def _reason(error: Exception) -> str:
    if _FULL in str(error) or " requested and " in str(error):  # the second is how NumPy tells of it
        return "the disk is full"
    if isinstance(error, PermissionError):
        return "no permission to write there"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]
