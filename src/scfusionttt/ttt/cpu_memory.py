"""What the CPU kernel reads and where it works: tensors in place, a thread's own matrices, one chunk at a time.

A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size of the tiles; an absent token, or one beyond
the end, is a row of zeros with lr = 0. A state is an [f + 1, f] matrix whose last row is the bias.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from scfusionttt.ttt.cpu_vector import (
    compiled,
    lanes,
    load,
    padded,
    prefetch,
    prefetch_to_write,
    put,
    read,
    store,
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
    rows: np.ndarray  # [6, n + 1, f], what follows is for the chunk at hand
    columns: np.ndarray  # [4, f + 1, n]
    squares: np.ndarray  # [4, n, n]
    lines: np.ndarray  # [3, n]


def make_scratch(n: int, f: int, dtype: np.dtype) -> Scratch:
    """Return zeroed memory for chunks of n tokens of f channels."""
    n, f = padded(n), padded(f)
    zeros = partial(zeros_on_a_line, dtype=dtype)
    w, frames, vectors = zeros((SEGMENT + 1, f + 1, f)), zeros((4, SEGMENT, n + 1, f)), zeros((2, SEGMENT, n))
    rows, columns, squares, lines = zeros((6, n + 1, f)), zeros((4, f + 1, n)), zeros((4, n, n)), zeros((3, n))
    return Scratch(w, frames, vectors, np.zeros((SEGMENT, n), bool), rows, columns, squares, lines)


def zeros_on_a_line(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros that begin where a cache line does: a vector that lies across two takes twice the time."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@compiled
def frame(scratch, s):
    """Return the s-th chunk of a segment."""
    n, x, vectors = scratch.here.shape[1], scratch.frames, scratch.vectors
    k, xh, error, g = x[0, s, :n], x[1, s, :n], x[2, s, :n], x[3, s, :n]
    return Chunk(k, xh, error, g, vectors[0, s], vectors[1, s], scratch.here[s])


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
    """Fetch where a chunk's results will be written."""
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
        vector = vector + read(x, at, count)
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
