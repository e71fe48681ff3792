"""TTT-Linear in its dual form with its own backward: a mini-batch at a time, in torch, on any device.

The sequence is walked in segments of 16 mini-batches (chunks). What does not depend on the state is computed for a
whole segment at once; only the chain of states is serial. The forward keeps the state at each segment's start and
nothing else; the backward computes a segment again before it walks through it. Time and memory grow linearly.

The bias is a row of W: with a column of ones behind q and k, ``z = k W``, ``gram = q k^T`` and
``W' = W - k^T diag(e) g`` carry it along. Here z and zbar are the inner model's answers to k and q, xh is a layer
norm's result and r its 1/std, g is the gradient of the inner loss by z, e_j = tau_last lr_j, and dx stands for the
gradient of the outer loss by x.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from scfusionttt.ttt.definition import EPS, State
from scfusionttt.ttt.rope import rotate, rotations_like

SEGMENT = 16  # chunks between two kept states


def ttt_linear_chunked(
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
    """Return outputs, inner losses and the final state, as `ttt_definition`; differentiable once."""
    inputs = q, k, v, lr, tau, *state, gamma, beta
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, loss, w, b = _TTTLinear.apply(*inputs, causal, rope, keep)
    return out, loss, (w, b)


class _TTTLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, k, v, lr, tau, w0, b0, gamma, beta, causal, rope, keep):
        ctx.set_materialize_grads(False)
        ctx.how = causal, rope
        w = torch.cat((w0, b0[:, :, None]), 2).flatten(0, 1)  # [bh, f + 1, f]
        out, loss, states = torch.empty_like(v), torch.empty_like(lr), []
        for here in _segments(q, tau):
            segment = _prepare((q, k, v, lr), here, tau, gamma, beta, causal, rope)
            if keep:
                states.append(w)
            steps = _walk(segment, w)
            zbar = _answer(segment, steps)
            y = segment.gamma * F.layer_norm(zbar, zbar.shape[-1:], eps=EPS)
            out[:, :, here] = _tokens(y.add_(segment.q[..., :-1]).add_(segment.beta), out[:, :, here])
            loss[:, :, here] = _tokens(0.5 * torch.stack(steps.error).square_().sum(-1), loss[:, :, here])
            w = steps.w[-1].clone()
        ctx.save_for_backward(q, k, v, lr, tau, gamma, beta, *states)
        w = w.unflatten(0, q.shape[:2])
        return out, loss, w[:, :, :-1].contiguous(), w[:, :, -1].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout, dloss, dw, db):
        q, k, v, lr, tau, gamma, beta, *states = ctx.saved_tensors
        dout, dw = _zeros_if_none(dout, v), _zeros_if_none(dw, states[0].unflatten(0, q.shape[:2])[:, :, :-1])
        dw = torch.cat((dw, _zeros_if_none(db, dw[:, :, -1])[:, :, None]), 2).flatten(0, 1)
        dq, dk, dv, dlr = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(lr)
        dtau, dgamma, dbeta = torch.zeros_like(tau), torch.zeros_like(gamma), torch.zeros_like(beta)
        for here, w in zip(reversed(_segments(q, tau)), reversed(states)):
            segment = _prepare((q, k, v, lr), here, tau, gamma, beta, *ctx.how)
            upstream = _chunks(dout[:, :, here], len(tau))
            upstream_loss = None if dloss is None else _chunks(dloss[:, :, here], len(tau))
            gradients, dw = _segment_backward(segment, _walk(segment, w), tau, upstream, upstream_loss, dw)
            for dx, g in zip((dq, dk, dv, dlr), gradients):
                dx[:, :, here] = _tokens(g, dx[:, :, here])
            dtau += gradients[4]
            for total, g in zip((dgamma, dbeta), gradients[5:]):  # [bh, f]
                total += g.unflatten(0, q.shape[:2]).sum(0)
        if ctx.how[1]:
            back = rotations_like(q, len(tau)).conj()
            dq, dk = rotate(dq, back), rotate(dk, back)
        dw = dw.unflatten(0, q.shape[:2])
        return dq, dk, dv, dlr, dtau, dw[:, :, :-1], dw[:, :, -1], dgamma, dbeta, None, None, None


class _Segment(NamedTuple):
    """What c chunks of n tokens need before their states are known; bh counts cells x heads."""

    q: Tensor  # [c, bh, n, f + 1], rotated, with a column of ones
    k: Tensor
    ek: Tensor  # e_j k_j
    lr: Tensor  # [c, bh, n]
    end: Tensor  # [c, 1, 1], the step of each chunk's last token
    ranks: Tensor  # [c], that token's place in tau
    offset: Tensor  # [c, bh, n, f], beta - (v - k)
    gamma: Tensor  # [bh, 1, f]
    beta: Tensor
    causal: bool
    eta: Tensor  # [c, bh, n, n], tau_i lr_j for j <= i; empty, as gram, where every token sees the whole chunk
    gram: Tensor  # [c, bh, n, n], q_i k_j + 1


class _Steps(NamedTuple):
    """The serial part of a segment, a value per chunk."""

    w: Tensor  # [c + 1, bh, f + 1, f], the state before each chunk and after the last
    z: list[Tensor]  # [bh, n, f], as the following; mean and r [bh, n, 1]
    xh: list[Tensor]
    mean: list[Tensor]
    r: list[Tensor]
    error: list[Tensor]  # gamma xh + beta - (v - k)
    g: list[Tensor]


def _prepare(inputs, here, tau, gamma, beta, causal, rope) -> _Segment:
    q, k, v, lr = (x[:, :, here] for x in inputs)
    b, _, t, _ = q.shape
    n = len(tau)
    if rope:
        rotation = rotations_like(q, n)
        q, k = rotate(q, rotation), rotate(k, rotation)
    q, k, lr = _with_ones(_chunks(q, n)), _with_ones(_chunks(k, n)), _chunks(lr, n)
    ranks = torch.arange(1, len(q) + 1, device=q.device).mul_(n).clamp_max_(t).sub_(1).remainder_(n)
    end = tau[ranks, None, None]
    gamma, beta = (x.repeat(b, 1)[:, None] for x in (gamma, beta))
    eta = gram = q.new_empty(0)
    if causal:
        eta = (tau[:, None] * lr[:, :, None]).tril_()
        gram = q @ k.mT
    ek = (lr * end)[..., None] * k
    offset = k[..., :-1] - _chunks(v, n) + beta
    return _Segment(q, k, ek, lr, end, ranks, offset, gamma, beta, causal, eta, gram)


def _walk(segment: _Segment, w: Tensor) -> _Steps:
    """Train the inner model on each chunk in turn, starting from w."""
    steps = _Steps(w.new_empty(len(segment.k) + 1, *w.shape), [], [], [], [], [], [])
    steps.w[0] = w
    for c, (k, ek, offset) in enumerate(zip(segment.k, segment.ek, segment.offset)):
        z = torch.bmm(k, steps.w[c])
        xh, mean, r = torch.native_layer_norm(z, z.shape[-1:], None, None, EPS)
        error = torch.addcmul(offset, xh, segment.gamma)
        g = _normalised(error * segment.gamma, z, mean, r)
        torch.baddbmm(steps.w[c], ek.mT, g, alpha=-1, out=steps.w[c + 1])
        for kept, x in zip(steps[1:], (z, xh, mean, r, error, g)):
            kept.append(x)
    return steps


def _answer(segment: _Segment, steps: _Steps) -> Tensor:
    """Return zbar, the updated inner model's answer to each query."""
    if not segment.causal:
        return segment.q @ steps.w[1:]
    zbar, correction = (segment.q @ steps.w[:-1]), (segment.eta * segment.gram) @ torch.stack(steps.g)
    return zbar.sub_(correction)


def _segment_backward(segment: _Segment, steps: _Steps, tau, dout, dloss, dw):
    """Return the gradients by q, k, v, lr, tau, gamma and beta, and dw at the segment's start."""
    q, k, gamma = segment.q, segment.k, segment.gamma
    zbar = _answer(segment, steps)
    yh, mean, r = torch.native_layer_norm(zbar, zbar.shape[-1:], None, None, EPS)
    dzbar = _normalised(dout * gamma, zbar, mean, r)
    g = torch.stack(steps.g)
    if segment.causal:
        dchain = (dzbar @ g.mT).neg_().tril_()  # by eta * gram
        dg = ((segment.eta * segment.gram).mT @ dzbar).neg_()

    dgamma = (dout * yh).sum((0, 2))
    p, dz, derror = torch.empty_like(k), torch.empty_like(g), torch.empty_like(g)
    for c in reversed(range(len(g))):
        if segment.causal:
            dg_c = torch.baddbmm(dg[c], segment.ek[c], dw, alpha=-1)
        else:
            dw = torch.baddbmm(dw, q[c].mT, dzbar[c])
            dg_c = torch.bmm(segment.ek[c], dw).neg_()
        torch.bmm(g[c], dw.mT, out=p[c])
        extra = None if dloss is None else dloss[c, :, :, None]
        dgamma += _gradient_backward(dg_c, steps, c, gamma, extra, dz[c], derror[c])
        if segment.causal:
            dw = torch.baddbmm(dw, q[c].mT, dzbar[c])
        dw = torch.baddbmm(dw, k[c].mT, dz[c])

    asked = steps.w[:-1] if segment.causal else steps.w[1:]  # the states that answered the queries
    de = (p * k).sum(-1).neg_()
    dq = (dzbar @ asked[:, :, :-1].mT).add_(dout)
    dk = (dz @ steps.w[:-1, :, :-1].mT).add_(derror).sub_((segment.lr * segment.end)[..., None] * p[..., :-1])
    dlr = segment.end * de
    dtau = torch.zeros_like(tau).index_add_(0, segment.ranks, (segment.lr * de).sum((1, 2)))
    if segment.causal:
        dgram, deta = dchain * segment.eta, dchain * segment.gram
        dq += dgram @ k[..., :-1]
        dk += dgram.mT @ q[..., :-1]
        dlr += tau @ deta
        dtau += (deta @ segment.lr[..., None]).sum((0, 1, 3))
    dbeta = (dout + derror).sum((0, 2))
    return (dq, dk, derror.neg_(), dlr, dtau, dgamma, dbeta), dw


def _gradient_backward(dg, steps, c, gamma, dloss, dz, derror):
    """Go back through g, the gradient of the inner loss: write dz and derror, return dgamma [bh, f]."""
    z, xh, mean, r, error, g = (x[c] for x in steps[1:])
    f = z.shape[-1]
    dgx = _normalised(dg, z, mean, r)
    torch.mul(dgx, gamma, out=derror)
    if dloss is not None:
        derror.addcmul_(dloss, error)
    dz.copy_(_normalised(derror * gamma, z, mean, r))
    dz.addcmul_(dgx, r * (error * gamma * xh).sum(-1, keepdim=True), value=-1 / f)
    dz.addcmul_(g, r * (dg * xh).sum(-1, keepdim=True), value=-1 / f)
    dz.addcmul_(xh, r * (dg * g).sum(-1, keepdim=True), value=-1 / f)
    return (dgx * error).addcmul_(derror, xh).sum(1)


def _normalised(y: Tensor, z: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Return the gradient by z where y is that by xh = LN(z): ``r (y - mean(y) - xh mean(y xh))``."""
    shape = z.shape[-1:]
    return torch.ops.aten.native_layer_norm_backward(y, z, shape, mean, r, None, None, [True, False, False])[0]


def _segments(q: Tensor, tau: Tensor) -> list[slice]:
    t, length = q.shape[2], SEGMENT * len(tau)
    return [slice(start, min(start + length, t)) for start in range(0, t, length)]


def _chunks(x: Tensor, n: int) -> Tensor:
    """[b, h, t, ...] -> [c, bh, n, ...]; the last chunk is filled with zeros."""
    missing = -x.shape[2] % n
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, missing))
    return x.unflatten(2, (-1, n)).movedim(2, 0).flatten(1, 2)


def _tokens(x: Tensor, like: Tensor) -> Tensor:
    """[c, bh, n, ...] -> [b, h, t, ...], the shape of `like`."""
    b, _, t = like.shape[:3]
    return x.unflatten(1, (b, -1)).movedim(0, 2).flatten(2, 3)[:, :, :t]


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(1).expand(*x.shape[:-1], 1)), -1)


def _zeros_if_none(x: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if x is None else x
