"""Where genes stand when a genome is drawn as one line, each gene taking the same width."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scfusionttt.genome.chromosomes import is_main, karyotypic_rank, plain_names

SCAFFOLDS = "scaffolds"
UNPLACED = "unplaced"


class Track:
    """Genes laid out one after another by chromosome and start.

    Attributes
    ----------
    order
        [g], sorts the genes given; those without a chromosome come last, as `unplaced`.
    parity
        [g], in that order: 0 or 1, changing from chromosome to chromosome.
    chromosome
        [g], plain name of each gene's chromosome, `scaffolds` or `unplaced`, as given.
    bands
        (chromosome, first, end) of each chromosome, as places along the track.
    size
        Its width: the number of genes.
    """

    def __init__(self, genes: pd.DataFrame) -> None:
        chromosome = self.chromosome = _chromosome(genes["chromosome"])
        names = chromosome.drop_duplicates()
        present = names.iloc[np.argsort(karyotypic_rank(names), kind="stable")].tolist()
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


def _chromosome(column: pd.Series) -> pd.Series:
    """Return the plain name of each chromosome; contigs are one, and so is what has no place."""
    text = column.astype(object).where(column.notna(), "").map(str).str.strip()
    names = plain_names(text)
    return names.where(is_main(names), SCAFFOLDS).where(text != "", UNPLACED)
