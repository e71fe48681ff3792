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
    the square root of the weight of all pairs that it has, standardised, and the mean over genes and proteins; that of
    the genes alone if no protein was measured in it. After cxds (Bais and Kostka 2020), which scores genes.

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
    if protein is not None:
        controls = np.zeros(protein.shape[1], dtype=bool) if controls is None else controls
        if (~controls).sum() > 1:
            mixture = ProteinMixture.fit(protein, controls, seed=seed)
            found = (mixture.probability(x)[:, ~controls] for x in (protein, protein[first] + protein[second]))
            of_cells, of_pairs = (np.where(np.isnan(values), np.nan, values > 0.5) for values in found)
            views.append((of_cells, of_pairs))
    scores, simulated = (np.nanmean(values, axis=0) for values in zip(*(_standardised(*view) for view in views)))
    return scores, scores > max(np.quantile(simulated, CALL_QUANTILE), 0)


def exclusion(present: np.ndarray) -> np.ndarray:
    """Return how clearly each two features exclude each other [f, f].

    Parameters
    ----------
    present
        Where features are present, [n, f]; NaN = not measured. Two features are compared in the cells that have both.
    """
    measured = np.isfinite(present).astype(np.float32)
    values = np.nan_to_num(present.astype(np.float32))
    n, own, together = (
        np.rint(first.T @ second).astype(float)
        for first, second in ((measured, measured), (values, measured), (values, values))
    )
    frequency = own / np.maximum(n, 1)
    expected = frequency * frequency.T
    with np.errstate(divide="ignore"):
        weights = -binom.logcdf(together, n, expected)
    # Where the probability underflows, that of exactly this number of cells is nearly all of it.
    weights = np.where(np.isposinf(weights), -binom.logpmf(together, n, expected), weights)
    weights[(together >= n * expected) | np.eye(len(weights), dtype=bool)] = 0
    return weights


def _standardised(cells: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Return the scores of cells [n] and of simulated doublets [m] in standard deviations of those of the cells."""
    weights = exclusion(cells)
    values = [np.sqrt(_weight_of_pairs(present, weights)) for present in (cells, pairs)]
    center, spread = np.nanmean(values[0]), max(np.nanstd(values[0]), 1e-12)
    return [(value - center) / spread for value in values]


def _weight_of_pairs(present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of the weights of all pairs of features that a cell has, [n]; NaN if none was measured in it."""
    total = np.empty(len(present))
    for rows in row_blocks(len(present)):
        values = np.nan_to_num(present[rows].astype(float))
        total[rows] = ((values @ weights) * values).sum(axis=1) / 2
    return np.where(np.isfinite(present).any(axis=1), total, np.nan)
