"""Back to feature values: from the tokens (masked autoencoding) and from the bottleneck alone."""

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.fused import RMSNorm
from scfusionttt.nn.layers import Stack
from scfusionttt.nn.tokens import FeatureReadout, Tokens


class TokenDecoder(nn.Module):
    """Replace hidden tokens by a learned mask token, then apply blocks and a readout (masked autoencoding)."""

    def __init__(self, n_features: int, n_tokens: int, config: NetworkConfig, *, patch: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.width))
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, config.width))
        self.stack = Stack(config, config.decoder_blocks)
        self.norm = RMSNorm(config.width)
        self.readout = FeatureReadout(n_features, patch=patch, width=config.width)

    def forward(self, tokens: Tokens) -> Tensor:
        """Map fused tokens to values [n, f]."""
        values, present = tokens.values, tokens.present
        if tokens.positions is not None:  # put them back in their places
            shape = len(values), len(self.position)
            present = present.new_zeros(shape).scatter(1, tokens.positions, present)
            places = tokens.positions[..., None].expand_as(values)
            values = values.new_zeros(*shape, values.shape[-1]).scatter(1, places, values)
        values = torch.where(present[..., None], values, self.mask_token) + self.position
        return self.readout(self.norm(self.stack(values, torch.ones_like(present))))


class RepresentationDecoder(nn.Module):
    """Reconstruct every feature of a modality from the bottleneck."""

    HIDDEN = 256

    def __init__(self, n_latent: int, n_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_latent, self.HIDDEN), nn.GELU(), nn.Linear(self.HIDDEN, n_features))

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the bottleneck."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Map the bottleneck [n, l] to values [n, f]."""
        return self.layers(bottleneck)
