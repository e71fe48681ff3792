"""Targets of the TTT layer, as ratios within one run; forward + backward."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from benchmarks.contenders import ATTENTION, BACKWARD, BF16, BOTH, CHUNKED, REFERENCE, TTT

#: Exponent of the time of forward + backward, from 1,000 to 20,000 tokens.
EXPONENT = 1.05


@dataclass(frozen=True)
class Target:
    """A quantity (``ms`` or ``MB`` per cell) of one layer over that of another, by number of tokens."""

    what: str
    quantity: str
    over: tuple[str, str]
    bounds: Mapping[int, float]
    at_least: bool = True


TARGETS = (
    Target("TTT is faster than the reference loop", "ms", (REFERENCE, TTT), {400: 2.5, 4000: 8, 20000: 25}),
    Target("with bf16 projections", "ms", (REFERENCE, BF16), {400: 5, 4000: 15, 20000: 50}),
    Target("TTT is faster than attention", "ms", (ATTENTION, TTT), {400: 1.5, 4000: 10, 20000: 50}),
    Target("chunked torch is faster than the reference loop", "ms", (REFERENCE, CHUNKED), {4000: 3, 20000: 8}),
    Target("both directions cost", "ms", (BOTH, TTT), {400: 1.35, 4000: 1.35, 20000: 1.35}, at_least=False),
    Target("memory relative to the reference loop", "MB", (TTT, REFERENCE), {4000: 0.45, 20000: 0.35}, at_least=False),
)


def compare(results: pd.DataFrame) -> pd.DataFrame:
    """Return the measured targets: name, tokens, ratio, bound and whether it is met.

    Parameters
    ----------
    results
        Columns layer, tokens, pass, ms and MB, as returned by `benchmarks.operator.measure`.
    """
    rows = list(_rows(results[results["pass"] == BACKWARD].set_index(["layer", "tokens"])))
    return pd.DataFrame(rows, columns=["target", "tokens", "ratio", "target ratio", "met"]).set_index("target")


def _rows(figures: pd.DataFrame) -> Iterator[tuple[str, int, float, str, bool]]:
    for target in TARGETS:
        value = figures[target.quantity].dropna().to_dict()
        for tokens, bound in target.bounds.items():
            above, below = (value.get((name, tokens)) for name in target.over)
            if above is not None and below is not None:
                ratio = above / below
                met = ratio >= bound if target.at_least else ratio <= bound
                yield target.what, tokens, ratio, f"{'≥' if target.at_least else '≤'} {bound:g}", met
