"""TTT-Linear in its dual form, a mini-batch at a time, in torch, on any device; names as in `segments`."""

from functools import partial

import torch
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
    (w,) = state
    ws = w.new_empty(len(segment.k) + 1, *w.shape)
    ws[0] = w
    steps = Steps((ws,), (), [], [], [], [], [], [])
    for c, (k, ek) in enumerate(zip(segment.k, segment.end * segment.k)):
        g = inner_gradient(segment, steps, torch.bmm(k, ws[c]))
        torch.baddbmm(ws[c], ek.mT, g, alpha=-1, out=ws[c + 1])
    return steps


def _answer(segment: Segment, steps: Steps) -> Tensor:
    (w,) = steps.states
    if not segment.causal:
        return segment.q @ w[1:]
    return (segment.q @ w[:-1]).sub_((segment.eta * segment.gram) @ torch.stack(steps.g))


def _backward(segment: Segment, steps: Steps, tau, dout, dloss, dstate):
    (w,), (dw,) = steps.states, dstate
    q, k, g = segment.q, segment.k, torch.stack(steps.g)
    dzbar, dgamma = output_backward(segment, _answer(segment, steps), dout)
    deta = None
    if segment.causal:
        deta, dgram, dg = chain_backward(segment, segment.gram, g, dzbar)

    ek = segment.end * k
    p, dz, derror = torch.empty_like(k), torch.empty_like(g), torch.empty_like(g)
    for c in reversed(range(len(g))):
        if segment.causal:
            dg_c = torch.baddbmm(dg[c], ek[c], dw, alpha=-1)
        else:
            dw = torch.baddbmm(dw, q[c].mT, dzbar[c])
            dg_c = torch.bmm(ek[c], dw).neg_()
        torch.bmm(g[c], dw.mT, out=p[c])
        dgamma += inner_gradient_backward(dg_c, segment, steps, c, dloss, dz[c], derror[c])
        if segment.causal:
            dw = torch.baddbmm(dw, q[c].mT, dzbar[c])
        dw = torch.baddbmm(dw, k[c].mT, dz[c])

    asked = w[:-1] if segment.causal else w[1:]  # the states that answered the queries
    dq = (dzbar @ asked[:, :, :-1].mT).add_(dout)
    dk = (dz @ w[:-1, :, :-1].mT).add_(derror).sub_(segment.end * p[..., :-1])
    if segment.causal:
        dq += dgram @ k[..., :-1]
        dk += dgram.mT @ q[..., :-1]
    dlr, dtau = step_size_gradients(segment, tau, (p * k).sum(-1).neg_(), deta)
    dbeta = (dout + derror).sum((0, 2))
    return (dq, dk, derror.neg_(), dlr, dtau, dgamma, dbeta), (dw,)


ttt_linear_chunked = partial(run_in_segments, Inner(_walk, _answer, _backward))
