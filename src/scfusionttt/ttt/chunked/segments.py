"""What the torch backends share: a sequence walked in segments of 16 mini-batches (chunks), with its own backward.

What does not depend on the state is computed for a whole segment at once; only the chain of states is serial. The
forward keeps the state at each segment's start and nothing else; the backward computes a segment again before it
walks through it. Time and memory grow linearly.

The bias is a row of W: with a column of ones behind x, ``z = x W``, ``gram = x_i x_j^T`` and
``W' = W - x^T diag(e) g`` carry it along. Below, z and zbar are the inner model's answers to k and q, xh is a layer
norm's result and r its 1/std, g is the gradient of the inner loss by z, e_j = tau_last lr_j, and dx stands for the
gradient of the outer loss by x.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from scfusionttt.ttt.definition import EPS, State
from scfusionttt.ttt.rope import rotate, rotations_like

SEGMENT = 16  # chunks between two kept states


class Inner(NamedTuple):
    """An inner model in its dual form; a state is a tuple of its layers' W [bh, inputs + 1, outputs]."""

    walk: Callable  # (segment, state) -> Steps: train on each chunk in turn
    answer: Callable  # (segment, steps) -> zbar [c, bh, n, f], by the updated inner model
    backward: Callable  # (segment, steps, tau, dout, dloss, dstate) -> those of q, k, v, lr, tau, gamma, beta, state


class Segment(NamedTuple):
    """What c chunks of n tokens need before their states are known; bh counts cells x heads."""

    q: Tensor  # [c, bh, n, f + 1], rotated, with a column of ones
    k: Tensor
    end: Tensor  # [c, bh, n, 1], e_j
    lr: Tensor  # [c, bh, n]
    last: Tensor  # [c, 1, 1], the step of each chunk's last token
    ranks: Tensor  # [c], that token's place in tau
    offset: Tensor  # [c, bh, n, f], beta - (v - k)
    gamma: Tensor  # [bh, 1, f]
    beta: Tensor
    causal: bool
    eta: Tensor  # [c, bh, n, n], tau_i lr_j for j <= i; empty, as gram, where every token sees the whole chunk
    gram: Tensor  # [c, bh, n, n], q_i k_j + 1


class Steps(NamedTuple):
    """The serial part of a segment, a value per chunk."""

    states: State  # each [c + 1, ...], before each chunk and after the last
    hidden: State  # what else the inner model keeps, each [c, ...]
    z: list[Tensor]  # [bh, n, f], as the following; mean and r [bh, n, 1]
    xh: list[Tensor]
    mean: list[Tensor]
    r: list[Tensor]
    error: list[Tensor]  # gamma xh + beta - (v - k)
    g: list[Tensor]


def run_in_segments(
    inner: Inner,
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
    inputs = q, k, v, lr, tau, gamma, beta, *state
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, loss, *state = _InSegments.apply(inner, causal, rope, keep, *inputs)
    return out, loss, tuple(state)


class _InSegments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner, causal, rope, keep, q, k, v, lr, tau, gamma, beta, *parts):
        ctx.set_materialize_grads(False)
        ctx.how = inner, causal, rope
        state = _join(parts)
        out, loss = torch.empty_like(v), torch.empty_like(lr)
        states: list[Tensor] = []
        for rows in _slices(q, tau):
            segment = _prepare((q, k, v, lr), rows, tau, gamma, beta, causal, rope)
            if keep:
                states += state
            steps = inner.walk(segment, state)
            zbar = inner.answer(segment, steps)
            y = segment.gamma * F.layer_norm(zbar, zbar.shape[-1:], eps=EPS)
            out[:, :, rows] = _tokens(y.add_(segment.q[..., :-1]).add_(segment.beta), out[:, :, rows])
            loss[:, :, rows] = _tokens(0.5 * torch.stack(steps.error).square_().sum(-1), loss[:, :, rows])
            state = tuple(w[-1].clone() for w in steps.states)
        ctx.save_for_backward(q, k, v, lr, tau, gamma, beta, *states)
        return out, loss, *_split(state, len(q))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout, dloss, *dparts):
        saved = ctx.saved_tensors
        with torch.autocast(saved[0].device.type, enabled=False):
            return _gradients(saved, ctx.how, dout, dloss, dparts)


def _gradients(saved, how, dout, dloss, dparts) -> tuple:
    q, k, v, lr, tau, gamma, beta, *states = saved
    inner, *how = how
    layers = len(dparts) // 2
    states = [tuple(states[i : i + layers]) for i in range(0, len(states), layers)]
    likes = _split(states[0], len(q))
    dstate = _join([_zeros_if_none(dx, x) for dx, x in zip(dparts, likes)])
    dout = _zeros_if_none(dout, v)
    dq, dk, dv, dlr = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(lr)
    dtau, dgamma, dbeta = torch.zeros_like(tau), torch.zeros_like(gamma), torch.zeros_like(beta)
    for rows, state in zip(reversed(_slices(q, tau)), reversed(states)):
        segment = _prepare((q, k, v, lr), rows, tau, gamma, beta, *how)
        upstream = _chunks(dout[:, :, rows], len(tau))
        upstream_loss = None if dloss is None else _chunks(dloss[:, :, rows], len(tau))
        steps = inner.walk(segment, state)
        gradients, dstate = inner.backward(segment, steps, tau, upstream, upstream_loss, dstate)
        for dx, g in zip((dq, dk, dv, dlr), gradients):
            dx[:, :, rows] = _tokens(g, dx[:, :, rows])
        dtau += gradients[4]
        for total, g in zip((dgamma, dbeta), gradients[5:]):  # [bh, f]
            total += g.unflatten(0, q.shape[:2]).sum(0)
    if how[-1]:
        back = rotations_like(q, len(tau)).conj()
        dq, dk = rotate(dq, back), rotate(dk, back)
    return *[None] * 4, dq, dk, dv, dlr, dtau, dgamma, dbeta, *_split(dstate, len(q))


def _prepare(inputs, rows, tau, gamma, beta, causal, rope) -> Segment:
    q, k, v, lr = (x[:, :, rows] for x in inputs)
    b, _, t, _ = q.shape
    n = len(tau)
    if rope:
        rotation = rotations_like(q, n)
        q, k = rotate(q, rotation), rotate(k, rotation)
    q, k, lr = _with_ones(_chunks(q, n)), _with_ones(_chunks(k, n)), _chunks(lr, n)
    ranks = torch.arange(1, len(q) + 1, device=q.device).mul_(n).clamp_max_(t).sub_(1).remainder_(n)
    last = tau[ranks, None, None]
    gamma, beta = (x.repeat(b, 1)[:, None] for x in (gamma, beta))
    eta = gram = q.new_empty(0)
    if causal:
        eta = (tau[:, None] * lr[:, :, None]).tril_()
        gram = q @ k.mT
    offset = k[..., :-1] - _chunks(v, n) + beta
    return Segment(q, k, (lr * last)[..., None], lr, last, ranks, offset, gamma, beta, causal, eta, gram)


def inner_gradient(segment: Segment, steps: Steps, z: Tensor) -> Tensor:
    """Return g [bh, n, f] at the next chunk's z, and keep in `steps` how it came about."""
    xh, mean, r = torch.native_layer_norm(z, z.shape[-1:], None, None, EPS)
    error = torch.addcmul(segment.offset[len(steps.z)], xh, segment.gamma)
    g = normalized(error * segment.gamma, z, mean, r)
    for kept, x in zip(steps[2:], (z, xh, mean, r, error, g)):
        kept.append(x)
    return g


def inner_gradient_backward(dg, segment: Segment, steps: Steps, c: int, dloss, dz, derror) -> Tensor:
    """Go back through the c-th inner gradient: write dz and derror, return dgamma [bh, f]."""
    z, xh, mean, r, error, g = (x[c] for x in steps[2:])
    gamma, f = segment.gamma, z.shape[-1]
    dgx = normalized(dg, z, mean, r)
    torch.mul(dgx, gamma, out=derror)
    if dloss is not None:
        derror.addcmul_(dloss[c, :, :, None], error)
    dz.copy_(normalized(derror * gamma, z, mean, r))
    dz.addcmul_(dgx, r * (error * gamma * xh).sum(-1, keepdim=True), value=-1 / f)
    dz.addcmul_(g, r * (dg * xh).sum(-1, keepdim=True), value=-1 / f)
    dz.addcmul_(xh, r * (dg * g).sum(-1, keepdim=True), value=-1 / f)
    return (dgx * error).addcmul_(derror, xh).sum(1)


def output_backward(segment: Segment, zbar: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
    """Return dzbar, and dgamma [bh, f]."""
    yh, mean, r = torch.native_layer_norm(zbar, zbar.shape[-1:], None, None, EPS)
    return normalized(dout * segment.gamma, zbar, mean, r), (dout * yh).sum((0, 2))


def chain_backward(segment: Segment, gram: Tensor, g: Tensor, dzbar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Go back through ``-(eta * gram) g``, what a token's answer owes to its chunk: return deta, dgram and dg."""
    dchain = (dzbar @ g.mT).neg_().tril_()
    return dchain * gram, dchain * segment.eta, ((segment.eta * gram).mT @ dzbar).neg_()


def step_size_gradients(segment: Segment, tau: Tensor, dend: Tensor, deta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return dlr [c, bh, n] and dtau [n]."""
    dlr = segment.last * dend
    dtau = torch.zeros_like(tau).index_add_(0, segment.ranks, (segment.lr * dend).sum((1, 2)))
    if deta is not None:
        dlr += tau @ deta
        dtau += (deta @ segment.lr[..., None]).sum((0, 1, 3))
    return dlr, dtau


def normalized(y: Tensor, z: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Return the gradient by z where y is that by xh = LN(z): ``r (y - mean(y) - xh mean(y xh))``."""
    shape = z.shape[-1:]
    return torch.ops.aten.native_layer_norm_backward(y, z, shape, mean, r, None, None, [True, False, False])[0]


def _slices(q: Tensor, tau: Tensor) -> list[slice]:
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


def _join(parts) -> State:
    """Weights [b, h, i, o] and biases [b, h, o] in turn -> each layer's [bh, i + 1, o]."""
    return tuple(torch.cat((w, b[:, :, None]), 2).flatten(0, 1) for w, b in zip(parts[::2], parts[1::2]))


def _split(state: State, cells: int) -> State:
    layers = (w.unflatten(0, (cells, -1)) for w in state)
    return tuple(part.contiguous() for w in layers for part in (w[:, :, :-1], w[:, :, -1]))


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(1).expand(*x.shape[:-1], 1)), -1)


def _zeros_if_none(x: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if x is None else x
