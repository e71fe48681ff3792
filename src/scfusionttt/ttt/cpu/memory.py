"""What the CPU kernel reads and where it works: tensors in place, a thread's own matrices, one chunk at a time.

A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size of the tiles; an absent token, or one beyond
the end, is a row of zeros with lr = 0. A state is an [f + 1, f] matrix whose last row is the bias.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from scfusionttt.ttt.cpu.vector import (
    compiled,
    lanes,
    load,
    padded,
    prefetch,
    prefetch_to_write,
    put,
    read,
    store,
    stream,
    swapped,
)

SEGMENT = 16  # chunks between two kept states
LINE = 64  # bytes that the processor reads at once


class Tokens(NamedTuple):
    """What a sequence holds: flat memory, and the strides by which [cell, head, token] is found in it."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lr: np.ndarray
    present: np.ndarray
    strides: np.ndarray  # int64 [8, 3]: of these five, of the outputs, of the losses (and dlr), and of dq, dk and dv
    length: int
    heads: int
    reverse: bool
    add: bool  # results to what is there, instead of replacing it
    streams: bool  # results past the cache: all are whole vectors in places of their size, and not added


Q, K, V, LR, PRESENT, OUT, LOSS, GRADIENT = range(8)


class Layer(NamedTuple):
    """What all cells share, in padded sizes."""

    tau: np.ndarray  # [1, n]
    gamma: np.ndarray  # [h, f]
    beta: np.ndarray
    earlier: np.ndarray  # [n, n], 1 where token j (row) comes before token i (column) or is it
    ones: np.ndarray  # [1, f], 0 where filled up
    cos: np.ndarray  # [n, f], each twice
    sin: np.ndarray  # [n, f], with a minus before each first
    mini_batch: int
    channels: int
    causal: bool


class Trace(NamedTuple):
    """What the forward keeps for the backward, or nothing. Tokens are in the order in which they were read.

    A chunk that was filled up to n rows shares the last of them with the next chunk, which comes later and overwrites
    them; what they hold does not matter, for their tokens count as absent.
    """

    states: np.ndarray  # [b * h, segments + 1, f + 1, f], before each segment and after the last
    rows: np.ndarray  # [2, b * h, tokens, f], xh and the normalised answers to the queries
    scales: np.ndarray  # [2, b * h, tokens], 1/std of both


class Chunk(NamedTuple):
    """What the inner model makes of a chunk."""

    k: np.ndarray  # [n, f], as the following
    xh: np.ndarray
    error: np.ndarray  # gamma xh + beta - (v - k)
    g: np.ndarray
    r: np.ndarray  # [n], as the following
    lr: np.ndarray
    here: np.ndarray  # bool


class Scratch(NamedTuple):
    """One thread's memory, in padded sizes; a row more keeps matrices that are used together off the same cache set."""

    w: np.ndarray  # [f + 1, f], the state
    rows: np.ndarray  # [9, n + 1, f], what follows is for the chunk at hand
    columns: np.ndarray  # [4, f + 1, n]
    squares: np.ndarray  # [4, n, n]
    lines: np.ndarray  # [5, n]
    here: np.ndarray  # bool [n]


def make_scratch(n: int, f: int, dtype: np.dtype) -> Scratch:
    """Return zeroed memory for chunks of n tokens of f channels."""
    n, f = padded(n), padded(f)
    zeros = partial(zeros_on_a_line, dtype=dtype)
    rows, columns, squares, lines = zeros((9, n + 1, f)), zeros((4, f + 1, n)), zeros((4, n, n)), zeros((5, n))
    return Scratch(zeros((f + 1, f)), rows, columns, squares, lines, np.zeros(n, bool))


def zeros_on_a_line(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros that begin where a cache line does: a vector that lies across two takes twice the time."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@compiled
def kept(layer, trace, scratch, which, cell, index):
    """Return the place of xh (0) or the normalised answers (1) of a chunk, and of their 1/std: in the trace, if any."""
    n = scratch.here.shape[0]
    if trace.rows.shape[2] == 0:
        return scratch.rows[which, :n], scratch.lines[which]
    at = index * layer.mini_batch
    return trace.rows[which, cell, at : at + n], trace.scales[which, cell, at : at + n]


@compiled
def frame(layer, trace, scratch, cell, index):
    """Return a chunk's place in memory."""
    n, x, lines = scratch.here.shape[0], scratch.rows, scratch.lines
    xh, r = kept(layer, trace, scratch, 0, cell, index)
    return Chunk(x[2, :n], xh, x[3, :n], x[4, :n], r, lines[2], scratch.here)


@compiled
def expect_kept(layer, trace, cell, index):
    """Fetch what was kept of a chunk that will be read soon, if there is such a chunk."""
    if index >= 0:
        for i in range(index * layer.mini_batch, (index + 1) * layer.mini_batch):
            for which in range(2):
                prefetch(trace.rows[which, cell, i], 0, 0, 1, trace.rows.shape[3])


@compiled
def place(tokens, layer, which, cell, chunk):
    """Return where a chunk's first token lies in array `which`, and the step to the next."""
    b, h, t = tokens.strides[which]
    first = chunk * layer.mini_batch
    if tokens.reverse:
        first, t = tokens.length - 1 - first, -t
        return (cell // tokens.heads) * b + (cell % tokens.heads) * h - first * t, t
    return (cell // tokens.heads) * b + (cell % tokens.heads) * h + first * t, t


@compiled
def size_of(tokens, layer, chunk):
    """Return how many tokens a chunk has, absent ones too."""
    return min(layer.mini_batch, tokens.length - chunk * layer.mini_batch)


@compiled
def meet(tokens, layer, cell, chunk, here, lr):
    """Find which tokens of a chunk are present, and their lr."""
    count = size_of(tokens, layer, chunk)
    at, step = place(tokens, layer, PRESENT, cell, chunk)
    lr_at, lr_step = place(tokens, layer, LR, cell, chunk)
    prefetch(tokens.lr, lr_at + layer.mini_batch * lr_step, lr_step, count, 1)
    for i in range(len(here)):
        here[i] = i < count and tokens.present[at + i * step]
        lr[i] = tokens.lr[lr_at + i * lr_step] if here[i] else 0


@compiled
def expect(tokens, layer, cell, chunk, which, x):
    """Fetch a chunk of an array that will be read soon, if there is such a chunk."""
    if 0 <= chunk * layer.mini_batch < tokens.length:
        at, step = place(tokens, layer, which, cell, chunk)
        prefetch(x, at, step, size_of(tokens, layer, chunk), layer.channels)


@compiled
def expect_to_write(tokens, layer, cell, chunk, which, x):
    """Fetch where a chunk's results will be written, unless they pass the cache."""
    if not tokens.streams:
        at, step = place(tokens, layer, which, cell, chunk)
        prefetch_to_write(x, at, step, size_of(tokens, layer, chunk), layer.channels)


@compiled
def take(tokens, layer, cell, chunk, which, x, here, rows):
    """Read a chunk of q or k, rotated."""
    at, step = place(tokens, layer, which, cell, chunk)
    for i in range(len(here)):
        count = layer.channels if here[i] else 0
        for j in range(0, rows.shape[1], lanes(x)):
            pairs = read(x, at + j, count - j)
            store(rows, i, j, pairs * load(layer.cos, i, j) + swapped(pairs) * load(layer.sin, i, j))
        at += step


@compiled
def give(tokens, layer, cell, chunk, rows, others, x):
    """Write a chunk of dq or dk, ``rows + others`` rotated back."""
    at, step = place(tokens, layer, GRADIENT, cell, chunk)
    for i in range(size_of(tokens, layer, chunk)):
        for j in range(0, rows.shape[1], lanes(x)):
            pairs = load(rows, i, j) + load(others, i, j)
            pairs = pairs * load(layer.cos, i, j) - swapped(pairs) * load(layer.sin, i, j)
            write(tokens, x, at + j, layer.channels - j, pairs)
        at += step


@compiled
def write(tokens, x, at, count, vector):
    """Put the first `count` numbers of a result to x[at] and after it."""
    if tokens.add:
        put(x, at, count, vector + read(x, at, count))
    elif tokens.streams:
        stream(x, at, vector)
    else:
        put(x, at, count, vector)


@compiled
def write_one(tokens, x, at, number):
    """Put a result to x[at]."""
    x[at] = x[at] + number if tokens.add else number


@compiled
def copy(matrix, source):
    """``matrix[:] = source``, which Numba can only do where it counts references."""
    for i in range(matrix.shape[0]):
        for j in range(0, matrix.shape[1], lanes(matrix)):
            store(matrix, i, j, load(source, i, j))
