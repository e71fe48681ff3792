"""Layout of a genome along one axis on which all genes have the same width."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scfusionttt.genome.chromosomes import is_main, karyotypic_rank, plain_names

SCAFFOLDS = "scaffolds"
UNPLACED = "unplaced"


class Track:
    """Positions of genes, ordered by chromosome and start.

    Attributes
    ----------
    order
        Indices [g] that sort the genes; those without a chromosome come last, as `unplaced`.
    parity
        0 or 1 [g] in that order, alternating between chromosomes.
    chromosome
        Plain name of the chromosome of each gene [g], `scaffolds` or `unplaced`, in the given order.
    bands
        (chromosome, start, end) of each chromosome, as positions along the track.
    size
        Width of the track: the number of genes.
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
        """Return the positions of other features [p]; features on none of the chromosomes are placed at the end."""
        bands = {name: (a, b) for name, a, b in self.bands}
        places = []
        for name, start in zip(_chromosome(features["chromosome"]), _start(features["start"])):
            a, b = bands.get(name, (self.size, self.size))
            places.append(a + np.searchsorted(self._starts[a:b], start) + 0.5)
        return np.clip(np.array(places, dtype=float), 0.5, max(self.size - 0.5, 0.5))


def _start(column: pd.Series) -> NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.inf)


def _chromosome(column: pd.Series) -> pd.Series:
    """Return the plain name of each chromosome, `scaffolds` for all contigs, `unplaced` if missing."""
    text = column.astype(object).where(column.notna(), "").map(str).str.strip()
    names = plain_names(text)
    return names.where(is_main(names), SCAFFOLDS).where(text != "", UNPLACED)
