"""The layers that are compared: those of this package and alternatives.

All map tokens [n, t, d] and a mask of present tokens [n, t] to tokens [n, t, d]. The alternatives treat every token as
present, which is cheaper. Shapes: n cells, t tokens, h heads, f units per head, d = h * f width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import ttt_linear_reference
from scfusionttt.config import Config
from scfusionttt.nn.layers import TTTMixer
from scfusionttt.ttt import TTTOutput, ttt_linear

WIDTH, HEADS = 128, 2
#: Tokens per call, all cells together.
TOKENS = 1 << 15


class Attention(nn.Module):
    """Full softmax attention by torch's fused kernel, without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Mix tokens."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GRU(nn.Module):
    """torch's GRU, one direction."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Mix tokens."""
        return self.gru(tokens)[0]


class SSD(nn.Module):
    """Linear attention with a decay per head and token: the state-space dual of Mamba-2 (arXiv 2405.21060).

    ``H_t = exp(-a dt_t) H_{t-1} + dt_t k_t v_t^T``, ``y_t = q_t H_t``, in chunks: a matrix product inside each, a loop
    over the states between them. Without Mamba's convolution and gate.
    """

    chunk = 64

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.step = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, HEADS)
        self.log_rate = nn.Parameter(torch.arange(1.0, HEADS + 1).log())
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.constant_(self.step.bias, -4.0)  # a step of about 0.02, in the middle of Mamba's initial range

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Mix tokens."""
        t = tokens.shape[1]
        tokens = F.pad(tokens, (0, 0, 0, -t % self.chunk)).unflatten(1, (-1, self.chunk))  # [n, c, s, d]
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(3, 0, 1, 4, 2, 5)  # each [n, c, h, s, f]
        step = F.softplus(self.step(tokens)).transpose(2, 3)  # [n, c, h, s]
        decay = (-step * self.log_rate.exp()[:, None]).cumsum(-1)  # log of the decay of the chunk's first state
        v = v * step[..., None]
        inside = (decay[..., :, None] - decay[..., None, :]).masked_fill(self.later(tokens), -torch.inf).exp()
        mixed = (q @ k.mT * inside) @ v + q * decay.exp()[..., None] @ self.states(k, v, decay)
        return self.out(self.norm(mixed.transpose(2, 3).flatten(1, 2)[:, :t].flatten(2)))

    def later(self, like: Tensor) -> Tensor:
        """Return a mask of the keys [.., s] that come after a query [s, ..]."""
        return torch.ones(self.chunk, self.chunk, dtype=torch.bool, device=like.device).triu(1)

    def states(self, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
        """Return the state before each chunk, [n, c, h, f, f]."""
        added = (k * (decay[..., -1:] - decay).exp()[..., None]).mT @ v
        left = decay[..., -1, None, None].exp()
        state, states = torch.zeros_like(added[:, 0]), []
        for kept, new in zip(left.unbind(1), added.unbind(1)):  # unbind: its backward is linear in the chunks
            states.append(state)
            state = torch.addcmul(new, kept, state)
        return torch.stack(states, 1)


def ttt_layer(operator: Callable[..., TTTOutput] = ttt_linear, *, direction: str = "causal") -> TTTMixer:
    """Return the layer of this package with a given implementation of the operator."""
    settings = {"network.width": WIDTH, "network.heads": HEADS, "network.direction": direction}
    layer = TTTMixer(Config().with_settings(settings).network)
    layer.operator = operator
    return layer


@dataclass(frozen=True)
class Contender:
    """A row of the tables.

    Parameters
    ----------
    make
        Returns the layer.
    bf16
        Run it under autocast: matrix products in bfloat16. The TTT operator stays in float32.
    longest
        Longest sequence that is tried, and then one cell at a time.
    """

    make: Callable[[], nn.Module]
    bf16: bool = False
    longest: int | None = None

    def cells(self, length: int) -> int:
        """Return the number of cells per call."""
        return 1 if self.longest else -(-TOKENS // length)


TTT, BOTH, BF16 = "TTT", "TTT, both directions", "TTT, bf16 projections"
CHUNKED, REFERENCE, DEFINITION = "TTT, chunked torch", "TTT, reference loop", "TTT, definition"
ATTENTION = "attention (SDPA)"

CONTENDERS = {
    TTT: Contender(ttt_layer),
    BF16: Contender(ttt_layer, bf16=True),
    BOTH: Contender(partial(ttt_layer, direction="both")),
    CHUNKED: Contender(partial(ttt_layer, partial(ttt_linear, backend="chunked"))),
    REFERENCE: Contender(partial(ttt_layer, ttt_linear_reference)),
    DEFINITION: Contender(partial(ttt_layer, partial(ttt_linear, backend="definition")), longest=1000),
    ATTENTION: Contender(Attention),
    "GRU": Contender(GRU),
    "SSD (as in Mamba-2)": Contender(SSD),
}

FORWARD, BACKWARD = "forward", "forward + backward"


def make(name: str) -> nn.Module:
    """Return a contender's layer, the same at each call, after a short run that compiles the kernels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = CONTENDERS[name].make()
    for run in passes(name, layer, cells=1, length=48).values():
        run()
    return layer


def passes(name: str, layer: nn.Module, *, cells: int, length: int) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Return calls that run a layer on random tokens, forward as in inference, and forward and backward as in training.

    The gradient from above is the input once more. The backward returns the output and the gradients.
    """
    tokens = torch.randn(cells, length, WIDTH, generator=torch.Generator().manual_seed(length))
    present = torch.ones(cells, length, dtype=torch.bool)
    wanted = [tokens.requires_grad_(), *layer.parameters()]

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=CONTENDERS[name].bf16):
            return layer(tokens, present)

    def backward() -> tuple[Tensor, ...]:
        out = forward()
        return out.detach(), *torch.autograd.grad(out, wanted, tokens.detach().to(out.dtype))

    return {FORWARD: torch.no_grad()(lambda: (forward(),)), BACKWARD: backward}
