"""A command that is stopped by a signal: exit codes, and how to continue."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERRUPTED, TERMINATED = 130, 143


class Stopped(BaseException):
    """A signal was received: Ctrl+C, or SIGTERM at the time limit of a cluster or a shutdown.

    Attributes
    ----------
    code
        Exit code.
    resumable
        Whether a checkpoint was saved from which ``--resume`` continues.
    """

    def __init__(self, code: int, *, resumable: bool = False) -> None:
        self.code, self.resumable = code, resumable


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Note on a signal whether the folder of the run has a checkpoint."""
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        code = stop.code if isinstance(stop, Stopped) else INTERRUPTED
        raise Stopped(code, resumable=has_checkpoint(folder)) from stop


def has_checkpoint(folder: Path) -> bool:
    """Return whether ``--resume`` has something to continue; until the first epoch ends, there is only the identity."""
    return any(folder.glob("*.ckpt"))
