"""Hashes of what decides a result, so that a stored result is reused only if it would come out the same."""

import hashlib
from functools import cache
from pathlib import Path

import scfusionttt

_PACKAGE = Path(scfusionttt.__file__).parent
#: What only shows results; changing it leaves them as they are.
_PRESENTATION = ("cli", "plotting", "report", "demo.py", "doctor.py", "datasets.py", "__main__.py")


@cache
def code_version() -> str:
    """Return the version of the package and a hash of its source files, such as ``0.2.0+1f3870be274f6c49``."""
    files = (path.relative_to(_PACKAGE) for path in _PACKAGE.rglob("*") if path.is_file())
    sources = sorted(path for path in files if path.parts[0] not in _PRESENTATION and "__pycache__" not in path.parts)
    text = "\n".join(f"{path.as_posix()} {file_hash(_PACKAGE / path)}" for path in sources)
    return f"{scfusionttt.__version__}+{short_hash(text.encode())}"


def file_hash(path: str | Path | None) -> str | None:
    """Return a hash of a file's content; None without a file or if it cannot be read."""
    try:
        return None if path is None else short_hash(Path(path).read_bytes())
    except OSError:
        return None


def short_hash(data: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:16]
