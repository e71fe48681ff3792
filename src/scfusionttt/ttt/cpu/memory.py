"""Memory of the CPU kernel: tensors that are read and written in place, and the scratch matrices of each thread.

A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size of the tiles; an absent token, or one beyond
the end, is a row of zeros with lr = 0. A state is an [f + 1, f] matrix whose last row is the bias.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from scfusionttt.loops.compile import compiled
from scfusionttt.ttt.cpu.vector import (
    lanes,
    load,
    load_masked,
    padded,
    prefetch,
    prefetch_to_write,
    store,
    store_masked,
    store_nontemporal,
    swap_pairs,
)

SEGMENT = 16  # chunks between two kept states
LINE = 64  # bytes that the processor reads at once


class Tokens(NamedTuple):
    """The tensors of a sequence as flat arrays, with their strides along [cell, head, token]."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lr: np.ndarray
    present: np.ndarray
    strides: np.ndarray  # int64 [8, 3]: of these five, of the outputs, of the losses (and dlr), of dq, dk and dv
    length: int
    heads: int
    reverse: bool
    add: bool  # whether results are added to the output arrays instead of replacing their values
    streams: bool  # whether results bypass the cache: none is added, and all are whole, aligned vectors


Q, K, V, LR, PRESENT, OUT, LOSS, GRADIENT = range(8)


class Gradients(NamedTuple):
    """The gradients of the outer loss by the results, which are read, and by the tokens; flat arrays as in `Tokens`."""

    out: np.ndarray
    loss: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lr: np.ndarray


class Layer(NamedTuple):
    """Parameters and tables of the layer, the same for all cells, padded."""

    tau: np.ndarray  # [1, n]
    gamma: np.ndarray  # [h, f]
    beta: np.ndarray
    earlier: np.ndarray  # [n, n], causal mask: 1 where token j (row) <= token i (column)
    ones: np.ndarray  # [1, f], 0 in the padding
    cos: np.ndarray  # [n, f], of each rotation, repeated for both numbers of a pair
    sin: np.ndarray  # [n, f], the same, negative for the first number of a pair
    mini_batch: int
    channels: int
    causal: bool


class Trace(NamedTuple):
    """What the forward pass saves for the backward pass, if anything; tokens are in the order of reading.

    The padding rows of a chunk overlap the first rows of the next chunk, which is written later. The backward pass
    ignores padding rows, so their values do not matter.
    """

    states: np.ndarray  # [b * h, segments + 1, f + 1, f], before each segment and after the last
    rows: np.ndarray  # [2, b * h, tokens, f], xh and the normalised answers to the queries
    scales: np.ndarray  # [2, b * h, tokens], 1/std of both


class Chunk(NamedTuple):
    """Intermediate values of the inner model for one chunk."""

    k: np.ndarray  # [n, f], as the following
    xh: np.ndarray
    error: np.ndarray  # gamma xh + beta - (v - k)
    g: np.ndarray
    r: np.ndarray  # [n], as the following
    lr: np.ndarray
    present: np.ndarray  # bool


class Scratch(NamedTuple):
    """Scratch memory of one thread, padded; an extra row keeps matrices that are used together in other cache sets."""

    w: np.ndarray  # [f + 1, f], the state
    rows: np.ndarray  # [9, n + 1, f]; this and what follows is of the current chunk
    columns: np.ndarray  # [4, f + 1, n]
    squares: np.ndarray  # [4, n, n]
    lines: np.ndarray  # [5, n]
    present: np.ndarray  # bool [n]


def make_scratch(n: int, f: int, dtype: np.dtype) -> Scratch:
    """Return zeroed memory for chunks of n tokens of f channels."""
    n, f = padded(n), padded(f)
    zeros = partial(aligned_zeros, dtype=dtype)
    rows, columns, squares, lines = zeros((9, n + 1, f)), zeros((4, f + 1, n)), zeros((4, n, n)), zeros((5, n))
    return Scratch(zeros((f + 1, f)), rows, columns, squares, lines, np.zeros(n, bool))


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros aligned to cache lines: a vector that spans two lines takes twice the time."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@compiled
def trace_rows(layer, trace, scratch, which, cell, index):
    """Return views for xh (which=0) or yh (which=1) of a chunk, and for their 1/std: in the trace, else in scratch."""
    n = scratch.present.shape[0]
    if trace.rows.shape[2] == 0:
        return scratch.rows[which, :n], scratch.lines[which]
    at = index * layer.mini_batch
    return trace.rows[which, cell, at : at + n], trace.scales[which, cell, at : at + n]


@compiled
def chunk_buffers(layer, trace, scratch, cell, index):
    """Return the buffers of a chunk."""
    n, x, lines = scratch.present.shape[0], scratch.rows, scratch.lines
    xh, r = trace_rows(layer, trace, scratch, 0, cell, index)
    return Chunk(x[2, :n], xh, x[3, :n], x[4, :n], r, lines[2], scratch.present)


@compiled
def prefetch_trace(layer, trace, cell, index):
    """Prefetch the trace of a chunk, if there is such a chunk."""
    if index >= 0:
        for i in range(index * layer.mini_batch, (index + 1) * layer.mini_batch):
            for which in range(2):
                prefetch(trace.rows[which, cell, i], 0, 0, 1, trace.rows.shape[3])


@compiled
def locate(tokens, layer, which, cell, chunk):
    """Return the offset of a chunk's first token in array `which`, and the stride to the next token."""
    b, h, t = tokens.strides[which]
    first = chunk * layer.mini_batch
    if tokens.reverse:
        first, t = tokens.length - 1 - first, -t
        return (cell // tokens.heads) * b + (cell % tokens.heads) * h - first * t, t
    return (cell // tokens.heads) * b + (cell % tokens.heads) * h + first * t, t


@compiled
def chunk_length(tokens, layer, chunk):
    """Return the number of tokens in a chunk, absent ones included."""
    return min(layer.mini_batch, tokens.length - chunk * layer.mini_batch)


@compiled
def load_mask_and_lr(tokens, layer, cell, chunk, present, lr):
    """Read the mask and the learning rates of a chunk; absent tokens get lr = 0."""
    count = chunk_length(tokens, layer, chunk)
    at, step = locate(tokens, layer, PRESENT, cell, chunk)
    lr_at, lr_step = locate(tokens, layer, LR, cell, chunk)
    prefetch(tokens.lr, lr_at + layer.mini_batch * lr_step, lr_step, count, 1)
    for i in range(len(present)):
        present[i] = i < count and tokens.present[at + i * step]
        lr[i] = tokens.lr[lr_at + i * lr_step] if present[i] else 0


@compiled
def prefetch_chunk(tokens, layer, cell, chunk, which, x):
    """Prefetch a chunk of an array, if there is such a chunk."""
    if 0 <= chunk * layer.mini_batch < tokens.length:
        at, step = locate(tokens, layer, which, cell, chunk)
        prefetch(x, at, step, chunk_length(tokens, layer, chunk), layer.channels)


@compiled
def prefetch_output(tokens, layer, cell, chunk, which, x):
    """Prefetch the memory that a chunk's results are written to, unless they bypass the cache."""
    if not tokens.streams:
        at, step = locate(tokens, layer, which, cell, chunk)
        prefetch_to_write(x, at, step, chunk_length(tokens, layer, chunk), layer.channels)


@compiled
def load_rotated(tokens, layer, cell, chunk, which, x, present, rows):
    """Read a chunk of q or k and rotate it by its positions (RoPE)."""
    at, step = locate(tokens, layer, which, cell, chunk)
    for i in range(len(present)):
        count = layer.channels if present[i] else 0
        for j in range(0, rows.shape[1], lanes(x)):
            pairs = load_masked(x, at + j, count - j)
            store(rows, i, j, pairs * load(layer.cos, i, j) + swap_pairs(pairs) * load(layer.sin, i, j))
        at += step


@compiled
def store_unrotated(tokens, layer, cell, chunk, rows, others, x):
    """Rotate ``rows + others`` back and write it as a chunk of dq or dk."""
    at, step = locate(tokens, layer, GRADIENT, cell, chunk)
    for i in range(chunk_length(tokens, layer, chunk)):
        for j in range(0, rows.shape[1], lanes(x)):
            pairs = load(rows, i, j) + load(others, i, j)
            pairs = pairs * load(layer.cos, i, j) - swap_pairs(pairs) * load(layer.sin, i, j)
            store_result(tokens, x, at + j, layer.channels - j, pairs)
        at += step


@compiled
def store_result(tokens, x, at, count, vector):
    """Write or add the first `count` numbers of a vector to x, from x[at] on."""
    if tokens.add:
        store_masked(x, at, count, vector + load_masked(x, at, count))
    elif tokens.streams:
        store_nontemporal(x, at, vector)
    else:
        store_masked(x, at, count, vector)


@compiled
def store_scalar(tokens, x, at, number):
    """Write or add a number to x[at]."""
    x[at] = x[at] + number if tokens.add else number


@compiled
def copy(matrix, source):
    """``matrix[:] = source``, which Numba cannot compile without reference counting."""
    for i in range(matrix.shape[0]):
        for j in range(0, matrix.shape[1], lanes(matrix)):
            store(matrix, i, j, load(source, i, j))
