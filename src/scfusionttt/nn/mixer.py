"""Layers that let the tokens of a cell see one another, one interface: ``mixer(tokens, present, first) -> tokens``.

Shapes: n cells, t tokens, h heads, f units per head, d = h * f width. Absent tokens influence no other token.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.errors import SettingError
from scfusionttt.ttt import TTTOutput, split_heads, step_sizes, ttt_linear, ttt_mlp


class TTTMixer(nn.Module):
    """Test-Time Training layer (arXiv 2407.04620): the hidden state is a small model trained while it reads.

    Projections, inner learning rate per token (a gate), inner step sizes, initial inner model and its LayerNorm;
    the recurrence itself is :func:`scfusionttt.ttt.ttt_linear` or :func:`~scfusionttt.ttt.ttt_mlp`.
    """

    def __init__(self, config: NetworkConfig, *, reverse: bool = False) -> None:
        super().__init__()
        d, h = config.width, config.heads
        f = d // h
        self.heads, self.mini_batch, self.causal = h, config.mini_batch, config.causal
        self.directions = (False, True) if config.direction == "both" else (reverse,)
        self.inner_lr = config.inner_lr
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
        self.losses: list[Tensor] | None = None  # kept where `inner_losses` asks for them
        for projection in (self.qkv, self.gate, self.out):
            nn.init.normal_(projection.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def forward(self, tokens: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Mix tokens [n, t, d]; return those from `first` on."""
        # Under autocast the projections are half precision: to the operator's own once, not once in each direction.
        qkv, gate = (x.to(self.inner_scale.dtype) for x in (self.qkv(tokens), self.gate(tokens)))
        q, k, v = split_heads(qkv, self.heads)  # each [n, h, t, f]
        lr_nht = self.inner_lr / q.shape[-1] * torch.sigmoid(gate).transpose(1, 2)
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
    """Collect the inner loss [n, t], summed over heads and directions, of every TTT layer that runs, in that order."""
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
        # A cell without any present token would divide by zero: it attends everywhere, and its tokens stay absent.
        visible = present | ~present.any(dim=1, keepdim=True)
        mixed = nn.functional.scaled_dot_product_attention(q[:, :, first:], k, v, attn_mask=visible[:, None, None, :])
        return self.out(mixed.transpose(1, 2).flatten(2))


def make_mixer(config: NetworkConfig, *, depth: int = 0) -> nn.Module | None:
    """Return the mixer that the settings name; None for ``none``.

    `depth` counts the blocks of a stack: ``direction=alternate`` reads backwards in every second one.
    """
    if config.mixer == "none":
        return None
    if config.mixer == "attention":
        return AttentionMixer(config)
    if config.mixer in ("ttt", "ttt_mlp"):
        return TTTMixer(config, reverse=config.direction == "alternate" and depth % 2 == 1)
    raise SettingError(f"there is no mixer {config.mixer!r}")
