"""Check that the timed implementations compute the same thing; otherwise no speed-up is printed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.contenders import BACKWARD, BF16, BOTH, CHUNKED, CONTENDERS, REFERENCE, TTT, passes, ttt_layer
from benchmarks.reference import ttt_linear_reference
from scfusionttt.ttt import TTTOutput, step_sizes, ttt_linear

#: Largest difference relative to the largest value, of the output and of every gradient.
EXACT, SINGLE, STEP_SIZES, HALF = 1e-12, 1e-5, 1e-4, 5e-2

Tensors = dict[str, Tensor]


class Check(NamedTuple):
    """A difference and its bound."""

    what: str
    difference: float
    at_most: float

    @property
    def holds(self) -> bool:
        """False for NaN, too."""
        return self.difference <= self.at_most


def check(*, tokens: int = 1007, long: int = 20000) -> list[Check]:
    """Compare layers with the reference loop, and operators with the definition and with float64.

    Parameters
    ----------
    tokens
        Length at which layers are compared.
    long
        Length at which float32 is compared with float64.
    """
    return [*_layers(tokens), *_operators(), *_precision(long)]


def as_table(checks: Sequence[Check]) -> pd.DataFrame:
    """Return the checks as rows."""
    rows = [{"check": x.what, "difference": x.difference, "at most": x.at_most, "holds": x.holds} for x in checks]
    return pd.DataFrame(rows).set_index("check")


def _layers(tokens: int) -> list[Check]:
    reference = {way: ttt_layer(ttt_linear_reference, direction=way) for way in ("causal", "both")}
    shaken = _shaken(reference["causal"])
    truth = {way: _run_layer(REFERENCE, layer, shaken, tokens) for way, layer in reference.items()}
    checks = []
    for name in (TTT, BF16, BOTH, CHUNKED):
        results = _run_layer(name, CONTENDERS[name].make(), shaken, tokens)
        difference = _worst(results, truth["both" if name == BOTH else "causal"])
        checks.append(Check(f"layer {name}, against {REFERENCE}", difference, HALF if name == BF16 else SINGLE))
    return checks


def _shaken(layer: nn.Module) -> Tensors:
    """Return weights without zeros."""
    generator = torch.Generator().manual_seed(0)
    return {name: x.detach() + 0.02 * torch.randn(x.shape, generator=generator) for name, x in layer.named_parameters()}


def _run_layer(name: str, layer: nn.Module, weights: Tensors, tokens: int) -> Tensors:
    layer.load_state_dict(weights)
    results = passes(name, layer, cells=2, length=tokens)[BACKWARD]()
    return dict(zip(("output", "tokens", *weights), results, strict=True))


def _operators() -> list[Check]:
    inputs = _operator_inputs(tokens=67, dtype=torch.float64)
    truth = _run_operator(partial(ttt_linear, backend="definition"), inputs)
    ways: dict[str, Callable[..., TTTOutput]] = {
        "auto": ttt_linear,
        "chunked": partial(ttt_linear, backend="chunked"),
        REFERENCE: ttt_linear_reference,
    }
    return [
        Check(f"operator {name}, against the definition, float64", _worst(_run_operator(way, inputs), truth), EXACT)
        for name, way in ways.items()
    ]


def _precision(tokens: int) -> list[Check]:
    inputs = _operator_inputs(tokens=tokens, dtype=torch.float64)
    truth = _run_operator(ttt_linear, inputs)
    single = {name: x.detach().float().requires_grad_() for name, x in inputs.items()}
    results = _run_operator(ttt_linear, single)
    steps = {"tau"}
    what = f"operator auto at {tokens} tokens, float32 against float64"
    return [
        Check(what, _worst({k: x for k, x in results.items() if k not in steps}, truth), SINGLE),
        Check(f"{what}, gradient of tau", _worst({k: results[k] for k in steps}, truth), STEP_SIZES),
    ]


def _operator_inputs(*, tokens: int, dtype: torch.dtype, heads: int = 2, f: int = 64) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator, dtype=dtype)
    inputs = {name: normal(1, heads, tokens, f) for name in "qkv"}
    inputs |= {"lr": normal(1, heads, tokens).sigmoid() / f, "tau": step_sizes(0.02 * normal(16))}
    inputs |= {"w0": 0.02 * normal(heads, f, f), "b0": 0.02 * normal(heads, f)}
    inputs |= {"gamma": 1 + 0.1 * normal(heads, f), "beta": 0.1 * normal(heads, f)}
    return {name: x.requires_grad_() for name, x in inputs.items()}


def _run_operator(operator: Callable[..., TTTOutput], inputs: Tensors) -> Tensors:
    """Return the output and the gradients of all inputs, by name."""
    out = operator(**inputs).out
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    gradients = torch.autograd.grad(out, list(inputs.values()), upstream)
    return {"output": out.detach()} | dict(zip(inputs, gradients, strict=True))


def _worst(results: Tensors, truth: Tensors) -> float:
    """Return the largest difference of a tensor, relative to its largest value; NaN if any value is NaN."""
    differences = [(x.double() - truth[name]).abs().max() / truth[name].abs().max() for name, x in results.items()]
    return float(torch.stack(differences).max())
