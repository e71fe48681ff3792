"""Protein counts as a mixture of background and expression."""

from dataclasses import dataclass

import numpy as np
from sklearn.mixture import GaussianMixture

from scfusionttt.data.counts import row_blocks

#: Levels of expression, as multiples of the background; less than about half of the lowest counts as background.
FOLDS = 3.0 * 2.0 ** np.arange(8)
#: Most cells to fit to; more change little.
MOST_CELLS = 5000
STEPS, STEPS_OF_CELL = 25, 6
#: Weight of the prior that a cell has the mean depth, in expected background counts.
DEPTH_COUNTS = 20.0
#: Weight of the background in empty droplets, in cells.
DROPLETS = 100.0
#: Added to the fractions of background and of expressing cells of each protein, so that neither is 0.
BACKGROUND, EXPRESSED = 0.05, 0.01
#: Dispersion (variance = mean + dispersion * mean^2) before the cells are seen, and its limits.
DISPERSION, DISPERSION_LIMITS = 0.1, (0.02, 0.6)
#: Lowest mean background, in counts.
FLOOR = 0.02


@dataclass(frozen=True, eq=False)
class ProteinMixture:
    r"""Background and expression of p proteins.

    A background count of cell :math:`i` and protein :math:`p` is negative binomial with mean :math:`s_i b_p`, that of a
    cell which expresses the protein has mean :math:`s_i b_p f` for one of the `FOLDS` :math:`f`. Both have the same
    dispersion, so the probability of expression grows with the count. The depth :math:`s_i` of the background is
    estimated from the proteins which a cell does not express, and from controls.

    Attributes
    ----------
    background
        Mean background [p], in counts at depth 1.
    dispersion
        Excess variance, in units of the squared mean, [p].
    weights
        Fraction of the cells with background, and at each level of expression [1 + levels, p].
    controls
        Which proteins are isotype controls, that no cell expresses, bool [p].
    """

    background: np.ndarray
    dispersion: np.ndarray
    weights: np.ndarray
    controls: np.ndarray

    @classmethod
    @np.errstate(under="ignore")  # the probability of an impossible level is 0
    def fit(
        cls,
        counts: np.ndarray,
        controls: np.ndarray,
        droplets: "ProteinMixture | None" = None,
        *,
        seed: int = 0,
    ) -> "ProteinMixture":
        """Fit to counts by expectation-maximisation.

        Parameters
        ----------
        counts
            Counts of proteins in cells, [n, p]; NaN is not measured.
        controls
            Which proteins are isotype controls, [p] bool.
        droplets
            The fit to empty droplets, at which the background of the cells starts, and to which it is drawn; without
            it, the background starts at the lower of two normal distributions of the logarithms.
        seed
            Draws the cells, if they are many.
        """
        counts = counts[np.isfinite(counts).any(axis=1)]
        if len(counts) > MOST_CELLS:
            counts = counts[np.random.default_rng(seed).choice(len(counts), MOST_CELLS, replace=False)]
        x, measured = _filled(counts)
        n, p = x.shape
        start = _lower_modes(counts) if droplets is None else droplets.background
        dispersion = np.full(p, DISPERSION) if droplets is None else droplets.dispersion
        weights = np.full((1 + len(FOLDS), p), 0.4 / len(FOLDS))
        weights[0] = 0.6
        mixture, depth = cls(start, dispersion, weights, controls), np.ones(n)
        for _ in range(STEPS):
            of_level = mixture._of_level(x, depth)
            weight = np.where(controls, 1.0, of_level[0]) * measured
            depth = mixture._depth(x, weight, depth)
            if droplets is None:
                depth /= np.exp(np.log(depth).mean())
            mixture = mixture._updated(x, measured, of_level, weight, depth, droplets)
        return mixture

    @np.errstate(under="ignore")
    def probability(self, counts: np.ndarray) -> np.ndarray:
        """Return the probability of expression [n, p] of counts [n, p]; NaN where not measured."""
        result = np.full(counts.shape, np.nan)
        for rows in row_blocks(len(counts)):
            x, measured = _filled(counts[rows])
            depth = np.ones(len(x))
            for _ in range(STEPS_OF_CELL):
                weight = np.where(self.controls, 1.0, self._of_level(x, depth)[0]) * measured
                depth = self._depth(x, weight, depth)
            result[rows] = np.where(measured, 1 - self._of_level(x, depth)[0], np.nan)
        return result

    def _of_level(self, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the probability of background and of each level of expression [1 + levels, n, p]."""
        mean, size = depth[:, None] * self.background, 1 / self.dispersion
        of_level = np.empty((1 + len(FOLDS), *x.shape))
        for level, fold in enumerate((1.0, *FOLDS)):  # terms that all levels share are left out
            of_level[level] = x * np.log(mean * fold) - (x + size) * np.log(size + mean * fold)
            of_level[level] += np.log(self.weights[level])
        of_level -= of_level.max(axis=0)
        np.exp(of_level, out=of_level)
        return of_level / of_level.sum(axis=0)

    def _depth(self, x: np.ndarray, weight: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the background depth of each cell [n]; `weight` [n, p]: probabilities that counts are background."""
        precision = weight / (1 + self.dispersion * depth[:, None] * self.background)
        expected = (precision * self.background).sum(axis=1)
        return ((precision * x).sum(axis=1) + DEPTH_COUNTS) / (expected + DEPTH_COUNTS)

    def _updated(
        self,
        x: np.ndarray,
        measured: np.ndarray,
        of_level: np.ndarray,
        weight: np.ndarray,
        depth: np.ndarray,
        droplets: "ProteinMixture | None",
    ) -> "ProteinMixture":
        """Return the mixture of highest likelihood, given the levels and depths of the cells."""
        precision = weight / (1 + self.dispersion * depth[:, None] * self.background)
        total, cells = (precision * x).sum(axis=0), (precision * depth[:, None]).sum(axis=0)
        if droplets is not None:
            total, cells = total + DROPLETS * droplets.background, cells + DROPLETS
        background = np.maximum(total / np.maximum(cells, 1e-9), FLOOR)

        mean, before = depth[:, None] * background, DISPERSION if droplets is None else droplets.dispersion
        certainty = BACKGROUND * (measured * mean**2).sum(axis=0) + 5
        excess = (weight * ((x - mean) ** 2 - mean)).sum(axis=0) + certainty * before
        dispersion = np.clip(excess / ((weight * mean**2).sum(axis=0) + certainty), *DISPERSION_LIMITS)

        weights = (of_level * measured).sum(axis=1) / np.maximum(measured.sum(axis=0), 1)
        weights[0] += BACKGROUND
        weights[1:] += EXPRESSED / len(FOLDS)
        return ProteinMixture(background, dispersion, weights / weights.sum(axis=0), self.controls)


def fit_droplets(counts: np.ndarray, controls: np.ndarray, *, seed: int = 0) -> ProteinMixture:
    """Fit to the counts [n, p] of empty droplets, some of which may be cells or debris."""
    middle = np.maximum(np.median(counts, axis=0), counts.mean(axis=0) / 2)
    start = ProteinMixture(np.maximum(middle, FLOOR), np.full(len(middle), DISPERSION), np.empty(0), controls)
    return ProteinMixture.fit(counts, controls, start, seed=seed)


def _filled(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts with zero where not measured, and where they were measured."""
    measured = np.isfinite(counts)
    return np.where(measured, counts, 0.0).astype(float), measured


def _lower_modes(counts: np.ndarray) -> np.ndarray:
    """Return the mean count [p] of the lower of two normal distributions of the logarithms of each protein."""
    modes = np.empty(counts.shape[1])
    for column, values in enumerate(counts.T):
        values = values[np.isfinite(values)].astype(float)
        if len(np.unique(values)) > 1:
            logs = np.log1p(values)[:, None]
            fitted = GaussianMixture(2, covariance_type="tied", random_state=0).fit(logs)
            lower = values[fitted.predict(logs) == fitted.means_.argmin()]
            values = lower if len(lower) else values
        modes[column] = max(values.mean(), FLOOR) if len(values) else FLOOR
    return modes
