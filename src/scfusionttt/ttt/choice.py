"""Choose the backend: whether each fits the device and the shapes, and which one ``auto`` takes."""

import logging
import os
from functools import cache
from importlib import import_module

import torch

from scfusionttt.errors import SettingError, first_line
from scfusionttt.ttt.backends import BACKENDS
from scfusionttt.ttt.parity import TOLERANCES, difference

_KERNELS = {"cpu": "cpu", "cuda": "gpu"}  # by device; the other backends run on any

_log = logging.getLogger(__name__)


def choose_backend(
    backend: str,
    inner: str,
    device: torch.device,
    head: int,
    mini_batch: int = 16,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Return the name of the backend to use; ``auto`` takes the fastest one that fits.

    Parameters
    ----------
    backend : {"auto", "definition", "chunked", "cpu", "gpu"}
        ``auto`` takes the GPU kernel only if it agrees with the definition on that device, which is tested once per
        process, head size and mini-batch.
    inner : {"linear", "mlp"}
    device : torch.device
    head : int
        Head size f.
    mini_batch : int
    dtype : torch.dtype
        Precision of the state.

    Raises
    ------
    SettingError
        If the backend does not exist, or does not fit.
    """
    if backend not in ("auto", *BACKENDS):
        raise SettingError(f"TTT backend {backend!r} does not exist; choose auto, {', '.join(BACKENDS)}")
    shape = head, mini_batch, dtype
    if backend == "auto":
        kernel = _KERNELS.get(device.type)
        precision = torch.get_float32_matmul_precision() if kernel == "gpu" else "highest"
        return kernel if kernel and _auto_takes(kernel, inner, device, *shape, precision) else "chunked"
    if backend in _KERNELS.values() and (obstacle := _obstacle(backend, inner, device.type, *shape)):
        raise SettingError(f"TTT backend {backend!r} does not fit: {obstacle}; choose auto")
    return backend


@cache
def _auto_takes(
    kernel: str, inner: str, device: torch.device, head: int, mini_batch: int, dtype: torch.dtype, precision: str
) -> bool:
    obstacle = _obstacle(kernel, inner, device.type, head, mini_batch, dtype)
    if kernel == "gpu" and not obstacle:
        obstacle = _disparity(device, head, mini_batch, precision)
    if obstacle:
        _log.info("TTT runs in plain torch: %s", obstacle)
    return not obstacle


@cache
def _obstacle(kernel: str, inner: str, device: str, head: int, mini_batch: int, dtype: torch.dtype) -> str | None:
    """Return the reason why a kernel does not fit, or None."""
    interpreted = kernel == "gpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if _KERNELS.get(device) != kernel and not interpreted:
        return f"the data are on {device}"
    if inner != "linear":
        return "TTT-MLP has no kernel of its own"
    try:
        return import_module(f"scfusionttt.ttt.{kernel}.layer").misfit(head, mini_batch, dtype)
    except Exception as error:  # a broken Numba or Triton can fail in many ways
        return f"its kernel does not load ({error})"


def _disparity(device: torch.device, head: int, mini_batch: int, precision: str) -> str | None:
    """Return how the GPU kernel differs from the definition in a small case on this device, or None."""
    from scfusionttt.ttt.dispatch import ttt_linear  # which imports this module

    case = {"cells": 2, "tokens": 2 * mini_batch + 5, "head": head, "mini_batch": mini_batch, "device": device}
    try:
        largest = max(difference(ttt_linear, "gpu", causal=causal, **case) for causal in (True, False))
    except Exception as error:  # compilers and drivers can fail in many ways
        return f"its kernel does not run on {device} ({first_line(error)})"
    if largest <= TOLERANCES[precision]:
        return None
    return f"its kernel differs from the definition by {largest:.0e} on {device}"
