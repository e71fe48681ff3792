"""The pre-norm block of METHOD: ``x' = TTT(psi(x)) + x``, ``x = MLP(psi(x')) + x'``."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.mixer import make_mixer
from scfusionttt.nn.norm import RMSNorm


class Block(nn.Module):
    """A mixer over the tokens and an MLP over the width, each behind RMSNorm and added to its input."""

    def __init__(self, config: NetworkConfig, *, depth: int = 0) -> None:
        super().__init__()
        hidden = round(config.mlp_ratio * config.width)
        self.mixer = make_mixer(config, depth=depth)
        self.mixer_norm = None if self.mixer is None else RMSNorm(config.width)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.bf16, self.recomputed = config.precision == "bf16", config.checkpoint_blocks

    def forward(self, tokens: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Map tokens [n, t, d] to those from `first` on; tokens absent in `present` [n, t] influence no other."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self._forward, tokens, present, first, use_reentrant=False)
        return self._forward(tokens, present, first)

    def _forward(self, tokens: Tensor, present: Tensor, first: int) -> Tensor:
        # Norms, operator and residual stream are given float32 and keep it; the products between them are rounded.
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.bf16):
            kept = tokens[:, first:]
            if self.mixer is not None and self.mixer_norm is not None:
                kept = kept + self.dropout(self.mixer(self.mixer_norm(tokens), present, first))
            return kept + self.dropout(self.mlp(self.mlp_norm(kept)))


class Stack(nn.Module):
    """Blocks one after the other."""

    def __init__(self, config: NetworkConfig, n_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, depth=depth) for depth in range(n_blocks))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Map tokens [n, t, d] to tokens [n, t, d]."""
        for block in self.blocks:
            tokens = block(tokens, present)
        return tokens
