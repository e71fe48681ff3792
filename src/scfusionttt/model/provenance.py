"""Where a model comes from: the commands that made it, and the cells whose labels it was trained on."""

import base64
import platform
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Two runs share barcodes by chance: of 20,000 cells with 737,280 possible ones, 2.7 %.
BY_CHANCE = 0.03


@dataclass(frozen=True)
class Provenance:
    """How a model was made.

    Attributes
    ----------
    commands
        Command lines, in the order of the stages; empty if it was made in Python.
    labelled_cells
        Checksums (CRC-32) of the names of the cells whose labels it was trained on, ascending uint32; None: not
        recorded, as in models of older versions.
    versions
        Versions of the libraries that wrote it.
    """

    commands: tuple[str, ...] = ()
    labelled_cells: NDArray[np.uint32] | None = None
    versions: Mapping[str, str] | None = None

    @classmethod
    def untrained(cls) -> Self:
        """Return the provenance of a model that has seen no labels."""
        return cls(labelled_cells=np.array([], dtype=np.uint32))

    def with_command(self, command: str) -> Self:
        """Return a copy with one more command."""
        return replace(self, commands=(*self.commands, command))

    def with_cells(self, names: Iterable[object]) -> Self:
        """Return a copy with more cells whose labels were trained on.

        A store names cells ``file:cell`` where files share names; they are recorded without the file, too.
        """
        if self.labelled_cells is None:
            return self
        names = list(names)
        both = checksums([*names, *map(_own_name, names)])
        return replace(self, labelled_cells=np.union1d(self.labelled_cells, both))

    def learned(self, names: Iterable[object]) -> NDArray[np.bool_] | None:
        """Return which of these cells, by name, the model was trained on with labels, bool [n]; None if not recorded.

        If hardly any names agree, as may be by chance, the result is none of the cells. Names of cells in a store are
        compared in full first, and then without the name of the file.
        """
        if self.labelled_cells is None:
            return None
        names = list(names)
        for each in (names, map(_own_name, names)):
            learned = np.isin(checksums(each), self.labelled_cells)
            if learned.sum() >= BY_CHANCE * min(len(names), len(self.labelled_cells)):
                return learned
        return np.zeros(len(names), dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest, with the versions installed now."""
        taught = (
            None
            if self.labelled_cells is None
            else base64.b64encode(self.labelled_cells.astype("<u4").tobytes()).decode()
        )
        return {"commands": list(self.commands), "taught": taught, "versions": versions()}

    @classmethod
    def from_dict(cls, manifest: Mapping[str, Any]) -> Self:
        """Read it from a manifest; older ones lack some keys."""
        text = manifest.get("taught")
        taught = None if text is None else np.frombuffer(base64.b64decode(text, validate=True), dtype="<u4")
        return cls(tuple(map(str, manifest.get("commands", ()))), taught, dict(manifest.get("versions", {})))


def _own_name(name: object) -> str:
    """Return the name of a cell without that of its file in a store."""
    return str(name).partition(":")[2] or str(name)


def checksums(names: Iterable[object]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each name, [n]; two of 10,000 names collide in about 1 % of data sets."""
    return np.array([zlib.crc32(str(name).encode("utf-8", "surrogatepass")) for name in names], dtype=np.uint32)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("scfusionttt", "torch", "numpy", "anndata")
    }
