"""What is read off the tokens: the cell's representation, the stand-in for missing proteins, the class."""

import math

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.fusion import masked_mean


class SlotPool(nn.Module):
    """Several learned weighted sums over the tokens; the first starts as their mean.

    A plain mean forgets which token said what; a weight per token and slot keeps it, at a cost linear in the tokens.
    Sums are scaled by tokens / present tokens, so that absent ones do not shrink them.
    """

    def __init__(self, n_tokens: int, config: NetworkConfig) -> None:
        super().__init__()
        weights = torch.randn(config.pool_slots, n_tokens) / math.sqrt(n_tokens)
        weights[0] = 1 / n_tokens
        self.weights = nn.Parameter(weights)
        self.n_out = config.pool_slots * config.width

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Pool tokens [n, t, d] to [n, slots * d]."""
        n_tokens = present.shape[1]
        scale_n = n_tokens / present.sum(dim=1).clamp(min=1)
        weights_nst = (present * scale_n[:, None])[:, None] * self.weights
        return (weights_nst @ tokens).flatten(1)


class CellRepresentation(nn.Module):
    """The fused representation z: pooled tokens of every modality behind one linear bottleneck.

    With ``latent=0`` (as published) z is the mean of the fused tokens, modality beside modality.
    """

    def __init__(self, tokens_per_modality: list[int], config: NetworkConfig) -> None:
        super().__init__()
        self.pools: nn.ModuleList | None = None
        self.n_latent = config.latent or config.width * len(tokens_per_modality)
        if config.latent:
            self.pools = nn.ModuleList(SlotPool(n_tokens, config) for n_tokens in tokens_per_modality)
            n_pooled = config.pool_slots * config.width * len(tokens_per_modality)
            self.bottleneck = nn.Linear(n_pooled, config.latent)

    def forward(self, *modalities: tuple[Tensor, Tensor]) -> Tensor:
        """Map (tokens [n, t, d], present [n, t]) of each modality to z [n, l]."""
        if self.pools is None:
            return torch.cat([masked_mean(tokens, present) for tokens, present in modalities], dim=1)
        pooled = [pool(tokens, present) for pool, (tokens, present) in zip(self.pools, modalities, strict=True)]
        return self.bottleneck(torch.cat(pooled, dim=1))


class ProteinProjection(nn.Module):
    """Make the protein tokens that a cell without proteins lacks from its RNA tokens (stage 3 of METHOD)."""

    def __init__(self, n_rna_tokens: int, n_proteins: int, config: NetworkConfig) -> None:
        super().__init__()
        self.shape = (n_proteins, config.width)
        self.pool = SlotPool(n_rna_tokens, config)
        hidden = 2 * config.width
        self.layers = nn.Sequential(
            nn.Linear(self.pool.n_out, hidden), nn.GELU(), nn.Linear(hidden, n_proteins * config.width)
        )

    def forward(self, rna: Tensor, rna_present: Tensor) -> Tensor:
        """Map encoded RNA tokens [n, t, d] to protein tokens [n, p, d]."""
        return self.layers(self.pool(rna, rna_present)).unflatten(1, self.shape)


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

    def usual(self, distance: Tensor, by_rna: Tensor) -> Tensor:
        """Return the share of known cells that are as far or farther, [n], 0..1, for cells seen `by_rna` [n] or not."""
        places = [torch.searchsorted(row, distance.contiguous()) for row in self.quantiles]
        return 1 - torch.where(by_rna, places[1], places[0]) / self.N_QUANTILES
