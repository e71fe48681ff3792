"""The forward steps of the CPU kernel on one chunk; equations and names are those of `chunked.linear`."""

import numpy as np

from scfusionttt.loops.compile import compiled
from scfusionttt.ttt.cpu.memory import (
    LOSS,
    OUT,
    K,
    V,
    chunk_length,
    load_mask_and_lr,
    load_rotated,
    locate,
    prefetch_chunk,
    store_result,
    store_scalar,
)
from scfusionttt.ttt.cpu.tile import matmul, matmul_t, transpose
from scfusionttt.ttt.cpu.vector import lanes, load, load_masked, reduce_sum, store, zeros


@compiled
def chunk_forward(tokens, layer, cell, index, w, chunk):
    """Load a chunk and compute its inner loss and gradient at the state w: fill `chunk`."""
    load_mask_and_lr(tokens, layer, cell, index, chunk.present, chunk.lr)
    load_rotated(tokens, layer, cell, index, K, tokens.k, chunk.present, chunk.k)
    inner_model(w, chunk.k, chunk.xh)
    prefetch_chunk(tokens, layer, cell, index + 1, K, tokens.k)
    normalize(layer, chunk.xh, chunk.r)
    inner_gradient(tokens, layer, cell, index, chunk)
    prefetch_chunk(tokens, layer, cell, index + 1, V, tokens.v)


@compiled
def reload_chunk(tokens, layer, cell, index, chunk):
    """Fill `chunk` as `chunk_forward` did, from the trace."""
    load_mask_and_lr(tokens, layer, cell, index, chunk.present, chunk.lr)
    load_rotated(tokens, layer, cell, index, K, tokens.k, chunk.present, chunk.k)
    prefetch_chunk(tokens, layer, cell, index - 1, K, tokens.k)
    inner_gradient(tokens, layer, cell, index, chunk)
    prefetch_chunk(tokens, layer, cell, index - 1, V, tokens.v)


@compiled
def answer_queries(layer, w, chunk, q, yh, r, qt, gramt, ct):
    """Apply the inner model to the queries and normalise: write yh and its 1/std, r.

    The inner model is w or, if causal, w after the steps of the tokens up to each query.
    """
    inner_model(w, q, yh)
    if layer.causal:
        gram_and_chain(layer, q, chunk, qt, gramt, ct)
        matmul_t(yh, yh, ct, chunk.g)
    normalize(layer, yh, r)


@compiled
def inner_model(w, x, z):
    """Compute ``z = x w + bias``."""
    f = w.shape[1]
    matmul(z, w[f], x, w[:f])


@compiled
def normalize(layer, rows, r):
    """Replace rows by LN(rows), and write their 1/std to r."""
    kind, width = rows.dtype.type, lanes(rows)
    for i in range(len(rows)):  # three loops: while one row waits for its sum, the next can start
        sums = zeros(rows)
        for j in range(0, rows.shape[1], width):
            sums += load(rows, i, j)
        r[i] = reduce_sum(sums) / kind(layer.channels)
    for i in range(len(rows)):
        squares = zeros(rows)
        for j in range(0, rows.shape[1], width):
            centered = load(rows, i, j) - r[i] * load(layer.ones, 0, j)
            squares += centered * centered
            store(rows, i, j, centered)
        r[i] = kind(1) / np.sqrt(reduce_sum(squares) / kind(layer.channels) + kind(1e-6))
    for i in range(len(rows)):
        for j in range(0, rows.shape[1], width):
            store(rows, i, j, r[i] * load(rows, i, j))


@compiled
def inner_gradient(tokens, layer, cell, index, chunk):
    """Compute error = gamma xh + beta - (v - k), and g, the gradient of ``|error|^2 / 2`` by z."""
    k, xh, error, g, r, _, present = chunk
    head, f, width = cell % tokens.heads, k.shape[1], lanes(k)
    mean = k.dtype.type(1) / k.dtype.type(layer.channels)
    at, step = locate(tokens, layer, V, cell, index)
    for i in range(len(present)):
        count = layer.channels if present[i] else 0
        s0, s1 = zeros(k), zeros(k)
        for j in range(0, f, width):
            gamma, x = load(layer.gamma, head, j), load(xh, i, j)
            miss = gamma * x + (load(layer.beta, head, j) + load(k, i, j) - load_masked(tokens.v, at + j, count - j))
            store(error, i, j, miss)
            s0 += gamma * miss
            s1 += gamma * miss * x
        m0, m1 = mean * reduce_sum(s0), mean * reduce_sum(s1)
        for j in range(0, f, width):
            dxh = load(layer.gamma, head, j) * load(error, i, j)
            store(g, i, j, r[i] * (dxh - m0 * load(layer.ones, 0, j) - m1 * load(xh, i, j)))
        at += step


@compiled
def update_state(w, chunk, end, scaled):
    """Take the step of a chunk, ``w -= [k, 1].T diag(end * lr) g``; with -end, undo it. `scaled` is overwritten."""
    f = w.shape[1]
    for j in range(0, f, lanes(w)):
        bias = load(w, f, j)
        for i in range(len(chunk.lr)):
            step = -end * chunk.lr[i] * load(chunk.g, i, j)
            store(scaled, i, j, step)
            bias += step
        store(w, f, j, bias)
    matmul_t(w[:f], w[:f], chunk.k, scaled)


@compiled
def gram_and_chain(layer, q, chunk, qt, gramt, ct):
    """Compute the transposes of ``gram = q k^T + 1`` and ``c = -tril(tau_i lr_j gram)``."""
    transpose(qt, q)
    matmul(gramt, None, chunk.k, qt)
    for j in range(len(gramt)):
        for i in range(0, len(gramt), lanes(q)):
            reach = load(layer.tau, 0, i) * load(layer.earlier, j, i)
            gram = load(gramt, j, i) + q.dtype.type(1)
            store(gramt, j, i, gram)
            store(ct, j, i, -chunk.lr[j] * reach * gram)


@compiled
def store_outputs(tokens, layer, cell, index, q, yh, chunk, out, loss):
    """Write the outputs and inner losses of a chunk; those of absent tokens are 0."""
    head, f, width = cell % tokens.heads, q.shape[1], lanes(q)
    at, step = locate(tokens, layer, OUT, cell, index)
    loss_at, loss_step = locate(tokens, layer, LOSS, cell, index)
    for i in range(chunk_length(tokens, layer, index)):
        squares = zeros(q)
        for j in range(0, f, width):
            answer, miss = zeros(q), zeros(q)
            if chunk.present[i]:
                answer = load(q, i, j) + load(layer.gamma, head, j) * load(yh, i, j) + load(layer.beta, head, j)
                miss = load(chunk.error, i, j)
            squares += miss * miss
            store_result(tokens, out, at + j, layer.channels - j, answer)
        store_scalar(tokens, loss, loss_at, reduce_sum(squares) / q.dtype.type(2))
        at, loss_at = at + step, loss_at + loss_step
