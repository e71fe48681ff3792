"""The dual form of the TTT layer: a mini-batch at a time, in torch, on any device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scfusionttt.ttt.definition import EPS, State, linear
from scfusionttt.ttt.rope import apply_rope


def ttt_chunked(
    inner: Callable[[State, Tensor], Tensor],
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    tau: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    mini_batch: int,
    causal: bool,
    rope: bool,
) -> tuple[Tensor, Tensor, State]:
    """Return outputs, inner losses and the final state, as `ttt_definition`."""
    if rope:
        q, k = apply_rope(q, mini_batch), apply_rope(k, mini_batch)
    step = _linear_chunk if inner is linear else _mlp_chunk
    outs, losses = [], []
    for qc, kc, vc, lrc in zip(*(x.split(mini_batch, 2) for x in (q, k, v, lr))):
        n = qc.shape[2]
        eta = (
            (tau[:n, None] * lrc[:, :, None]).tril() if causal else (tau[n - 1] * lrc[:, :, None]).expand(-1, -1, n, -1)
        )
        zbar, loss, state = step(
            state, qc, kc, vc - kc, eta, (tau[n - 1] * lrc)[..., None], gamma[:, None], beta[:, None]
        )
        outs.append(zbar)
        losses.append(loss)
    out = q + gamma[:, None] * F.layer_norm(torch.cat(outs, 2), q.shape[-1:], eps=EPS) + beta[:, None]
    return out, torch.cat(losses, 2), state


def _ln_l2(z: Tensor, target: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss ``|LN(z) - target|^2 / 2`` [b, h, n] and its gradient by z."""
    var, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
    r = (var + EPS).rsqrt()
    xh = (z - mean) * r
    error = gamma * xh + beta - target
    gx = gamma * error
    return 0.5 * error.square().sum(-1), r * (gx - gx.mean(-1, keepdim=True) - xh * (gx * xh).mean(-1, keepdim=True))


def _linear_chunk(state, q, k, target, eta, end, gamma, beta):
    w, b = state
    b = b[:, :, None]
    loss, g = _ln_l2(k @ w + b, target, gamma, beta)
    zbar = q @ w + b - (eta * (q @ k.mT + 1)) @ g
    eg = end * g
    return zbar, loss, (w - k.mT @ eg, (b - eg.sum(2, keepdim=True)).squeeze(2))


def _mlp_chunk(state, q, k, target, eta, end, gamma, beta):
    w1, b1, w2, b2 = state
    b1, b2 = b1[:, :, None], b2[:, :, None]
    z1 = k @ w1 + b1
    x2 = F.gelu(z1, approximate="tanh")
    loss, g2 = _ln_l2(x2 @ w2 + b2, target, gamma, beta)
    g1 = (g2 @ w2.mT) * _gelu_slope(z1)
    z1bar = q @ w1 + b1 - (eta * (q @ k.mT + 1)) @ g1
    x2bar = F.gelu(z1bar, approximate="tanh")
    zbar = x2bar @ w2 + b2 - (eta * (x2bar @ x2.mT + 1)) @ g2
    eg1, eg2 = end * g1, end * g2
    b1, b2 = b1 - eg1.sum(2, keepdim=True), b2 - eg2.sum(2, keepdim=True)
    return zbar, loss, (w1 - k.mT @ eg1, b1.squeeze(2), w2 - x2.mT @ eg2, b2.squeeze(2))


def _gelu_slope(x: Tensor) -> Tensor:
    c, a = (2 / torch.pi) ** 0.5, 0.044715
    tanh = torch.tanh(c * (x + a * x**3))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * c * (1 + 3 * a * x**2)
