"""The pre-norm block of METHOD: ``x' = TTT(psi(x)) + x``, ``x = MLP(psi(x')) + x'``."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.mixer import make_mixer


class Block(nn.Module):
    """A mixer over the tokens and an MLP over the width, each behind RMSNorm and added to its input."""

    def __init__(self, config: NetworkConfig, *, depth: int = 0) -> None:
        super().__init__()
        hidden = round(config.mlp_ratio * config.width)
        self.mixer = make_mixer(config, depth=depth)
        self.mixer_norm = None if self.mixer is None else nn.RMSNorm(config.width, eps=1e-6)
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.bf16, self.recomputed = config.precision == "bf16", config.checkpoint_blocks

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Map tokens [n, t, d] to tokens [n, t, d]; tokens absent in `present` [n, t] influence no other."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self._forward, tokens, present, use_reentrant=False)
        return self._forward(tokens, present)

    def _forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        # Norms, operator and residual stream are given float32 and keep it; the products between them are rounded.
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.bf16):
            if self.mixer is not None and self.mixer_norm is not None:
                tokens = tokens + self.dropout(self.mixer(self.mixer_norm(tokens), present))
            return tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))


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
