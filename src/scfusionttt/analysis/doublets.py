"""Doublets: cells with genes and proteins that hardly any other cell has together."""

import numpy as np
from scipy import sparse
from scipy.stats import binom

from scfusionttt.analysis.protein_mixture import ProteinMixture
from scfusionttt.data.counts import row_blocks

#: Genes to look at: those whose presence varies most.
MOST_GENES = 500
#: Simulated doublets, and the fraction of them below the score from which a cell is called one.
N_SIMULATED, CALL_QUANTILE = 2000, 0.25


def doublets(
    rna: sparse.csr_matrix, protein: np.ndarray | None, controls: np.ndarray | None = None, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the score of each cell [n], and whether it is called a doublet, bool [n].

    Two features exclude each other if fewer cells have both than their frequencies :math:`f_p` and :math:`f_q` would
    give; the pair then weighs :math:`-\log P(X \le n_{pq})` with :math:`X \sim B(n, f_p f_q)`. The score of a cell is
    the square root of the weight of all pairs that it has, standardised, and the mean over genes and proteins. After
    cxds (Bais and Kostka 2020), which scores genes.

    A cell is called a doublet from the lower quartile of simulated doublets, sums of two cells, upwards. Two cells of
    one type are not recognised.

    Parameters
    ----------
    rna
        Raw counts [n, g]; a gene is present from one count.
    protein
        Raw counts [n, p], NaN = not measured; present where :class:`ProteinMixture` says so. None: RNA alone.
    controls
        Which proteins are isotype controls, bool [p].
    seed
        Draws the simulated doublets.
    """
    n = rna.shape[0]
    first, second = np.random.default_rng(seed).integers(0, n, (2, N_SIMULATED))
    presence = np.asarray((rna > 0).mean(axis=0)).ravel()
    genes = np.argsort(-presence * (1 - presence), kind="stable")[:MOST_GENES]
    counts = rna[:, genes]
    views = [((counts > 0).toarray(), ((counts[first] + counts[second]) > 0).toarray())]
    if protein is not None and protein.shape[1] > 1:
        controls = np.zeros(protein.shape[1], dtype=bool) if controls is None else controls
        mixture = ProteinMixture.fit(protein, controls, seed=seed)
        of_cells, of_pairs = (mixture.probability(x)[:, ~controls] for x in (protein, protein[first] + protein[second]))
        views.append((of_cells > 0.5, of_pairs > 0.5))
    scores, simulated = np.zeros(n), np.zeros(N_SIMULATED)
    for cells, pairs in views:
        weights = exclusion(cells)
        values, of_sums = (np.sqrt(_weight_of_pairs(present, weights)) for present in (cells, pairs))
        center, spread = values.mean(), max(values.std(), 1e-12)
        scores += (values - center) / spread / len(views)
        simulated += (of_sums - center) / spread / len(views)
    return scores, scores > max(np.quantile(simulated, CALL_QUANTILE), 0)


def exclusion(present: np.ndarray) -> np.ndarray:
    """Return how clearly each two features exclude each other [f, f], from where they are present, bool [n, f]."""
    n, frequency = len(present), present.mean(axis=0)
    values = present.astype(np.float32)
    together, expected = np.rint(values.T @ values), np.outer(frequency, frequency)
    with np.errstate(divide="ignore"):
        weights = -binom.logcdf(together, n, expected)
    # Where the probability underflows, that of exactly this number of cells is nearly all of it.
    weights = np.where(np.isposinf(weights), -binom.logpmf(together, n, expected), weights)
    weights[(together >= n * expected) | np.eye(len(weights), dtype=bool)] = 0
    return weights


def _weight_of_pairs(present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of the weights of all pairs of features that a cell has, [n]."""
    total = np.empty(len(present))
    for rows in row_blocks(len(present)):
        values = present[rows].astype(float)
        total[rows] = ((values @ weights) * values).sum(axis=1) / 2
    return total
