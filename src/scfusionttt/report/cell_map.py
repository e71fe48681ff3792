"""The interactive map of a report: compressed coordinates and values, drawn by ``templates/cell_map.js``."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike, NDArray

from scfusionttt.errors import InputDataError
from scfusionttt.labels import class_names, label_names
from scfusionttt.plotting.figures.style import class_colours, encode_labels, natural_key, shorten_all

#: Values are quantised to the levels 0 to 254; this level means "not measured".
_MISSING = 255
#: What cells without a class are called, by the heading of the classes.
_ABSENT = {"batch": "no batch", "quality": "not flagged"}
#: Number of colours in the colour bar.
_RAMP = 32


@dataclass(frozen=True)
class Values:
    """Numeric values to colour cells by, under one heading.

    Attributes
    ----------
    heading
        Kind of the values: ``protein``, ``gene`` or ``cell``.
    unit
        Unit of the values.
    table
        Values [n, features], NaN if not measured; the columns are the names of the features.
    other_names
        Other names of a feature, by which it can be found.
    """

    heading: str
    unit: str
    table: pd.DataFrame
    other_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class CellMap:
    """Cells in two dimensions, which the reader can colour, search and select.

    Attributes
    ----------
    coords
        Coordinates [n, 2]; cells with a non-finite coordinate are left out.
    cells
        Names of the cells [n].
    categories
        Classes [n] by name, such as clusters; the map opens with the first.
    values
        Numeric values to colour by.
    caption
        Description of the map.
    headings
        Kind of each category, by its name, to group them; "class" by default. In a "batch", "unknown" and "none" are
        classes, as in training, and in an "obs column" that has at most one other, as those of a treatment.
    alike
        Names of the categories in which a class has the same colour.
    absent
        Shown to a reader who searches for a gene that is not on the page.
    """

    coords: ArrayLike
    cells: Sequence[str]
    categories: Mapping[str, ArrayLike | pd.Series]
    values: Sequence[Values] = ()
    caption: str = ""
    headings: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[str] = ()
    absent: str = ""

    def __post_init__(self) -> None:
        columns = [self.coords, *self.categories.values(), *(group.table for group in self.values)]
        if {len(np.asarray(column)) for column in columns} != {len(self.cells)}:
            raise InputDataError("the coordinates, classes and values of a map must have one entry per cell")

    @property
    def payload(self) -> str:
        """Data for the script as JSON, escaped so that it cannot close its script element."""
        return json.dumps(self._packed(), separators=(",", ":")).replace("<", "\\u003c")

    def _packed(self) -> dict[str, Any]:
        xy = np.asarray(self.coords, dtype=float)
        shown = np.isfinite(xy).all(axis=1)
        low, span = (xy[shown].min(axis=0), np.ptp(xy[shown], axis=0)) if shown.any() else (np.zeros(2), np.zeros(2))
        places = (xy[shown] - low) / (span.max() or 1.0) * 65535
        alike = {one for name in self.alike for one in encode_labels(self.categories[name])[1]}
        colours = class_colours(sorted(alike, key=natural_key))
        names = "\n".join(" ".join(str(name).split()) for name, kept in zip(self.cells, shown) if kept)
        return {
            "n": int(shown.sum()),
            "places": _pack(places.T.round().astype("<u2")),  # x of all cells, then y
            "cells": _deflate(names.encode("utf-8", "replace")),
            "categories": [
                _category(name, labels, shown, colours if name in self.alike else {}, self.headings.get(name, "class"))
                for name, labels in self.categories.items()
            ],
            "values": [
                _values(str(name), group, column.to_numpy(dtype=float)[shown])
                for group in self.values
                for name, column in group.table.items()
            ],
            "absent": self.absent,
            "ramp": [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, _RAMP))],
        }


def _category(
    name: str, labels: ArrayLike | pd.Series, shown: NDArray[np.bool_], colours: Mapping[str, str], heading: str
) -> dict[str, Any]:
    is_class = heading == "batch" or (heading == "obs column" and len(set(label_names(labels)) - {""}) < 2)
    codes, classes = encode_labels(labels, class_names if is_class else label_names)
    colours = class_colours(classes, colours)
    kept = codes[shown]
    return {
        "heading": heading,
        "name": name,
        "absent": _ABSENT.get(heading, "not labelled"),
        "classes": shorten_all(classes, 60),
        "colours": [colours[one] for one in classes],
        "codes": _pack(np.where(kept < 0, len(classes), kept).astype("<u2")),
    }


def _values(name: str, group: Values, values: NDArray[np.float64]) -> dict[str, Any]:
    """Quantise to 255 levels between minimum and maximum; colours span the 1st to the 99th percentile."""
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    shown = np.percentile(values[known], [1, 99]) if known.any() else np.zeros(2)
    if shown[0] == shown[1]:  # a gene that almost no cell expresses
        shown = np.array([low, high])
    levels = (np.where(known, values, low) - low) / ((high - low) or 1.0) * (_MISSING - 1)
    packed = np.where(known, levels.round(), _MISSING).astype(np.uint8)
    limits = {"low": low, "high": high, "from": float(shown[0]), "to": float(shown[1])}
    names = {"name": name, "also": list(group.other_names.get(name, ()))}
    return {**names, "heading": group.heading, "unit": group.unit, **limits, "levels": _pack(packed)}


def _pack(numbers: NDArray) -> str:
    return _deflate(np.ascontiguousarray(numbers).tobytes())


def _deflate(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()
