"""Where genes stand when a genome is drawn as one line, each gene taking the same width."""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SCAFFOLDS = "scaffolds"
UNPLACED = "unplaced"
_SPECIAL = {"X": 0, "Y": 1, "Z": 2, "W": 3, "MT": 4}


class Track:
    """Genes laid out one after another by chromosome and start.

    Attributes
    ----------
    order
        [g], sorts the genes given; those without a chromosome come last, as `unplaced`.
    parity
        [g], in that order: 0 or 1, changing from chromosome to chromosome.
    bands
        (chromosome, first, end) of each chromosome, as places along the track.
    size
        Its width: the number of genes.
    """

    def __init__(self, genes: pd.DataFrame) -> None:
        chromosome = _chromosome(genes["chromosome"])
        present = sorted(set(chromosome), key=_karyotypic)
        rank = pd.Index(present, dtype=object).get_indexer(pd.Index(chromosome, dtype=object))
        start = _start(genes["start"])
        self.order = np.lexsort((start, rank))
        self.parity = rank[self.order] % 2
        self.size = len(genes)
        edges = np.searchsorted(rank[self.order], np.arange(len(present) + 1))
        self.bands = [(name, int(a), int(b)) for name, a, b in zip(present, edges, edges[1:])]
        self._starts = start[self.order]

    def locate(self, features: pd.DataFrame) -> NDArray[np.float64]:
        """Return where other features lie, [p]; what lies on no chromosome of this track stands at its end."""
        bands = {name: (a, b) for name, a, b in self.bands}
        places = []
        for name, start in zip(_chromosome(features["chromosome"]), _start(features["start"])):
            a, b = bands.get(name, (self.size, self.size))
            places.append(a + np.searchsorted(self._starts[a:b], start) + 0.5)
        return np.clip(np.array(places, dtype=float), 0.5, max(self.size - 0.5, 0.5))


def _start(column: pd.Series) -> NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.inf)


def _chromosome(column: pd.Series) -> list[str]:
    text = (
        column.astype(object).where(column.notna(), "").map(str).str.strip().str.removeprefix("chr").replace("M", "MT")
    )
    return [(name if _is_chromosome(name) else SCAFFOLDS) if name else UNPLACED for name in text]


def _is_chromosome(name: str) -> bool:
    """Tell 1, 2L and MT from a scaffold such as KI270711.1 or CHR_HSCHR6_MHC_COX_CTG1."""
    return name in _SPECIAL or re.fullmatch(r"[0-9]{1,2}[A-Za-z]?", name) is not None


def _karyotypic(name: str) -> tuple[int, int, str]:
    """Sort key: 1, 2, ..., X, Y, MT, scaffolds, unplaced."""
    if number := re.match(r"[0-9]+", name):
        return 0, int(number[0]), name
    return (1, _SPECIAL[name], name) if name in _SPECIAL else (2, int(name == UNPLACED), name)
