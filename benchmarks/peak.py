"""Peak memory of one layer at one length, as JSON: ``python -m benchmarks.peak "GRU" 4000``.

Each layer and length runs in a fresh process, because memory left over from an earlier call would hide its use.
"""

import json
import sys

import torch

from benchmarks.contenders import BACKWARD, CONTENDERS, FORWARD, make, passes
from benchmarks.measure import peak_memory


def main(name: str, length: int) -> None:
    """Print MB per cell by pass, including the input."""
    torch.set_num_threads(1)
    layer, cells = make(name), CONTENDERS[name].cells(length)
    peaks = {}
    for kind in (FORWARD, BACKWARD):
        peak = peak_memory(lambda kind=kind: passes(name, layer, cells=cells, length=length)[kind]())  # type: ignore[misc]
        peaks[kind] = None if peak is None else peak / cells
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
