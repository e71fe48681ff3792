"""Back to feature values: from the tokens (masked autoencoding) and from the bottleneck alone."""

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.layers import RMSNorm, Stack
from scfusionttt.nn.tokens import FeatureReadout


class TokenDecoder(nn.Module):
    """Replace hidden tokens by a learned mask token, then apply blocks and a readout (masked autoencoding)."""

    def __init__(self, n_features: int, n_tokens: int, config: NetworkConfig, *, patch: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.width))
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, config.width))
        self.stack = Stack(config, config.decoder_blocks)
        self.norm = RMSNorm(config.width)
        self.readout = FeatureReadout(n_features, patch=patch, width=config.width)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Map fused tokens [n, t, d] to values [n, f]."""
        tokens = torch.where(visible[..., None], tokens, self.mask_token) + self.position
        return self.readout(self.norm(self.stack(tokens, torch.ones_like(visible))))


class RepresentationDecoder(nn.Module):
    """Reconstruct every feature of a modality from the bottleneck z."""

    def __init__(self, n_latent: int, n_features: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_latent, hidden), nn.GELU(), nn.Linear(hidden, n_features))

    def forward(self, z: Tensor) -> Tensor:
        """Map z [n, l] to values [n, f]."""
        return self.layers(z)
