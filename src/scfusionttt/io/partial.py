"""Read AnnData and MuData without the parts that the installed packages do not support."""

import warnings
from pathlib import Path
from typing import Any

from anndata import AnnData
from anndata.io import read_elem
from mudata import MuData

from scfusionttt.errors import first_line

#: Mappings whose entries can be left out. Not layers: another one would be taken for the counts.
_OPTIONAL = ("uns", "obsm", "varm", "obsp", "varp")
_UNSUPPORTED = ("No read method registered", "No Zarr data type found", "codec not available")


def is_unsupported(error: Exception) -> bool:
    """Return whether a part cannot be read because of the installation, not because it is damaged."""
    text = str(error)
    return isinstance(error, ImportError) or (any(word in text for word in _UNSUPPORTED) and "pickle" not in text)


def read_supported(path: Path, group: Any) -> AnnData | MuData:
    """Read an HDF5 or Zarr group of either kind; entries that are not supported are left out with a warning."""
    left_out: list[str] = []
    data = _mudata(group, left_out) if "mod" in group else _anndata(group, "", left_out)
    if left_out:
        warnings.warn(f"{path}: left out {', '.join(left_out)}; the installed packages cannot read it", stacklevel=2)
    return data


def raw_of(group: Any) -> dict[str, Any]:
    """Return the elements of ``.raw`` of an AnnData group; empty if it has none."""
    return {key: read_elem(group["raw"][key]) for key in ("X", "var", "varm") if f"raw/{key}" in group}


def modality_names(group: Any) -> list[str]:
    """Return the names of the modalities of a MuData group, in their order."""
    names = group["mod"].attrs.get("mod-order")
    return [str(name) for name in (group["mod"] if names is None else names)]


def _mudata(group: Any, left_out: list[str]) -> MuData:
    parts = {name: _anndata(group["mod"][name], f"{name}: ", left_out) for name in modality_names(group)}
    axis = {"axis": int(group.attrs["axis"])} if "axis" in group.attrs else {}
    return MuData(parts, **_elements(group, "", left_out), **axis)


def _anndata(group: Any, prefix: str, left_out: list[str]) -> AnnData:
    return AnnData(**_elements(group, prefix, left_out), raw=raw_of(group) or None)


def _elements(group: Any, prefix: str, left_out: list[str]) -> dict[str, Any]:
    """Return the elements of a group except modalities and ``.raw``, and add to `left_out` what is not supported."""
    elements: dict[str, Any] = {}
    for slot in group:
        if slot in _OPTIONAL:
            elements[slot] = {}
            for key in group[slot]:
                try:
                    elements[slot][key] = read_elem(group[slot][key])
                except Exception as error:
                    if not is_unsupported(error):
                        raise
                    left_out.append(f"{prefix}{slot}['{key}'] ({first_line(error)})")
        elif slot not in ("mod", "raw"):
            elements[slot] = read_elem(group[slot])
    return elements
