"""Heads on the latent vector: classification, and the distance of a cell to the known classes."""

import torch
from torch import Tensor, nn


class KernelHead(nn.Linear):
    """Class scores ``W k(z) + b`` of a cell's Gaussian similarity to landmark cells, ``k_i = exp(-gamma |z - z_i|^2)``.

    Unlike a linear head it can separate a cell type that others surround, and far from all landmarks only b remains, so
    that unfamiliar cells are not classified with confidence. Landmarks and gamma are fitted, not trained.
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
    """The smallest Mahalanobis distance of a cell to the mean of a class, and its p-value.

    All classes share the covariance within classes (Lee et al., arXiv 1807.03888). The null distribution is stored as
    quantiles over held-out cells of known classes, once with proteins and once by RNA alone.
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
        """Whether the null distribution has been set."""
        return bool(self.quantiles.isfinite().all())

    def forward(self, z: Tensor) -> Tensor:
        """Map z [n, l] to distances [n], in standard deviations within classes; inf where no class is known."""
        known = self.means[self.means.isfinite().all(dim=1)]
        if not len(known):
            return z.new_full((len(z),), torch.inf)
        return torch.cdist(z @ self.whitening, known @ self.whitening).amin(dim=1)

    def p_value(self, distance: Tensor, by_rna: Tensor) -> Tensor:
        """Return the fraction of cells of known classes at this distance [n] or farther; `by_rna` [n]: by RNA alone."""
        ranks = [torch.searchsorted(row, distance.contiguous()) for row in self.quantiles]
        return 1 - torch.where(by_rna, ranks[1], ranks[0]) / self.N_QUANTILES
