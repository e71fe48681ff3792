"""What runs on this machine: versions, devices, and each TTT kernel against the definition."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from scfusionttt.ttt import BACKENDS, step_sizes, ttt_linear

_PACKAGES = ("scfusionttt", "torch", "lightning", "numba", "triton", "anndata", "mudata", "scanpy")

#: Largest difference from the definition, relative to its largest value, that counts as the same in float32.
TOLERANCE = 1e-4


def examine(*, seed: int = 0) -> dict[str, Any]:
    """Return versions, devices, and per kernel its parity with the definition and its speed.

    Parity is the largest difference of output and gradients in float32, relative to the largest value, on a sequence
    of odd length with masked tokens; speed is forward and backward, nanoseconds per token and head.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "devices": {
            "cpu": f"{torch.get_num_threads()} threads",
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not there",
            "mps": "there" if torch.backends.mps.is_available() else "not there",
        },
        "kernels": [_try_kernel(name, device, seed) for device in devices for name in BACKENDS if name != "definition"],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _try_kernel(name: str, device: str, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"kernel": name, "device": device}
    try:
        inputs = _inputs(cells=2, tokens=101, device=device, seed=seed)
        truth, found = (_run(inputs, backend) for backend in ("definition", name))
        difference = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(truth, found, strict=True))
        inputs = _inputs(cells=16, tokens=1600, device=device, seed=seed)
        _run(inputs, name)
        start = time.process_time() if device == "cpu" else time.perf_counter()
        _run(inputs, name)
        seconds = (time.process_time() if device == "cpu" else time.perf_counter()) - start
    except Exception as error:  # a kernel that fails is a finding, whatever the reason
        return {**row, "works": "no", "difference": None, "ns per token-head": None, "note": str(error).split("\n")[0]}
    works = "yes" if difference <= TOLERANCE else "no"
    speed = seconds / inputs[0].shape[:3].numel() * 1e9
    return {**row, "works": works, "difference": f"{difference:.1e}", "ns per token-head": round(speed), "note": ""}


def _inputs(*, cells: int, tokens: int, device: str, seed: int, heads: int = 2, width: int = 32) -> list[Tensor]:
    """Return q, k, v, lr, tau, w0, b0, gamma, beta, and the mask."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(cells, heads, tokens, width, generator=draw) for _ in range(3))
    lr = torch.rand(cells, heads, tokens, generator=draw) / width
    w0 = 0.02 * torch.randn(heads, width, width, generator=draw)
    gamma = 1 + 0.1 * torch.randn(heads, width, generator=draw)
    bias = torch.zeros(heads, width)
    mask = torch.rand(cells, tokens, generator=draw) > 0.15
    tensors = [q, k, v, lr, step_sizes(torch.zeros(16)), w0, bias, gamma, bias.clone()]
    return [*(tensor.to(device).requires_grad_() for tensor in tensors), mask.to(device)]


def _run(inputs: list[Tensor], backend: str) -> list[Tensor]:
    """Return output and gradients."""
    *tensors, mask = inputs
    out = ttt_linear(*tensors, mask=mask, backend=backend).out
    grads = torch.autograd.grad(out.square().sum(), tensors)
    if out.is_cuda:
        torch.cuda.synchronize()
    return [out.detach(), *grads]
