"""What classifies a cell from its latent vector, and how far the cell is from all known classes."""

import torch
from torch import Tensor, nn


class KernelHead(nn.Linear):
    """Class scores ``W k(z) + b`` of a cell's Gaussian similarity to landmark cells, ``k_i = exp(-gamma |z - z_i|^2)``.

    A line through z cannot go around a cell type that others surround; this can, and far from every landmark only b is
    left: a cell unlike all that were seen is not named with confidence. Landmarks and gamma are set, not learned.
    """

    landmarks: Tensor  # [m, l]
    gamma: Tensor  # scalar

    def __init__(self, n_latent: int, n_classes: int, n_landmarks: int) -> None:
        super().__init__(n_landmarks, n_classes)
        self.register_buffer("landmarks", torch.zeros(n_landmarks, n_latent))
        self.register_buffer("gamma", torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        """Map z [n, l] to class scores [n, c]."""
        return super().forward(gaussian_similarity(z, self.landmarks, self.gamma))


def gaussian_similarity(z: Tensor, landmarks: Tensor, gamma: Tensor) -> Tensor:
    """Return ``exp(-gamma |z - z_i|^2)``, [n, m], of z [n, l] and landmarks [m, l]."""
    return (-gamma * torch.cdist(z, landmarks).square()).exp()


class Novelty(nn.Module):
    """How unlike the cells of every known class a cell is: the least Mahalanobis distance of its z to a class's mean.

    The covariance is that within classes, shared by all (Lee et al., arXiv 1807.03888). What distance is usual is kept
    as quantiles over known cells that taught none of this, once with proteins and once by RNA alone.
    """

    N_QUANTILES = 1001

    means: Tensor  # [c, l], not finite for a class without cells
    whitening: Tensor  # [l, l]
    quantiles: Tensor  # [2, q] distances of known cells: with proteins, by RNA alone

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.full((n_classes, n_latent), torch.inf))
        self.register_buffer("whitening", torch.eye(n_latent))
        self.register_buffer("quantiles", torch.full((2, self.N_QUANTILES), torch.inf))

    @property
    def is_calibrated(self) -> bool:
        """Whether it was told which distances are usual."""
        return bool(self.quantiles.isfinite().all())

    def forward(self, z: Tensor) -> Tensor:
        """Map z [n, l] to distances [n], in standard deviations within classes; inf where no class is known."""
        known = self.means[self.means.isfinite().all(dim=1)]
        if not len(known):
            return z.new_full((len(z),), torch.inf)
        return torch.cdist(z @ self.whitening, known @ self.whitening).amin(dim=1)

    def p_value(self, distance: Tensor, by_rna: Tensor) -> Tensor:
        """Return the fraction of cells of known classes at this distance [n] or farther; `by_rna` [n]: by RNA alone."""
        places = [torch.searchsorted(row, distance.contiguous()) for row in self.quantiles]
        return 1 - torch.where(by_rna, places[1], places[0]) / self.N_QUANTILES
