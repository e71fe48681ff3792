"""TTT-Linear under autograd, written like the public PyTorch module of arXiv 2407.04620.

A loop over mini-batches that indexes the packed inputs and writes into an output buffer. The gradient of
each index and each write is as long as the whole sequence, so the backward pass is quadratic in the length.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scfusionttt.ttt import TTTOutput
from scfusionttt.ttt.definition import EPS
from scfusionttt.ttt.rope import apply_rope

State = tuple[Tensor, Tensor]


def ttt_linear_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    tau: Tensor,
    w0: Tensor,
    b0: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    mini_batch: int = 16,
    mask: Tensor | None = None,
    causal: bool = True,
    reverse: bool = False,
    both: bool = False,
    return_loss: bool = False,
) -> TTTOutput:
    """Return the outputs of `scfusionttt.ttt.ttt_linear`, which see for the parameters; no losses, no state."""
    assert not return_loss, "the public module returns no losses"
    if both:
        once = partial(ttt_linear_reference, q, k, v, lr, tau, w0, b0, gamma, beta)
        ways = (once(mini_batch=mini_batch, mask=mask, causal=causal, reverse=way).out for way in (False, True))
        return TTTOutput(torch.add(*ways), None, None)
    q, k, v, lr = (x.to(w0.dtype) for x in (q, k, v, lr))
    absent = None if mask is None or mask.all() else ~mask[:, None]
    if absent is not None:
        lr = lr.masked_fill(absent, 0)
    if reverse:
        q, k, v, lr = (x.flip(2) for x in (q, k, v, lr))
    q, k = apply_rope(q, mini_batch), apply_rope(k, mini_batch)
    gamma, beta = gamma[:, None], beta[:, None]
    state = w0.expand(len(q), *w0.shape), b0[:, None].expand(len(q), len(b0), 1, -1)
    whole = q.shape[2] // mini_batch * mini_batch
    outs = []
    for piece, n in ((slice(whole), mini_batch), (slice(whole, None), q.shape[2] - whole)):
        if q[:, :, piece].shape[2]:
            inputs = [x[:, :, piece].unflatten(2, (-1, n)) for x in (q, k, v, lr)]
            out, state = _scan(state, inputs, tau[:n], gamma, beta, causal)
            outs.append(out.flatten(2, 3))
    out = torch.cat(outs, 2)
    out = out.flip(2) if reverse else out
    return TTTOutput(out if absent is None else out.masked_fill(absent[..., None], 0), None, None)


def _scan(
    state: State, inputs: list[Tensor], tau: Tensor, gamma: Tensor, beta: Tensor, causal: bool
) -> tuple[Tensor, State]:
    """Walk through c mini-batches of n tokens: inputs [b, h, c, n, f] (lr [b, h, c, n]), outputs [b, h, c, n, f]."""
    out = torch.empty_like(inputs[2])
    for i in range(out.shape[2]):
        out[:, :, i], state = _step(state, [x[:, :, i] for x in inputs], tau, gamma, beta, causal)
    return out, state


def _step(
    state: State, inputs: list[Tensor], tau: Tensor, gamma: Tensor, beta: Tensor, causal: bool
) -> tuple[Tensor, State]:
    """Train the inner model on one mini-batch and answer its queries, in the dual form."""
    (w, b), (q, k, v, lr) = state, inputs
    g = _gradient(k @ w + b, v - k, gamma, beta)
    last = (tau[-1] * lr)[..., None]
    eta = (tau[:, None] * lr[..., None, :]).tril() if causal else last.mT.expand(*lr.shape, len(tau))
    zbar = q @ w - (eta * (q @ k.mT)) @ g + (b - eta @ g)
    out = q + gamma * F.layer_norm(zbar, zbar.shape[-1:], eps=EPS) + beta
    return out, (w - (last * k).mT @ g, b - (last * g).sum(-2, keepdim=True))


def _gradient(z: Tensor, target: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Return the gradient by z of ``|gamma * LN(z) + beta - target|^2 / 2``."""
    f = z.shape[-1]
    std = torch.sqrt(z.var(-1, keepdim=True, unbiased=False) + EPS)
    xh = (z - z.mean(-1, keepdim=True)) / std
    gx = (gamma * xh + beta - target) * gamma
    return (f * gx - gx.sum(-1, keepdim=True) - xh * (gx * xh).sum(-1, keepdim=True)) / (f * std)
