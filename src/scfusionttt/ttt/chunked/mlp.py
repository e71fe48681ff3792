"""TTT-MLP in its dual form, a mini-batch at a time, in torch, on any device; names as in `segments`.

The inner model is ``z1 = k W1``, ``x2 = gelu(z1)``, ``z2 = x2 W2``. Its second layer learns by g2, the gradient of the
inner loss by z2, and its first by ``g1 = pull * gelu'(z1)``, where ``pull = g2 W2^T``.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scfusionttt.ttt.chunked.segments import (
    Inner,
    Segment,
    Steps,
    chain_backward,
    inner_gradient,
    inner_gradient_backward,
    output_backward,
    run_in_segments,
    step_size_gradients,
)
from scfusionttt.ttt.definition import State


def _walk(segment: Segment, state: State) -> Steps:
    w1s, w2s = (w.new_empty(len(segment.k) + 1, *w.shape) for w in state)
    w1s[0], w2s[0] = state
    z1, pull, g1 = (w1s.new_empty(*segment.k.shape[:3], w1s.shape[-1]) for _ in range(3))
    x2 = w2s.new_ones(*segment.k.shape[:3], w2s.shape[-2])  # gelu(z1) and the column of ones
    steps = Steps((w1s, w2s), (z1, x2, pull, g1), [], [], [], [], [], [])
    for c, (k, end, ek) in enumerate(zip(segment.k, segment.end, segment.end * segment.k)):
        torch.bmm(k, w1s[c], out=z1[c])
        x2[c, ..., :-1] = F.gelu(z1[c], approximate="tanh")
        g2 = inner_gradient(segment, steps, torch.bmm(x2[c], w2s[c]))
        torch.bmm(g2, w2s[c, :, :-1].mT, out=pull[c])
        g1[c] = _through_gelu(pull[c], z1[c])
        torch.baddbmm(w1s[c], ek.mT, g1[c], alpha=-1, out=w1s[c + 1])
        torch.baddbmm(w2s[c], x2[c].mT, end * g2, alpha=-1, out=w2s[c + 1])
    return steps


def _answer(segment: Segment, steps: Steps) -> Tensor:
    return _answers(segment, steps)[-1]


def _answers(segment: Segment, steps: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z1bar, x2bar with its column of ones, gram2 (empty where not causal) and z2bar."""
    (w1, w2), (_, x2, _, g1) = _asked(segment, steps), steps.hidden
    z1bar, x2bar, gram2 = segment.q @ w1, torch.ones_like(x2), segment.gram
    if segment.causal:
        z1bar -= (segment.eta * segment.gram) @ g1
    x2bar[..., :-1] = F.gelu(z1bar, approximate="tanh")
    z2bar = x2bar @ w2
    if segment.causal:
        gram2 = x2bar @ x2.mT
        z2bar -= (segment.eta * gram2) @ torch.stack(steps.g)
    return z1bar, x2bar, gram2, z2bar


def _asked(segment: Segment, steps: Steps) -> State:
    """Return the states that answer the queries."""
    return tuple(w[:-1] if segment.causal else w[1:] for w in steps.states)


def _backward(segment: Segment, steps: Steps, tau, dout, dloss, dstate):
    q, k, w1, x2 = segment.q, segment.k, steps.states[0], steps.hidden[1]
    z1bar, x2bar, gram2, z2bar = _answers(segment, steps)
    asked1, asked2 = (w[:, :, :-1].mT for w in _asked(segment, steps))
    dz2bar, dgamma = output_backward(segment, z2bar, dout)
    dx2bar, deta = dz2bar @ asked2, None
    dg1, dg2, dx2 = torch.zeros_like(z1bar), torch.zeros_like(z2bar), torch.zeros_like(z1bar)
    if segment.causal:
        deta2, dgram2, dg2 = chain_backward(segment, gram2, torch.stack(steps.g), dz2bar)
        dx2bar += dgram2 @ x2[..., :-1]
        dx2 = dgram2.mT @ x2bar[..., :-1]
    dz1bar = _through_gelu(dx2bar, z1bar)
    dq = (dz1bar @ asked1).add_(dout)
    if segment.causal:
        deta1, dgram, dg1 = chain_backward(segment, segment.gram, steps.hidden[-1], dz1bar)
        deta = deta1 + deta2
        dq += dgram @ k[..., :-1]

    answers = (q, dz1bar), (x2bar, dz2bar)
    dz1, derror, p1, dend, share, dstate = _walk_back(segment, steps, answers, dg1, dg2, dx2, dloss, dstate)
    dk = (dz1 @ w1[:-1, :, :-1].mT).add_(derror).sub_(segment.end * p1[..., :-1])
    if segment.causal:
        dk += dgram.mT @ q[..., :-1]
    dlr, dtau = step_size_gradients(segment, tau, dend, deta)
    dbeta = (dout + derror).sum((0, 2))
    return (dq, dk, derror.neg_(), dlr, dtau, dgamma + share, dbeta), dstate


def _walk_back(segment: Segment, steps: Steps, answers, dg1, dg2, dx2, dloss, dstate):
    """Go back through the steps from chunk to chunk.

    `answers` are each layer's inputs and the gradients of the answers; dg1, dg2 and dx2 are consumed.
    Returns dz1, derror, ``p1 = g1 dW1^T``, the gradient by e_j, a share of dgamma, and dstate at the start.
    """
    k, end, (_, w2), (z1, x2, pull, g1) = segment.k, segment.end, steps.states, steps.hidden
    curvature, dgamma = pull * _gelu_curvature(z1), z1.new_zeros(())
    (dw1, dw2), p1 = (dw.clone() for dw in dstate), torch.empty_like(k)
    dz1, derror, dend = torch.empty_like(z1), torch.empty_like(dg2), torch.empty_like(end)

    def answer_backward(c):
        for dw, (x, dz) in zip((dw1, dw2), answers):
            dw.baddbmm_(x[c].mT, dz[c])

    for c in reversed(range(len(k))):
        g2, w = steps.g[c], w2[c, :, :-1]
        if not segment.causal:
            answer_backward(c)
        dg1_c = dg1[c].sub_(end[c] * (k[c] @ dw1))
        dg2_c = dg2[c].sub_(end[c] * (x2[c] @ dw2))
        torch.bmm(g1[c], dw1.mT, out=p1[c])
        p2 = g2 @ dw2.mT
        dend[c] = -(p1[c] * k[c]).sum(-1, keepdim=True) - (p2 * x2[c]).sum(-1, keepdim=True)
        if segment.causal:
            answer_backward(c)

        dpull = _through_gelu(dg1_c, z1[c])
        dg2_c.baddbmm_(dpull, w)
        dw2[:, :-1].baddbmm_(dpull.mT, g2)
        dz2 = torch.empty_like(g2)
        dgamma = dgamma + inner_gradient_backward(dg2_c, segment, steps, c, dloss, dz2, derror[c])
        dw2.baddbmm_(x2[c].mT, dz2)
        dx2_c = dx2[c].baddbmm_(dz2, w.mT).sub_(end[c] * p2[..., :-1])
        torch.addcmul(_through_gelu(dx2_c, z1[c]), dg1_c, curvature[c], out=dz1[c])
        dw1.baddbmm_(k[c].mT, dz1[c])
    return dz1, derror, p1, dend[..., 0], dgamma, (dw1, dw2)


def _through_gelu(dy: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(dy, x, approximate="tanh")


def _gelu_curvature(x: Tensor) -> Tensor:
    """Return the second derivative of ``x (1 + tanh(u)) / 2``, ``u = sqrt(2 / pi) (x + 0.044715 x^3)``."""
    c, a = (2 / torch.pi) ** 0.5, 0.044715
    tanh, slope = torch.tanh(c * x * (1 + a * x * x)), c * (1 + 3 * a * x * x)
    return (1 - tanh * tanh) * (slope + 3 * a * c * x * x - x * slope * slope * tanh)


ttt_mlp_chunked = partial(run_in_segments, Inner(_walk, _answer, _backward))
