"""Count splitting: two samples of the same cells, whose noise is independent."""

from dataclasses import replace

import numpy as np

from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.quiet_warnings import quiet


def halves(cite: CiteSeq, seed: int | np.random.Generator) -> tuple[CiteSeq, CiteSeq]:
    """Return cells in memory twice, with every single count dealt to one of the two at random.

    If counts are Poisson distributed, the halves are independent samples of the same cell (molecular cross-validation,
    Batson et al. 2019; Neufeld et al., arXiv 2207.00554). Proteins that were not measured stay NaN.
    """
    rng = np.random.default_rng(seed)
    with quiet():
        first, second = cite.rna.copy(), cite.rna.copy()
    first.X.data = _dealt(first.X.data, rng)
    second.X = second.X - first.X
    parts = replace(cite, rna=first), replace(cite, rna=second)
    if cite.protein is None:
        return parts
    one, other = cite.protein.copy(), cite.protein.copy()
    counts = np.asarray(one.X)
    dealt = _dealt(np.nan_to_num(counts), rng)
    one.X = np.where(np.isnan(counts), np.float32(np.nan), dealt)
    other.X = counts - one.X
    return replace(parts[0], protein=one), replace(parts[1], protein=other)


def _dealt(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how many of each count go to the first half; counts too large for an integer are capped."""
    return rng.binomial(np.minimum(counts, 2.0**62).astype(np.int64), 0.5).astype(np.float32)
