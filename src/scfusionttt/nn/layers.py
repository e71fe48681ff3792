"""Layers of all networks: the mixers, the pre-norm block and stacks of blocks.

A mixer exchanges information between the tokens of a cell: ``mixer(tokens, present, first) -> tokens``.
Shapes: n cells, t tokens, h heads, f units per head, d = h * f width. Absent tokens influence no other token.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scfusionttt.config import NetworkConfig
from scfusionttt.errors import SettingError
from scfusionttt.nn.fused import RMSNorm, add_dropped
from scfusionttt.ttt import TTTOutput, split_heads, step_sizes, ttt_linear, ttt_mlp

#: Base learning rate of the TTT layer's inner model.
INNER_LR = 1.0


class TTTMixer(nn.Module):
    """Test-Time Training layer (arXiv 2407.04620): the hidden state is a small model trained on the tokens.

    Projections, inner learning rate per token (a gate), inner step sizes, initial inner model and its LayerNorm;
    the recurrence itself is :func:`scfusionttt.ttt.ttt_linear` or :func:`~scfusionttt.ttt.ttt_mlp`.
    """

    def __init__(self, config: NetworkConfig, *, reverse: bool = False) -> None:
        super().__init__()
        d, h = config.width, config.heads
        f = d // h
        self.heads, self.mini_batch, self.causal = h, config.mini_batch, config.direction == "causal"
        self.directions = (False, True) if config.direction == "both" else (reverse,)
        self.operator: Callable[..., TTTOutput] = ttt_mlp if config.mixer == "ttt_mlp" else ttt_linear
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.gate = nn.Linear(d, h)
        self.step_delta = nn.Parameter(torch.zeros(config.mini_batch))
        shapes = [(f, 4 * f), (4 * f, f)] if config.mixer == "ttt_mlp" else [(f, f)]
        self.inner_weights = nn.ParameterList(nn.Parameter(0.02 * torch.randn(h, *shape)) for shape in shapes)
        self.inner_biases = nn.ParameterList(nn.Parameter(torch.zeros(h, shape[1])) for shape in shapes)
        self.inner_scale = nn.Parameter(torch.ones(h, f))
        self.inner_shift = nn.Parameter(torch.zeros(h, f))
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.out = nn.Linear(d, d, bias=False)
        self.losses: list[Tensor] | None = None  # filled within `inner_losses`
        for projection in (self.qkv, self.gate, self.out):
            nn.init.normal_(projection.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def forward(self, tokens: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Mix tokens [n, t, d]; return those from `first` on."""
        # Under autocast the projections are in half precision: convert them once, not once per direction.
        qkv, gate = (x.to(self.inner_scale.dtype) for x in (self.qkv(tokens), self.gate(tokens)))
        q, k, v = split_heads(qkv, self.heads)  # each [n, h, t, f]
        lr_nht = INNER_LR / q.shape[-1] * torch.sigmoid(gate).transpose(1, 2)
        state = [p for pair in zip(self.inner_weights, self.inner_biases, strict=True) for p in pair]
        arguments = (q, k, v, lr_nht, step_sizes(self.step_delta), *state, self.inner_scale, self.inner_shift)
        options = {"mini_batch": self.mini_batch, "mask": present, "causal": self.causal}
        which = {"reverse": self.directions[0], "both": len(self.directions) > 1}
        mixed, loss_nht, _ = self.operator(*arguments, **options, **which, return_loss=self.losses is not None)
        if self.losses is not None and loss_nht is not None:
            self.losses.append(loss_nht.sum(dim=1))
        return self.out(self.norm(mixed[:, :, first:].transpose(1, 2).flatten(2)))


@contextmanager
def inner_losses(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inner loss [n, t], summed over heads and directions, of every TTT layer, as they run."""
    losses: list[Tensor] = []
    layers = [layer for layer in network.modules() if isinstance(layer, TTTMixer)]
    for layer in layers:
        layer.losses = losses
    try:
        yield losses
    finally:
        for layer in layers:
            layer.losses = None


class AttentionMixer(nn.Module):
    """Multi-head softmax attention over all present tokens: the mixer of scMMAE, cost quadratic in the tokens."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, tokens: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Mix tokens [n, t, d]; return those from `first` on."""
        q, k, v = split_heads(self.qkv(tokens), self.heads)
        # Without any present token the softmax would be NaN: such a cell attends to all; its tokens stay absent.
        visible = present | ~present.any(dim=1, keepdim=True)
        mixed = nn.functional.scaled_dot_product_attention(q[:, :, first:], k, v, attn_mask=visible[:, None, None, :])
        return self.out(mixed.transpose(1, 2).flatten(2))


def make_mixer(config: NetworkConfig, *, depth: int = 0) -> nn.Module | None:
    """Return the mixer of these settings; None for ``none``.

    `depth` counts the blocks of a stack: ``direction=alternate`` reads backwards in every second one.
    """
    if config.mixer == "none":
        return None
    if config.mixer == "attention":
        return AttentionMixer(config)
    if config.mixer in ("ttt", "ttt_mlp"):
        return TTTMixer(config, reverse=config.direction == "alternate" and depth % 2 == 1)
    raise SettingError(f"unknown mixer {config.mixer!r}")


class Block(nn.Module):
    """The pre-norm block of METHOD: ``x' = mixer(norm(x)) + x``, then ``x = MLP(norm(x')) + x'``."""

    def __init__(self, config: NetworkConfig, *, depth: int = 0) -> None:
        super().__init__()
        hidden = round(config.mlp_ratio * config.width)
        self.mixer = make_mixer(config, depth=depth)
        self.mixer_norm = None if self.mixer is None else RMSNorm(config.width)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width))
        self.dropout = config.dropout
        self.bf16, self.recomputed = config.precision == "bf16", config.checkpoint_blocks

    def forward(self, tokens: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Map tokens [n, t, d] to those from `first` on; tokens not `present` [n, t] influence no other."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self._forward, tokens, present, first, use_reentrant=False)
        return self._forward(tokens, present, first)

    def _forward(self, tokens: Tensor, present: Tensor, first: int) -> Tensor:
        # Norms, operator and residual stream stay float32; the matrix products between them are rounded.
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.bf16):
            kept, dropped = tokens[:, first:], self.dropout if self.training else 0.0
            if self.mixer is not None and self.mixer_norm is not None:
                kept = add_dropped(kept, self.mixer(self.mixer_norm(tokens), present, first), dropped)
            return add_dropped(kept, self.mlp(self.mlp_norm(kept)), dropped)


class Stack(nn.Module):
    """A sequence of blocks."""

    def __init__(self, config: NetworkConfig, n_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, depth=depth) for depth in range(n_blocks))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Map tokens [n, t, d] to tokens [n, t, d]."""
        for block in self.blocks:
            tokens = block(tokens, present)
        return tokens
