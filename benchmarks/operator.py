"""Time and peak memory of the TTT layer and of alternatives, by sequence length.

python benchmarks/operator.py --json operator.json

Everything is per cell. Time is the minimum process time of several rounds in which all layers take turns; memory is the
peak of a fresh process. First the layers are checked against each other; if they differ, nothing is timed.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks import checks
from benchmarks.contenders import BACKWARD, CONTENDERS, FORWARD, TTT, make, passes
from benchmarks.measure import environment, least_process_time, print_table, run_module, write_json
from benchmarks.targets import compare
from scfusionttt.training.machine import freed_memory_kept

LENGTHS = (400, 1000, 2000, 4000, 8192, 20000, 32768)
QUICK = (100, 400)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print, write; returns the exit code."""
    given = fill_in(make_parser(__doc__).parse_args(arguments), lengths=LENGTHS, quick=QUICK)
    torch.set_num_threads(1)
    if not passes_check(given):
        return 1
    with freed_memory_kept():  # as in training
        results, notes = measure(given.lengths, repeats=given.repeats, limit=given.limit)
    report_times(results, notes)
    if given.memory:
        results["MB"] = peaks(results)
        report_memory(results)
    targets = compare(results)
    if len(targets):
        print_table(targets, "targets, forward + backward")
    write_json(given.json, check=given.check, results=results, targets=targets.reset_index(), notes=notes)
    return 0


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options for measuring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short sequences, one round, no memory")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens per cell")
    parser.add_argument("--repeats", type=int, help="rounds; the minimum counts")
    parser.add_argument("--limit", type=float, default=60, help="skip calls expected to take longer, in seconds")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, help="also measure peak memory")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser


def fill_in(given: argparse.Namespace, *, lengths: Sequence[int], quick: Sequence[int]) -> argparse.Namespace:
    """Fill in defaults; those of ``--quick`` take a few seconds."""
    given.lengths = sorted(given.lengths or (quick if given.quick else lengths))
    given.repeats = given.repeats or (1 if given.quick else 5)
    given.memory = not given.quick if given.memory is None else given.memory
    return given


def passes_check(given: argparse.Namespace) -> bool:
    """Check that the layers compute the same thing, print the table and store it in ``given.check``."""
    results = checks.check(**({"tokens": 101, "long": 1000} if given.quick else {}))
    given.check = checks.as_table(results).reset_index()
    print_table(given.check.set_index("check"), "correctness: largest difference, output and all gradients")
    failed = [check.what for check in results if not check.holds]
    if failed:
        print(f"\nnothing was timed, because these checks failed: {'; '.join(failed)}", flush=True)
        write_json(given.json, check=given.check)
    return not failed


def measure(
    lengths: Sequence[int], *, repeats: int, limit: float, names: Sequence[str] = tuple(CONTENDERS)
) -> tuple[pd.DataFrame, list[str]]:
    """Return the times, and a note for each that is missing.

    Returns
    -------
    results : DataFrame
        Columns layer, tokens, cells, pass, ms (per cell) and MB (not measured here).
    notes : list of str
        Skipped measurements and the reasons.
    """
    layers = {name: make(name) for name in names}
    seconds: dict[str, tuple[int, float]] = {}  # length and time per cell of each layer's last backward
    rows, notes = [], []
    for length in lengths:
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for name, layer in layers.items():
            reason = _reason_to_skip(name, length, seconds, limit)
            if reason:
                notes.append(f"{name}, {length:,} tokens: skipped, {reason}")
                continue
            ways = passes(name, layer, cells=CONTENDERS[name].cells(length), length=length)
            calls |= {(name, kind): call for kind, call in ways.items()}
        for (name, kind), least in least_process_time(calls, repeats=repeats).items():
            cells = CONTENDERS[name].cells(length)
            rows.append({"layer": name, "tokens": length, "cells": cells, "pass": kind, "ms": least / cells * 1e3})
            if kind == BACKWARD:
                seconds[name] = length, least / cells
        print(f"{length:,} tokens: timed", file=sys.stderr, flush=True)
    return pd.DataFrame(rows).assign(MB=float("nan")), notes


def _reason_to_skip(name: str, length: int, seconds: dict[str, tuple[int, float]], limit: float) -> str | None:
    """Return why a call is skipped, extrapolating quadratically from the last shorter one."""
    longest = CONTENDERS[name].longest
    if longest and length > longest:
        return f"measured only up to {longest:,} tokens"
    if name not in seconds:
        return None
    before, least = seconds[name]
    expected = least * (length / before) ** 2 * CONTENDERS[name].cells(length)
    return f"a call may take {expected:.0f} s, more than --limit {limit:g}" if expected > limit else None


def peaks(results: pd.DataFrame) -> pd.Series:
    """Return the peak memory of each row of `measure`, in MB per cell."""
    by_layer = {}
    for name, length in dict.fromkeys(zip(results["layer"], results["tokens"])):
        by_layer[name, length] = run_module("benchmarks.peak", name, length)
        print(f"{name}, {length:,} tokens: memory measured", file=sys.stderr, flush=True)
    columns = (results[column] for column in ("layer", "tokens", "pass"))
    return pd.Series([by_layer[name, length][kind] for name, length, kind in zip(*columns)], results.index, dtype=float)


def report_times(results: pd.DataFrame, notes: Sequence[str]) -> None:
    """Print times by layer and length, and as multiples of the time of TTT."""
    where = environment()
    print(f"\n{where['cpu']}, {where['threads']} thread, torch {where['versions']['torch']}, {where['date']}")
    for kind in (FORWARD, BACKWARD):
        print_table(_by_length(results, kind, "ms"), f"{kind}: ms per cell", notes if kind == FORWARD else ())
    times = _by_length(results, BACKWARD, "ms")
    print_table((times / times.loc[TTT]).drop(index=TTT), "times slower than TTT, forward + backward")


def report_memory(results: pd.DataFrame) -> None:
    """Print the peak memory by layer and length."""
    for kind in (FORWARD, BACKWARD):
        print_table(_by_length(results, kind, "MB"), f"{kind}: peak memory, MB per cell")


def _by_length(results: pd.DataFrame, kind: str, quantity: str) -> pd.DataFrame:
    table = results[results["pass"] == kind].pivot(index="layer", columns="tokens", values=quantity)
    return table.reindex(results["layer"].unique())


if __name__ == "__main__":
    sys.exit(main())
