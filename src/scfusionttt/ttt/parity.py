"""Compare a backend with the token-by-token definition on this machine: output, inner loss and all gradients."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Largest accepted difference from the definition, relative to its largest value, by the precision of matrix products
#: on a GPU (``torch.set_float32_matmul_precision``).
TOLERANCES = {"highest": 1e-4, "high": 1e-2, "medium": 1e-1}

TENSORS = ("q", "k", "v", "lr", "tau", "w0", "b0", "gamma", "beta")


def make_case(
    *,
    cells: int,
    tokens: int,
    head: int,
    heads: int = 2,
    mini_batch: int = 16,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return arguments of `ttt_linear` by name: `TENSORS`, which require gradients, and a mask with holes."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(cells, heads, tokens, head, generator=draw) for _ in range(3))
    lr = torch.rand(cells, heads, tokens, generator=draw) / head
    tau = 1 / torch.arange(1.0, mini_batch + 1)
    w0 = 0.02 * torch.randn(heads, head, head, generator=draw)
    gamma = 1 + 0.1 * torch.randn(heads, head, generator=draw)
    mask = torch.rand(cells, tokens, generator=draw) > 0.15
    b0, beta = (0.1 * torch.randn(heads, head, generator=draw) for _ in range(2))
    tensors = dict(zip(TENSORS, (q, k, v, lr, tau, w0, b0, gamma, beta)))
    return {name: x.to(device, dtype).requires_grad_() for name, x in tensors.items()} | {"mask": mask.to(device)}


def results(operator: Callable[..., Any], case: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """Return the output, the inner loss, and the gradients by every tensor of the case, by name."""
    out, loss, _ = operator(**case, mini_batch=len(case["tau"]), return_loss=True, **options)
    gradients = torch.autograd.grad(out.square().sum() + loss.sum(), [case[name] for name in TENSORS])
    return {"out": out.detach(), "loss": loss.detach()} | {f"d{name}": g for name, g in zip(TENSORS, gradients)}


def differences(results: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest difference of each result, relative to its largest value; inf for NaN."""
    each = {name: float((results[name] - x).abs().max() / x.abs().max()) for name, x in truth.items()}
    return {name: float("inf") if math.isnan(d) else d for name, d in each.items()}


def difference(operator: Callable[..., Any], backend: str, *, causal: bool = True, **case: Any) -> float:
    """Return the largest difference of a backend in float32 from the definition in float64 in a case of `make_case`."""
    with torch.inference_mode(False), torch.enable_grad():
        exact = results(operator, make_case(**case, dtype=torch.float64), backend="definition", causal=causal)
        return max(differences(results(operator, make_case(**case), backend=backend, causal=causal), exact).values())
