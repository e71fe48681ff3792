"""Parity and speed of the GPU kernels of TTT-Linear on this machine.

python benchmarks/gpu_parity.py --json gpu.json --markdown gpu.md

First parity: values and all gradients in float32 against float64, for several shapes and precisions of the matrix
products. Then the time of forward and backward, compared with the plain torch path and full attention (SDPA). Head
sizes and precisions that fail the parity check are not timed.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.measure import environment, print_table, write_json
from scfusionttt.report.tables import Table
from scfusionttt.ttt import ttt_linear
from scfusionttt.ttt.parity import TENSORS, TOLERANCES, differences, make_case, results

Shape = tuple[int, int, int, dict[str, bool]]
SHAPES: tuple[
    Shape, ...
] = (  # tokens, head, mini-batch, options; the first ones against the definition, long ones against `chunked`
    (101, 16, 16, {}),
    (101, 32, 16, {"causal": False}),
    (101, 64, 16, {"reverse": True}),
    (101, 64, 24, {"both": True}),
    (149, 32, 64, {}),
    (149, 64, 64, {}),
    (101, 128, 16, {}),
    (4001, 64, 16, {"both": True}),
    (20000, 32, 16, {}),
    (20000, 64, 16, {}),
)
QUICK: tuple[Shape, ...] = ((37, 16, 16, {}), (37, 32, 16, {"causal": False}))
LENGTHS = (400, 1000, 4000, 20000)
DEFINITION_UP_TO = 200  # tokens; beyond, the token-by-token definition takes too long
CAPTIONS = {
    "parity": "difference from float64, relative to the largest value",
    "speed": "forward + backward, ns per token and head; 'faster' is the speed-up of the GPU kernel over the row",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, time, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="device; cpu with TRITON_INTERPRET=1 only tests the script")
    parser.add_argument("--quick", action="store_true", help="two small shapes, one round")
    parser.add_argument("--heads", type=int, nargs="+", default=[32, 64], help="head sizes to time")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is available")
        return 1
    shapes, tolerances = (QUICK, ["highest"]) if given.quick else (SHAPES, list(TOLERANCES))
    parity = measure_parity(shapes, tolerances, device)
    print_table(parity.set_index("tokens"), CAPTIONS["parity"])
    holds = parity.groupby(["head", "precision"], sort=False)["holds"].all()
    for head, precision in holds.index[~holds]:
        print(f"not timed, because the parity check failed: head size {head}, precision {precision}")
    lengths, rounds = ((40,), 1) if given.quick else (LENGTHS, 5)
    tables = []
    for head in given.heads[:1] if given.quick else given.heads:
        precisions = [p for p in tolerances if holds.get((head, p), False)]
        tables.append(measure_speed(lengths, head, precisions, device, rounds))
    speed = pd.concat(tables, ignore_index=True)
    print_table(speed.set_index("tokens"), CAPTIONS["speed"])
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "Triton's interpreter"
    write_json(given.json, device=where, parity=parity, speed=speed)
    if given.markdown:
        head = f"{where}, torch {torch.__version__}, {environment()['date']}"
        measured = {"parity": parity, "speed": speed}
        shown = [Table(rows.set_index("tokens"), CAPTIONS[name]).markdown() for name, rows in measured.items()]
        given.markdown.write_text("\n\n".join([head, *shown]) + "\n", encoding="utf-8")
    return 0 if holds.all() else 1


def measure_parity(shapes: Sequence[tuple], precisions: Sequence[str], device: torch.device) -> pd.DataFrame:
    """Return a row per shape and precision: the largest differences of values and gradients, and whether both pass."""
    rows = []
    for tokens, head, mini_batch, options in shapes:
        case = {"cells": 2, "heads": 2, "tokens": tokens, "head": head, "mini_batch": mini_batch, "device": device}
        truth = "definition" if tokens <= DEFINITION_UP_TO else "chunked"
        exact = results(ttt_linear, make_case(**case, dtype=torch.float64), backend=truth, **options)
        for precision in precisions:
            row = {"tokens": tokens, "head": head, "mini_batch": mini_batch, "options": " ".join(options) or "-"}
            row |= {"precision": precision, "truth": truth}
            rows.append(row | compare(exact, make_case(**case), precision, options))
    return pd.DataFrame(rows)


def compare(exact: dict, case: dict, precision: str, options: dict) -> dict:
    """Return the largest differences of values and of gradients."""
    try:
        with matmul_precision(precision):
            worst_by_name = differences(results(ttt_linear, case, backend="gpu", **options), exact)
    except Exception as error:  # report what does not compile or fit
        return {"values": None, "gradients": None, "worst": str(error).splitlines()[0][:60], "holds": False}
    gradients = {name: d for name, d in worst_by_name.items() if name.startswith("d")}
    worst = max(gradients, key=gradients.__getitem__)
    values, largest = max(worst_by_name["out"], worst_by_name["loss"]), gradients[worst]
    holds = max(values, largest) <= TOLERANCES[precision]
    return {"values": values, "gradients": largest, "worst": worst, "holds": holds}


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Give float32 matrix products another precision inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure_speed(
    lengths: Sequence[int], head: int, precisions: Sequence[str], device: torch.device, rounds: int
) -> pd.DataFrame:
    """Return a row per length and contender; every contender reads the same q, k and v."""
    rows = []
    for tokens in lengths:
        cells = max(1, min(512, 400_000 // tokens)) if rounds > 1 else 1
        case = make_case(cells=cells, tokens=tokens, head=head, device=device)
        kernel = None
        for name, call in contenders(case, precisions).items():
            try:
                seconds = least_time(call, device, rounds)
            except torch.OutOfMemoryError:
                rows.append({"tokens": tokens, "head": head, "cells": cells, "what": name, "ns": None, "faster": None})
                continue
            kernel = seconds if name.startswith("gpu") and kernel is None else kernel
            faster = None if kernel is None else round(seconds / kernel, 2)
            ns = round(seconds / case["lr"].numel() * 1e9, 2)
            rows.append({"tokens": tokens, "head": head, "cells": cells, "what": name, "ns": ns, "faster": faster})
    return pd.DataFrame(rows)


def contenders(case: dict, precisions: Sequence[str]) -> dict[str, Callable[[], None]]:
    """Return the calls to time, by name, starting with the GPU kernel in the most exact precision that passed."""
    layers: dict[str, Callable[[], None]] = {f"gpu {p}": partial(run_ttt, case, p, backend="gpu") for p in precisions}
    layers |= {f"gpu {p}, both directions": partial(run_ttt, case, p, backend="gpu", both=True) for p in precisions[:1]}
    layers["chunked"] = partial(run_ttt, case, "highest", backend="chunked")
    layers |= {
        f"SDPA {str(d).removeprefix('torch.')}": partial(run_sdpa, case, d) for d in (torch.float32, torch.bfloat16)
    }
    return layers


def run_ttt(case: dict, precision: str, **options: Any) -> None:
    """Run the operator forward and backward."""
    with matmul_precision(precision):
        out = ttt_linear(**case, **options).out
        torch.autograd.grad(out, [case[name] for name in TENSORS], torch.ones_like(out))


def run_sdpa(case: dict, dtype: torch.dtype) -> None:
    """Run full attention over the same tokens forward and backward."""
    q, k, v = (case[name] for name in "qkv")
    out = torch.nn.functional.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    torch.autograd.grad(out, (q, k, v), torch.ones_like(out))


def least_time(call: Callable[[], None], device: torch.device, rounds: int) -> float:
    """Return the minimum time of several calls in seconds, after one that compiles."""
    times = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
