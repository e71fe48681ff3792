"""A lock on the folder of a run, so that two runs do not write one model."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scfusionttt.errors import OutputError, SettingError

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created.

    The operating system releases the lock of a process that is killed, so that no lock outlives its run. At the end
    the folder is removed if nothing else is in it.

    Raises
    ------
    SettingError
        A running process has the lock.
    OutputError
        The folder cannot be created.
    """
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / LOCK).open("a+b", buffering=0)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another name for --out") from error
    with file:
        if not _take(file.fileno()):
            file.seek(0)
            owner = file.read().decode(errors="replace").strip() or "another process"
            raise SettingError(f"{folder} is in use by {owner}: wait until it ends, or choose another name for --out")
        with suppress(OSError):  # on a full disk the lock holds without its owner's name
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _take(descriptor: int) -> bool:
    """Return whether the lock is now this process's; also where the system or the disk has no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True
