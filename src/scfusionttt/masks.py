"""Masks of the cells in which features were measured."""

from collections.abc import Iterator

import numpy as np


def measured_together(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each distinct column of a mask [n, f], and the numbers of the features that have it."""
    groups: dict[bytes, list[int]] = {}
    for feature, column in enumerate(mask.T):
        groups.setdefault(column.tobytes(), []).append(feature)
    for features in groups.values():
        yield mask[:, features[0]], np.array(features)
