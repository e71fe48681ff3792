"""Fitted heads: classes, distance to the known classes, proteins from RNA alone, and cells from proteins alone."""

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


class ProteinHead(nn.Module):
    """Scaled proteins from RNA alone, and how far they may be off: the mean of three regressions on the RNA.

    Ridge regression on all genes extrapolates and finds what single genes tell; kernel ridge regression on the
    principal components, the first few and all of them, finds what combinations tell. Each has errors of its own, which
    the mean reduces. Fitted after pretraining, not trained.
    """

    #: Components that the first kernel reads; the second reads all.
    FEW = 20

    slopes: Tensor  # [g, p] of the genes
    bias: Tensor  # [p]
    landmarks: Tensor  # [m, k] components of landmark cells
    gammas: Tensor  # [2] of the two kernels
    kernel_slopes: Tensor  # [2, m, p]
    spread_slopes: Tensor  # [m, p] of the standard deviation within a donor, on the first kernel
    spread_bias: Tensor  # [p]
    least_spread: Tensor  # [p]
    donor: Tensor  # [p] standard deviation between donors, if the out-of-fold errors do not include it
    measured: Tensor  # [b, p] bool, the proteins that it was fitted to in each batch; not in old models
    margins: Tensor  # [2, p] 5 % and 95 % quantiles of the error in standard deviations; inf: not fitted

    def __init__(
        self, n_genes: int, n_proteins: int, n_components: int, n_landmarks: int, n_batches: int = 0
    ) -> None:  # fmt: skip
        super().__init__()
        of_proteins = ("bias", "spread_bias", "least_spread", "donor")
        shapes = {
            "slopes": (n_genes, n_proteins), "landmarks": (n_landmarks, n_components), "gammas": (2,),
            "kernel_slopes": (2, n_landmarks, n_proteins), "spread_slopes": (n_landmarks, n_proteins),
            **dict.fromkeys(of_proteins, (n_proteins,)),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("margins", torch.full((2, n_proteins), torch.inf))
        if n_batches:
            self.register_buffer("measured", torch.zeros(n_batches, n_proteins, dtype=torch.bool))

    @property
    def widths(self) -> tuple[int, int]:
        """Number of components that each kernel reads."""
        n_components = self.landmarks.shape[1]
        return min(self.FEW, n_components), n_components

    @property
    def is_fitted(self) -> bool:
        """Whether the head has been fitted to any protein."""
        return bool(self.margins.isfinite().any())

    def forward(self, genes: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
        """Map scaled genes [n, g] and their components [n, k] to mean and standard deviation of the proteins [n, p]."""
        kernels = [
            gaussian_similarity(components[:, :n], self.landmarks[:, :n], gamma)
            for n, gamma in zip(self.widths, self.gammas, strict=True)
        ]
        mean = self.bias + genes @ self.slopes
        for kernel, slopes in zip(kernels, self.kernel_slopes, strict=True):
            mean = mean + kernel @ slopes
        within = (self.spread_bias + kernels[0] @ self.spread_slopes).maximum(self.least_spread)
        return mean, (within.square() + self.donor.square()).sqrt()

    def interval(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the 90 % interval [n, p] about `mean` [n, p]."""
        return mean + self.margins[0] * deviation, mean + self.margins[1] * deviation


class Placement(nn.Module):
    """Where cells without RNA lie: their bottleneck and components, predicted from the measured proteins.

    The mean of a normal distribution given the proteins of a cell, whichever these are: ridge regression on them alone.
    Fitted after pretraining, not trained.
    """

    center: Tensor  # [p] means of the scaled proteins
    covariance: Tensor  # [p, p] of the proteins, plus the penalty; 0: not fitted
    cross: Tensor  # [p, m] covariance of proteins and values
    bias: Tensor  # [m] means of the values

    def __init__(self, n_proteins: int, n_values: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_proteins))
        self.register_buffer("covariance", torch.zeros(n_proteins, n_proteins))
        self.register_buffer("cross", torch.zeros(n_proteins, n_values))
        self.register_buffer("bias", torch.zeros(n_values))

    @property
    def is_fitted(self) -> bool:
        """Whether it has been fitted."""
        return bool(self.covariance.any())

    def forward(self, proteins: Tensor, measured: Tensor) -> Tensor:
        """Map scaled proteins [n, p] and which of them were measured [n, p] to values [n, m]."""
        values = proteins.new_empty(len(proteins), len(self.bias))
        # On the CPU: Apple's GPUs have no float64.
        covariance, cross, measured = self.covariance.cpu().double(), self.cross.cpu().double(), measured.cpu()
        panels, place = measured.unique(dim=0, return_inverse=True)
        for number, panel in enumerate(panels):
            rows = place == number
            slopes = torch.linalg.solve(covariance[panel][:, panel], cross[panel]).to(proteins)
            values[rows] = self.bias + (proteins[rows][:, panel] - self.center[panel]) @ slopes
        return values
