"""The entry points of the operator: check the arguments, choose a backend and run it."""

from typing import NamedTuple

import torch
from torch import Tensor

from scfusionttt.ttt.backends import run_backend
from scfusionttt.ttt.choice import choose_backend
from scfusionttt.ttt.definition import State


class TTTOutput(NamedTuple):
    """What the operator returns; `loss` and `state` are None unless asked for.

    Attributes
    ----------
    out : Tensor [b, h, t, f]
    loss : Tensor [b, h, t] or None
        Inner loss ``|f(k_j) - v_j|^2 / 2`` at the state in which the token's mini-batch started.
    state : tuple of Tensor or None
        The inner model after the last token, with a batch dimension: (W, b) or (W1, b1, W2, b2).
    """

    out: Tensor
    loss: Tensor | None
    state: State | None


def step_sizes(delta: Tensor) -> Tensor:
    """Return tau, ``max(0, 1/(i+1) + delta_i)`` for the i-th token of a mini-batch; delta [mini_batch] is learned."""
    rank = torch.arange(1, len(delta) + 1, device=delta.device, dtype=delta.dtype)
    return (1 / rank + delta).clamp_min(0)


def ttt_linear(
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
    rope: bool = True,
    backend: str = "auto",
    return_loss: bool = False,
    return_state: bool = False,
) -> TTTOutput:
    """Run a TTT-Linear layer: the hidden state is a linear model trained on the tokens it reads.

    Parameters
    ----------
    q, k, v : Tensor [b, h, t, f]
        Queries, keys and values; any strides; half precision is computed in the state's precision.
    lr : Tensor [b, h, t]
        Learning rate of each token as a source, >= 0.
    tau : Tensor [mini_batch]
        Step of each rank in the mini-batch, see `step_sizes`.
    w0, b0 : Tensor [h, f, f] and [h, f], or [b, h, f, f] and [b, h, f]
        Initial state; its precision, float32 or float64, is that of the computation and of the result.
    gamma, beta : Tensor [h, f]
        Scale and shift of the inner layer norm (eps 1e-6).
    mini_batch : int
        Tokens that share a starting state. A sequence in pieces, with the state carried, equals the whole one when
        each piece but the last is a multiple of this.
    mask : bool Tensor [b, t], optional
        True where a token is present. An absent token changes nothing, whatever it holds; its output is 0.
    causal : bool
        Whether a token sees only the earlier tokens of its mini-batch, or all of them.
    reverse : bool
        Read from the last token to the first; results stay in the order of the input.
    both : bool
        Read forwards and in reverse, each from the initial state, and add the outputs and the losses.
    rope : bool
        Rotate q and k by their position in the mini-batch (f must be even).
    backend : {"auto", "cpu", "gpu", "chunked", "definition"}
        How to compute the same numbers: see `choose_backend`.
    return_loss, return_state : bool
        Also return the inner loss per token, and the final state.

    Returns
    -------
    TTTOutput

    Raises
    ------
    ValueError
        If a shape does not fit.
    SettingError
        If the backend does not exist, or does not fit.

    Notes
    -----
    Differentiable once. For second derivatives and ``torch.func``, and to change results in place, use the backend
    ``definition``.

    References
    ----------
    Sun et al., Learning to (Learn at Test Time), arXiv 2407.04620.
    """
    options = _Options(
        mini_batch, causal, _directions(reverse, both, return_state), rope, backend, return_loss, return_state
    )
    tensors = {"q": q, "k": k, "v": v, "lr": lr, "tau": tau, "gamma": gamma, "beta": beta}
    return _run("linear", tensors, {"w0": w0, "b0": b0}, mask, options)


def ttt_mlp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    tau: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    mini_batch: int = 16,
    mask: Tensor | None = None,
    causal: bool = True,
    reverse: bool = False,
    both: bool = False,
    rope: bool = True,
    backend: str = "auto",
    return_loss: bool = False,
    return_state: bool = False,
) -> TTTOutput:
    """Run a TTT-MLP layer: as `ttt_linear`, the state being ``gelu(x W1 + b1) W2 + b2``.

    Parameters
    ----------
    w1, b1, w2, b2 : Tensor [h, f, m], [h, m], [h, m, f] and [h, f], or each with a leading batch dimension
        Initial state; m is 4 f in the paper.

    The other parameters, the result and the errors are those of `ttt_linear`.
    """
    options = _Options(
        mini_batch, causal, _directions(reverse, both, return_state), rope, backend, return_loss, return_state
    )
    tensors = {"q": q, "k": k, "v": v, "lr": lr, "tau": tau, "gamma": gamma, "beta": beta}
    return _run("mlp", tensors, {"w1": w1, "b1": b1, "w2": w2, "b2": b2}, mask, options)


class _Options(NamedTuple):
    mini_batch: int
    causal: bool
    directions: tuple[bool, ...]  # for each pass over the tokens, whether it is in reverse
    rope: bool
    backend: str
    return_loss: bool
    return_state: bool


def _directions(reverse: bool, both: bool, return_state: bool) -> tuple[bool, ...]:
    if both and (reverse or return_state):
        raise ValueError("both=True reads in reverse too and ends in two states: leave out reverse and return_state")
    return (False, True) if both else (bool(reverse),)  # kernels would be compiled anew for an int


def _run(
    inner: str, tensors: dict[str, Tensor], initial: dict[str, Tensor], mask: Tensor | None, options: _Options
) -> TTTOutput:
    """Run the operator on q, k, v, lr, tau, gamma and beta, in this order, from the initial state."""
    _check(tensors, mask, options)
    _check_state(initial, tensors["q"])
    q, state = tensors["q"], tuple(initial.values())
    dtype = state[0].dtype
    backend = choose_backend(options.backend, inner, q.device, q.shape[-1], options.mini_batch, dtype)
    if 0 in q.shape[:2]:
        backend = "definition"  # nothing to compute: the others work on the memory of a cell's head
    state = tuple(s.to(dtype) for s in state)
    state = tuple(s.expand(len(q), *s.shape) if s.ndim == rank else s for s, rank in zip(state, (3, 2, 3, 2)))
    inputs = [x.to(dtype) for x in tensors.values()]
    how = {"mask": mask, "causal": options.causal, "directions": options.directions, "rope": options.rope}
    out, loss, state = run_backend(backend, inner, state, *inputs, **how)
    return TTTOutput(out, loss if options.return_loss else None, state if options.return_state else None)


def _check(tensors: dict[str, Tensor], mask: Tensor | None, options: _Options) -> None:
    q = tensors["q"]
    if q.ndim != 4 or q.shape[2] == 0:
        raise ValueError(f"q must be [b, h, t, f] with at least one token, not {list(q.shape)}")
    if options.mini_batch < 1:
        raise ValueError(f"mini_batch must be at least 1, not {options.mini_batch}")
    b, h, t, f = q.shape
    if options.rope and f % 2:
        raise ValueError(f"rotary positions need an even head size, not {f}")
    shapes = {"k": (b, h, t, f), "v": (b, h, t, f), "lr": (b, h, t), "gamma": (h, f), "beta": (h, f)}
    shapes |= {"tau": (options.mini_batch,), "mask": (b, t), "q": q.shape}
    if mask is not None:
        tensors = tensors | {"mask": mask}
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True where a token is present, not {mask.dtype}")
    for name, x in tensors.items():
        if x.shape != shapes[name]:
            raise ValueError(f"{name} must be {list(shapes[name])} for q {list(q.shape)}, not {list(x.shape)}")
        if x.is_complex():
            raise ValueError(f"{name} must be real, not {x.dtype}")


def _check_state(state: dict[str, Tensor], q: Tensor) -> None:
    b, h, _, f = q.shape
    weights, *_ = state.values()
    hidden = f if len(state) == 2 else weights.shape[-1]
    shapes = ((h, f, hidden), (h, hidden), (h, hidden, f), (h, f))
    for (name, s), shape in zip(state.items(), shapes):
        if s.shape not in (shape, (b, *shape)):
            raise ValueError(
                f"{name} must be {list(shape)}, with an optional leading dimension of {b} cells, not {list(s.shape)}"
            )
        if s.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, not {s.dtype}")
