"""The effect of batches on the latent, and its removal.

Shapes: n cells, m values (bottleneck and PCA skip), l latent, k kinds of cells, b batch levels.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

#: Linear map of values [n, m] to the latent vectors [n, l] in which kinds are distinguished.
Latent: TypeAlias = Callable[[Tensor], Tensor]
#: Linear map of latent vectors [n, l] to the embedding, of the same shape.
Whitened: TypeAlias = Callable[[Tensor], Tensor]


class BatchCorrection(nn.Module):
    """Subtract what the batches of a cell add to its values: a mixture of shifts, one per kind of cells and batch.

    A cell belongs to each kind to a degree that falls with the angle between its latent vector and that of the kind in
    the cell's own batches. The parameters are those of Harmony (Korsunsky et al. 2019), kept as a function of cells as
    Symphony does (Kang et al. 2021); fitted after pretraining (0 before), not trained. A model of one batch has kinds,
    too, with which the batches of a query are compared.
    """

    centroids: Tensor  # [k, m] mean of each kind, free of batches
    shifts: Tensor  # [b, k, m] what a batch adds to it
    stretch: Tensor  # [b] how many times farther from its kind a cell by RNA alone is moved in a batch of such; else 1
    counts: Tensor  # [k] number of cells of each kind
    kept: Tensor  # [m] 0 for proteins that some batch lacks, which would tell it from the others; else 1
    landmarks: Tensor  # [r, l] corrected latent vectors of some training cells; not finite where there are fewer
    distances: Tensor  # [q] quantiles of the distances of training cells to their nearest landmarks
    rna_distances: Tensor  # [q] of those by RNA alone; not finite: not known, as in old models, or without proteins
    rna_landmarks: Tensor  # [r, l] the landmarks by RNA alone; not finite for those without proteins, as in old models
    rna_only: Tensor  # [b] 1 for the batches of training without proteins, else 0
    matching_distance: Tensor  # [] how near landmarks by RNA alone are that are counterparts of these cells

    #: Width of the assignment to kinds; Harmony's default.
    SIGMA = 0.1
    N_QUANTILES = 1001
    #: Number of landmarks, and of the nearest ones over which the distance of a cell is averaged.
    N_LANDMARKS, NEAREST = 1000, 5
    #: Number of counterparts of a cell, and the fraction of the landmarks that have such among the others.
    COUNTERPARTS, MATCHED = 2, 0.7

    def __init__(self, n_levels: int, n_kinds: int, n_values: int, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(n_kinds, n_values))
        self.register_buffer("shifts", torch.zeros(n_levels, n_kinds, n_values))
        self.register_buffer("stretch", torch.ones(n_levels))
        self.register_buffer("counts", torch.zeros(n_kinds))
        self.register_buffer("kept", torch.ones(n_values))
        self.register_buffer("landmarks", torch.full((self.N_LANDMARKS, n_latent), torch.inf))
        self.register_buffer("distances", torch.ones(self.N_QUANTILES))
        self.register_buffer("rna_distances", torch.full((self.N_QUANTILES,), torch.inf))
        self.register_buffer("rna_landmarks", torch.full((self.N_LANDMARKS, n_latent), torch.inf))
        self.register_buffer("rna_only", torch.zeros(n_levels))
        self.register_buffer("matching_distance", torch.zeros(()))

    @property
    def is_fitted(self) -> bool:
        """Whether there are kinds of cells."""
        return bool(self.counts.sum() > 0)

    def forward(self, values: Tensor, batch: Tensor, latent: Latent, by_rna: Tensor) -> Tensor:
        """Return values [n, m] without the effects of the cells' batches.

        Parameters
        ----------
        values, batch
            [n, m], and the level of each cell in each batch key [n, keys]; -1: no known batch.
        latent
            See `Latent`.
        by_rna
            Which cells have no proteins, [n] bool.
        """
        if not batch.shape[1]:
            return values
        values = values * self.kept
        corrected = values.clone()
        for level, rows, degrees in self.by_batch(values, batch, latent):
            shifted = values[rows] - degrees @ self.shift(level)
            stretch = torch.where(by_rna[rows], self.stretch[level[0]], 1)[:, None] if level[0] >= 0 else 1
            corrected[rows] = shifted + (stretch - 1) * (shifted - degrees @ self.centroids)
        return corrected

    def matched(
        self, z: Tensor, values: Tensor, batch: Tensor, latent: Latent, by_rna: Tensor, whitened: Whitened
    ) -> Tensor:  # fmt: skip
        """Return latent vectors z [n, l] in which cells of batches of RNA alone vary as measured ones do.

        Each of them gets what proteins add to its counterparts, the landmarks that are most similar by RNA alone:
        predictive mean matching (Little 1988), but with two, whose sum is scaled to the variance of one, since cells
        with the same single counterpart would form a cluster. Those too far from all landmarks keep their z.

        Parameters
        ----------
        z
            Of the corrected values.
        values, batch, latent, by_rna
            As in :meth:`forward`.
        whitened
            See `Whitened`; it says which cells are similar.
        """
        if not batch.shape[1]:
            return z
        rows = torch.nonzero(by_rna & (batch[:, 0] >= 0) & (self.rna_only[batch[:, 0]] > 0)).ravel()
        known = self.rna_landmarks.isfinite().all(dim=1)
        if not len(rows) or known.sum() < self.COUNTERPARTS:
            return z
        moved = torch.zeros(len(rows), dtype=torch.bool, device=z.device)  # not away from their kinds
        by_rna_z = latent(self(values[rows], batch[rows], latent, moved))
        distance = _distances(whitened(by_rna_z), whitened(self.rna_landmarks[known]))
        nearest = distance.topk(self.COUNTERPARTS, dim=1, largest=False).indices
        added = (self.landmarks - self.rna_landmarks)[known][nearest].sum(dim=1) / self.COUNTERPARTS**0.5
        is_near = self._mean_of_nearest(distance) <= self.matching_distance
        return z.index_copy(0, rows[is_near], (by_rna_z + added)[is_near])

    def set_matching_distance(self, whitened: Whitened) -> None:
        """Set how near a cell's counterparts are, from the distances between the landmarks by RNA alone."""
        z = whitened(self.rna_landmarks[self.rna_landmarks.isfinite().all(dim=1)])
        if len(z) > 1:
            distance = _distances(z, z).fill_diagonal_(torch.inf)
            self.matching_distance.copy_(self._mean_of_nearest(distance).quantile(self.MATCHED))

    def added(self, values: Tensor, batch: Tensor, level: int, latent: Latent) -> tuple[Tensor, Tensor]:
        """Return what a cell's level of the first key adds to its values, and what `level` would, [n, m] each.

        The other parameters are those of :meth:`forward`.
        """
        values = values * self.kept
        own, other = torch.zeros_like(values), torch.zeros_like(values)
        for levels, rows, degrees in self.by_batch(values, batch, latent):
            own[rows] = degrees @ self.shift(levels[:1])
            other[rows] = degrees @ self.shifts[level]
        return own, other

    def by_batch(self, values: Tensor, batch: Tensor, latent: Latent) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield levels [keys], which cells have them [n], and the degrees to which these belong to each kind [., k]."""
        levels, place = batch.unique(dim=0, return_inverse=True)
        for number, level in enumerate(levels):
            rows = place == number
            yield level, rows, self.degrees(latent(values[rows]), latent(self.centroids + self.shift(level)))

    def shift(self, level: Tensor) -> Tensor:
        """Return what the batches of a cell, their levels [keys], add to the centroids, [k, m]."""
        return self.shifts[level[level >= 0]].sum(dim=0)

    def common_shift(self) -> Tensor:
        """Return what each level adds to the kinds on average, [b, m]."""
        return torch.einsum("bkm,k->bm", self.shifts, self.counts / self.counts.sum())

    def degrees(self, z: Tensor, centroids: Tensor) -> Tensor:
        """Return to which degree latent vectors [n, l] belong to each kind, [n, k], given its centroids [k, l]."""
        cosine = normalize(z, dim=1) @ normalize(centroids, dim=1).T
        return (2 * cosine / self.SIGMA).softmax(dim=1)

    def distance(self, z: Tensor, itself: Tensor | None = None) -> Tensor:
        """Return the mean distance of latent vectors [n, l] to the nearest landmarks, [n].

        `itself` is the landmark that a cell is, which is left out, [n]; -1: none.
        """
        distance = torch.cdist(z, self.landmarks[self.landmarks.isfinite().all(dim=1)])
        if itself is not None:
            rows = torch.nonzero(itself >= 0).ravel()
            distance[rows, itself[rows]] = torch.inf
        return self._mean_of_nearest(distance)

    def _mean_of_nearest(self, distance: Tensor) -> Tensor:
        nearest = min(self.NEAREST, distance.shape[1] - 1)
        return distance.topk(nearest, dim=1, largest=False).values.mean(dim=1)

    def p_value(self, distance: Tensor, by_rna: Tensor) -> Tensor:
        """Return the fraction of training cells at this distance [n] or farther; `by_rna` [n]: by RNA alone."""
        of_rna = self.rna_distances if self.rna_distances.isfinite().all() else self.distances
        ranks = [torch.searchsorted(null, distance.contiguous()) for null in (self.distances, of_rna)]
        return 1 - torch.where(by_rna, ranks[1], ranks[0]) / self.N_QUANTILES

    def extended(self, n_new: int, place: int) -> "BatchCorrection":
        """Return a copy with `n_new` more levels before the level `place`; nothing is removed of them."""
        n_levels, n_kinds, n_values = self.shifts.shape
        copy = BatchCorrection(n_levels + n_new, n_kinds, n_values, self.landmarks.shape[1]).to(self.shifts.device)
        new = self.shifts.new_zeros(n_new, n_kinds, n_values)
        shifts = torch.cat([self.shifts[:place], new, self.shifts[place:]])
        stretch = torch.cat([self.stretch[:place], self.stretch.new_ones(n_new), self.stretch[place:]])
        rna_only = torch.cat([self.rna_only[:place], self.rna_only.new_zeros(n_new), self.rna_only[place:]])
        copy.load_state_dict({**self.state_dict(), "shifts": shifts, "stretch": stretch, "rna_only": rna_only})
        return copy


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # Rounding errors of matrix products depend on the number of cells, and could exchange two counterparts.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
