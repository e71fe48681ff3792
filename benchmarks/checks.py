"""Check that the timed implementations compute the same thing; otherwise no speed-up is printed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.contenders import BACKWARD, BF16, BOTH, CHUNKED, CONTENDERS, REFERENCE, TTT, passes, ttt_layer
from benchmarks.reference import ttt_linear_reference
from scfusionttt.ttt import TTTOutput, ttt_linear
from scfusionttt.ttt.parity import TENSORS, differences, make_case

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
        difference = max(differences(results, truth["both" if name == BOTH else "causal"]).values())
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
    case = make_case(cells=2, tokens=67, head=64, dtype=torch.float64)
    truth = _run_operator(partial(ttt_linear, backend="definition"), case)
    ways: dict[str, Callable[..., TTTOutput]] = {
        "auto": ttt_linear,
        "chunked": partial(ttt_linear, backend="chunked"),
        REFERENCE: ttt_linear_reference,
    }
    worst = {name: max(differences(_run_operator(way, case), truth).values()) for name, way in ways.items()}
    return [Check(f"operator {name}, against the definition, float64", x, EXACT) for name, x in worst.items()]


def _precision(tokens: int) -> list[Check]:
    double, single = (
        _run_operator(ttt_linear, make_case(cells=1, tokens=tokens, head=64, dtype=dtype))
        for dtype in (torch.float64, torch.float32)
    )
    each = differences(single, double)
    steps = each.pop("tau")
    what = f"operator auto at {tokens} tokens, float32 against float64"
    return [Check(what, max(each.values()), SINGLE), Check(f"{what}, gradient of tau", steps, STEP_SIZES)]


def _run_operator(operator: Callable[..., TTTOutput], case: Tensors) -> Tensors:
    """Return the output and the gradients of all tensors, by name."""
    out = operator(**case).out
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    gradients = torch.autograd.grad(out, [case[name] for name in TENSORS], upstream)
    return {"output": out.detach()} | dict(zip(TENSORS, gradients, strict=True))
