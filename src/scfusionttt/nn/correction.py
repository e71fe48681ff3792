"""The effect of batches on the latent, and its removal.

Shapes: n cells, m values (bottleneck and PCA skip), l latent, k kinds of cells, b batch levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class BatchCorrection(nn.Module):
    """Subtract what the batches of a cell add to its values: a mixture of shifts, one per kind of cells and batch.

    A cell belongs to each kind to a degree that falls with the angle between its latent vector and that of the kind in
    the cell's own batches. The parameters are those of Harmony (Korsunsky et al. 2019), kept as a function of cells as
    Symphony does (Kang et al. 2021); fitted after pretraining (0 before), not trained.
    """

    centroids: Tensor  # [k, m] mean of each kind, free of batches
    shifts: Tensor  # [b, k, m] what a batch adds to it
    counts: Tensor  # [k] number of cells of each kind
    kept: Tensor  # [m] 0 for proteins that some batch lacks, which would tell it from the others; else 1

    #: Width of the assignment to kinds; Harmony's default.
    SIGMA = 0.1

    def __init__(self, n_levels: int, n_kinds: int, n_values: int) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(n_kinds, n_values))
        self.register_buffer("shifts", torch.zeros(n_levels, n_kinds, n_values))
        self.register_buffer("counts", torch.zeros(n_kinds))
        self.register_buffer("kept", torch.ones(n_values))

    def forward(self, values: Tensor, batch: Tensor, latent: Callable[[Tensor], Tensor]) -> Tensor:
        """Return values [n, m] without the effects of the cells' batches.

        Parameters
        ----------
        values, batch
            [n, m], and the level of each cell in each batch key [n, keys]; -1: no known batch.
        latent
            Linear map of values to the latent vectors [n, l] in which kinds are told apart.
        """
        values = values * self.kept
        corrected = values.clone()
        levels, place = batch.unique(dim=0, return_inverse=True)
        for number, level in enumerate(levels):
            rows = place == number
            shift = self.shift(level)
            degrees = self.degrees(latent(values[rows]), latent(self.centroids + shift))
            corrected[rows] = values[rows] - degrees @ shift
        return corrected

    def shift(self, level: Tensor) -> Tensor:
        """Return what the batches of a cell, their levels [keys], add to the centroids, [k, m]."""
        return self.shifts[level[level >= 0]].sum(dim=0)

    def degrees(self, z: Tensor, centroids: Tensor) -> Tensor:
        """Return to which degree latent vectors [n, l] belong to each kind, [n, k], given its centroids [k, l]."""
        cosine = normalize(z, dim=1) @ normalize(centroids, dim=1).T
        return (2 * cosine / self.SIGMA).softmax(dim=1)
