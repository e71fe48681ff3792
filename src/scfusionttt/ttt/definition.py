"""The TTT layer by its definition, token by token: slow, and the truth that every other backend is held to.

The hidden state is a small inner model ``f(x) = x + LN(inner(x))``. Each token j asks it to reconstruct ``v_j`` from
``k_j``; its gradient is taken at the state in which the mini-batch started, and token i of the mini-batch answers
its query with ``state - tau_i * sum_{j <= i} lr_j * gradient_j`` (Sun et al., arXiv 2407.04620) or, not causal, with
the state in which the mini-batch ends, that of its last token.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scfusionttt.ttt.rope import apply_rope

State = tuple[Tensor, ...]
EPS = 1e-6


def linear(state: State, x: Tensor) -> Tensor:
    """Inner model of TTT-Linear: ``x W + b``; x [b, h, f], W [b, h, f, f], b [b, h, f]."""
    w, b = state
    return torch.einsum("bhf,bhfg->bhg", x, w) + b


def mlp(state: State, x: Tensor) -> Tensor:
    """Inner model of TTT-MLP: ``gelu(x W1 + b1) W2 + b2`` with four times as many hidden units."""
    w1, b1, w2, b2 = state
    return linear((w2, b2), F.gelu(linear((w1, b1), x), approximate="tanh"))


def ttt_definition(
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
    causal: bool,
    rope: bool,
) -> tuple[Tensor, Tensor, State]:
    """Return outputs [b, h, t, f], inner losses [b, h, t] and the final state.

    Shapes as in `ttt_linear`; the state has the batch dimension. Differentiable by autograd.
    """
    mini_batch = len(tau)
    if rope:
        q, k = apply_rope(q, mini_batch), apply_rope(k, mini_batch)

    def model(state: State, x: Tensor) -> Tensor:
        return x + gamma * F.layer_norm(inner(state, x), x.shape[-1:], eps=EPS) + beta

    def reconstruction_loss(state: State, k_j: Tensor, v_j: Tensor) -> tuple[Tensor, Tensor]:
        loss = 0.5 * (model(state, k_j) - v_j).square().sum(-1)
        return loss.sum(), loss  # no cell or head depends on another: the gradient of the sum is each one's own

    gradient = torch.func.grad(reconstruction_loss, has_aux=True)
    outs, losses = [], []
    for start in range(0, q.shape[2], mini_batch):
        tokens = range(start, min(start + mini_batch, q.shape[2]))
        direction: State = tuple(torch.zeros_like(s) for s in state)
        for j, tau_j in zip(tokens, tau):
            grads, loss = gradient(state, k[:, :, j], v[:, :, j])
            direction = tuple(d + _times(lr[:, :, j], g) for d, g in zip(direction, grads))
            updated = tuple(s - tau_j * d for s, d in zip(state, direction))
            losses.append(loss)
            if causal:
                outs.append(model(updated, q[:, :, j]))
        if not causal:  # every token sees the whole mini-batch, with the step of its last token
            outs += [model(updated, q[:, :, j]) for j in tokens]
        state = updated
    return torch.stack(outs, 2), torch.stack(losses, 2), state


def _times(lr: Tensor, gradient: Tensor) -> Tensor:
    return lr.view(*lr.shape, *[1] * (gradient.ndim - 2)) * gradient
