"""FusionTTT: each modality takes in the other.

``F_own = E_own + lambda * Block([E_other ; E_own])``, of which the own part is kept (METHOD, section 1).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.block import Block


class Fusion(nn.Module):
    """One modality's side of the fusion: by a TTT block, an attention block, or by adding the other's mean."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = config.fusion_weight
        self.block = None if config.fusion == "add" else Block(replace(config, mixer=config.fusion))

    def forward(self, own: Tensor, own_present: Tensor, other: Tensor, other_present: Tensor) -> Tensor:
        """Fuse own [n, t, d] with other [n, u, d]; returns [n, t, d]."""
        if self.block is None:
            return own + self.weight * masked_mean(other, other_present)[:, None]
        tokens, present = torch.cat([other, own], dim=1), torch.cat([other_present, own_present], dim=1)
        return own + self.weight * self.block(tokens, present, first=other.shape[1])


def masked_mean(tokens: Tensor, present: Tensor) -> Tensor:
    """Average tokens [n, t, d] over the present ones; zero where there is none. Returns [n, d]."""
    weight = present.to(tokens.dtype)
    return torch.einsum("ntd,nt->nd", tokens, weight) / weight.sum(dim=1, keepdim=True).clamp(min=1)
