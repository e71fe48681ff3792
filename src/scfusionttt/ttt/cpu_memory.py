"""What the CPU kernel reads and where it works: tensors in place, a thread's own matrices, one chunk at a time.

A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size of the tiles; an absent token, or one beyond
the end, is a row of zeros with lr = 0. A state is an [f + 1, f] matrix whose last row is the bias.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from scfusionttt.ttt.cpu_tile import compiled, padded, prefetch, rotate

SEGMENT = 16  # chunks between two kept states


class Tokens(NamedTuple):
    """What a sequence holds: flat memory, and the strides by which [cell, head, token] is found in it."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lr: np.ndarray
    present: np.ndarray
    strides: np.ndarray  # int64 [7, 3]: of these five, of the outputs (and dq, dk, dv) and of the losses (and dlr)
    length: int
    heads: int
    reverse: bool


Q, K, V, LR, PRESENT, OUT, LOSS = range(7)


class Layer(NamedTuple):
    """What all cells share."""

    tau: np.ndarray  # [n]
    gamma: np.ndarray  # [h, f]
    beta: np.ndarray
    cos: np.ndarray  # [n, f], each twice
    sin: np.ndarray  # [n, f], with a minus before each first
    back: np.ndarray  # -sin
    causal: bool


class Chunk(NamedTuple):
    """What the inner model makes of a chunk, kept for the backward."""

    k: np.ndarray  # [n, f], as the following
    xh: np.ndarray
    error: np.ndarray  # gamma xh + beta - (v - k)
    g: np.ndarray
    r: np.ndarray  # [n], as the following
    lr: np.ndarray
    here: np.ndarray  # bool


class Scratch(NamedTuple):
    """One thread's memory, in padded sizes; a row more keeps matrices that are used together off the same cache set."""

    w: np.ndarray  # [SEGMENT + 1, f + 1, f], the states of a segment
    frames: np.ndarray  # [4, SEGMENT, n + 1, f], the matrices of its chunks
    vectors: np.ndarray  # [2, SEGMENT, n], and their vectors
    here: np.ndarray  # bool [SEGMENT, n]
    rows: np.ndarray  # [8, n + 1, f], what follows is for the chunk at hand
    columns: np.ndarray  # [4, f + 1, n]
    squares: np.ndarray  # [5, n, n]
    lines: np.ndarray  # [3, n]


def make_scratch(n: int, f: int, dtype: np.dtype) -> Scratch:
    """Return zeroed memory for chunks of n tokens of f channels."""
    n, f = padded(n), padded(f)
    zeros = partial(np.zeros, dtype=dtype)
    w, frames, vectors = zeros((SEGMENT + 1, f + 1, f)), zeros((4, SEGMENT, n + 1, f)), zeros((2, SEGMENT, n))
    rows, columns, squares, lines = zeros((8, n + 1, f)), zeros((4, f + 1, n)), zeros((5, n, n)), zeros((3, n))
    return Scratch(w, frames, vectors, np.zeros((SEGMENT, n), bool), rows, columns, squares, lines)


@compiled
def frame(scratch, s):
    """Return the s-th chunk of a segment."""
    n, x, vectors = scratch.here.shape[1], scratch.frames, scratch.vectors
    k, xh, error, g = x[0, s, :n], x[1, s, :n], x[2, s, :n], x[3, s, :n]
    return Chunk(k, xh, error, g, vectors[0, s], vectors[1, s], scratch.here[s])


@compiled
def place(tokens, which, cell, chunk, n):
    """Return where a chunk's first token lies in array `which`, and the step to the next."""
    b, h, t = tokens.strides[which]
    first = chunk * n
    if tokens.reverse:
        first, t = tokens.length - 1 - first, -t
        return (cell // tokens.heads) * b + (cell % tokens.heads) * h - first * t, t
    return (cell // tokens.heads) * b + (cell % tokens.heads) * h + first * t, t


@compiled
def size_of(tokens, layer, chunk):
    """Return how many tokens a chunk has, absent ones too."""
    return min(len(layer.tau), tokens.length - chunk * len(layer.tau))


@compiled
def meet(tokens, layer, cell, chunk, here, lr):
    """Find which tokens of a chunk are present, and their lr."""
    count, n = size_of(tokens, layer, chunk), len(layer.tau)
    at, step = place(tokens, PRESENT, cell, chunk, n)
    lr_at, lr_step = place(tokens, LR, cell, chunk, n)
    for i in range(len(here)):
        here[i] = i < count and tokens.present[at + i * step]
        lr[i] = tokens.lr[lr_at + i * lr_step] if here[i] else 0


@compiled
def expect(tokens, layer, cell, chunk, which, x):
    """Fetch a chunk of an array that will be read soon, if there is such a chunk."""
    if 0 <= chunk * len(layer.tau) < tokens.length:
        at, step = place(tokens, which, cell, chunk, len(layer.tau))
        prefetch(x, at, step, size_of(tokens, layer, chunk), layer.cos.shape[1])


@compiled
def load(tokens, layer, cell, chunk, which, x, here, rows):
    """Read a chunk of q or k, rotated."""
    at, step = place(tokens, which, cell, chunk, len(layer.tau))
    count = size_of(tokens, layer, chunk)
    rotate(layer.cos, layer.sin, count, x, at, step, rows.reshape(rows.size), 0, rows.shape[1])
    for i in range(len(here)):
        if not here[i]:
            clear(rows[i])


@compiled
def store(tokens, layer, cell, chunk, rows, here, x):
    """Write a chunk of dq or dk, rotated back; the gradient of an absent token is 0."""
    at, step = place(tokens, OUT, cell, chunk, len(layer.tau))
    count = size_of(tokens, layer, chunk)
    for i in range(count):
        if not here[i]:
            clear(rows[i])
    rotate(layer.cos, layer.back, count, rows.reshape(rows.size), 0, rows.shape[1], x, at, step)


@compiled
def fill(matrix, value):
    """``matrix[:] = value``, which Numba can only do where it counts references."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] = value


@compiled
def copy(matrix, source):
    """``matrix[:] = source``, which Numba can only do where it counts references."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] = source[i, j]


@compiled
def clear(row):
    """``row[:] = 0``, which Numba can only do where it counts references."""
    for j in range(len(row)):
        row[j] = 0
