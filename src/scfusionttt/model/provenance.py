"""Where a model comes from: the commands that made it, and which cells taught it labels."""

import base64
import platform
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Origin:
    """What a model remembers of its making.

    Attributes
    ----------
    commands
        Command lines, in the order of the stages; empty where it was made in Python.
    taught
        Checksums (CRC-32) of the names of the cells whose labels it learned, ascending uint32; None: not known, as in
        models of older versions.
    versions
        Of the libraries it was written with.
    """

    commands: tuple[str, ...] = ()
    taught: NDArray[np.uint32] | None = None
    versions: Mapping[str, str] | None = None

    def with_cells(self, names: Iterable[object]) -> "Origin":
        """Return the same after learning the labels of these cells too."""
        if self.taught is None:
            return self
        return replace(self, taught=np.union1d(self.taught, checksums(names)))

    def learned(self, names: Iterable[object]) -> NDArray[np.bool_] | None:
        """Tell which cells, by name, it learned the labels of, [n]; None where that is not known."""
        return None if self.taught is None else np.isin(checksums(names), self.taught)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest, with the versions of now."""
        taught = None if self.taught is None else base64.b64encode(self.taught.astype("<u4").tobytes()).decode()
        return {"commands": list(self.commands), "taught": taught, "versions": versions()}

    @classmethod
    def from_dict(cls, manifest: Mapping[str, Any]) -> "Origin":
        """Build from a manifest; older ones lack some of it."""
        text = manifest.get("taught")
        taught = None if text is None else np.frombuffer(base64.b64decode(text, validate=True), dtype="<u4")
        return cls(tuple(map(str, manifest.get("commands", ()))), taught, dict(manifest.get("versions", {})))


def checksums(names: Iterable[object]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each name, [n]: two of 10,000 cells share one in one of a hundred data sets."""
    return np.array([zlib.crc32(str(name).encode("utf-8", "surrogatepass")) for name in names], dtype=np.uint32)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("scfusionttt", "torch", "numpy", "anndata")
    }
