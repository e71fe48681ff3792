"""TTT-MLP in its dual form: a mini-batch at a time, in torch, on any device, differentiated by autograd.

Autograd keeps the state before each segment of 16 mini-batches and computes a segment again in the backward, so
memory and time grow linearly with the sequence.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scfusionttt.ttt.definition import EPS, State
from scfusionttt.ttt.rope import apply_rope

SEGMENT = 16  # mini-batches between two kept states


def ttt_mlp_chunked(
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    tau: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    causal: bool,
    rope: bool,
) -> tuple[Tensor, Tensor, State]:
    """Return outputs, inner losses and the final state, as `ttt_definition`."""
    gamma, beta = gamma[:, None], beta[:, None]
    pieces = zip(*(x.split(SEGMENT * len(tau), 2) for x in (q, k, v, lr)))  # split: its backward is linear in t
    run = partial(_segment, causal=causal, rope=rope)
    if torch.is_grad_enabled():
        run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
    outs, losses = [], []
    for piece in pieces:
        out, loss, *state = run(*piece, tau, gamma, beta, *state)
        outs.append(out)
        losses.append(loss)
    return torch.cat(outs, 2), torch.cat(losses, 2), tuple(state)


def _segment(q, k, v, lr, tau, gamma, beta, *state, causal, rope):
    n = len(tau)
    if rope:
        q, k = apply_rope(q, n), apply_rope(k, n)
    zbars, losses = [], []
    for chunk in zip(*(x.split(n, 2) for x in (q, k, v - k, lr))):
        zbar, loss, state = _chunk(state, chunk, tau, gamma, beta, causal)
        zbars.append(zbar)
        losses.append(loss)
    out = q + gamma * F.layer_norm(torch.cat(zbars, 2), q.shape[-1:], eps=EPS) + beta
    return out, torch.cat(losses, 2), *state


def _chunk(state, chunk, tau, gamma, beta, causal):
    """Return the inner model's answers to q [b, h, n, f], its losses [b, h, n] and its next state."""
    q, k, target, lr = chunk
    w1, b1, w2, b2 = state
    n = q.shape[2]
    end = tau[n - 1] * lr[..., None]
    eta = (tau[:n, None] * lr[:, :, None]).tril() if causal else end.mT
    b1, b2 = b1[:, :, None], b2[:, :, None]

    z1 = k @ w1 + b1
    x2 = F.gelu(z1, approximate="tanh")
    loss, g2 = _loss_and_gradient(x2 @ w2 + b2, target, gamma, beta)
    g1 = (g2 @ w2.mT) * _gelu_slope(z1)

    z1bar = q @ w1 + b1 - (eta * (q @ k.mT + 1)) @ g1
    x2bar = F.gelu(z1bar, approximate="tanh")
    z2bar = x2bar @ w2 + b2 - (eta * (x2bar @ x2.mT + 1)) @ g2

    eg1, eg2 = end * g1, end * g2
    b1, b2 = b1[:, :, 0] - eg1.sum(2), b2[:, :, 0] - eg2.sum(2)
    return z2bar, loss, (w1 - k.mT @ eg1, b1, w2 - x2.mT @ eg2, b2)


def _loss_and_gradient(z, target, gamma, beta):
    """Return ``|LN(z) - target|^2 / 2`` [b, h, n] and its gradient by z."""
    var, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
    r = (var + EPS).rsqrt()
    xh = (z - mean) * r
    error = gamma * xh + beta - target
    gx = gamma * error
    return 0.5 * error.square().sum(-1), r * (gx - gx.mean(-1, keepdim=True) - xh * (gx * xh).mean(-1, keepdim=True))


def _gelu_slope(x: Tensor) -> Tensor:
    c, a = (2 / torch.pi) ** 0.5, 0.044715
    tanh = torch.tanh(c * (x + a * x**3))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * c * (1 + 3 * a * x**2)
