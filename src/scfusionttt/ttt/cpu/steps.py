"""The forward steps of the CPU kernel on one chunk; equations and names are those of `segments` and `chunked`."""

import numpy as np

from scfusionttt.ttt.cpu.memory import LOSS, OUT, K, V, expect, meet, place, size_of, take, write, write_one
from scfusionttt.ttt.cpu.tile import matmul, matmul_t, transpose
from scfusionttt.ttt.cpu.vector import compiled, lanes, load, read, store, total, zeros


@compiled
def study(tokens, layer, cell, index, w, chunk):
    """Meet a chunk and let the inner model w try it: fill `chunk`."""
    meet(tokens, layer, cell, index, chunk.here, chunk.lr)
    take(tokens, layer, cell, index, K, tokens.k, chunk.here, chunk.k)
    answer(w, chunk.k, chunk.xh)
    expect(tokens, layer, cell, index + 1, K, tokens.k)
    normalise(layer, chunk.xh, chunk.r)
    inner_gradient(tokens, layer, cell, index, chunk)
    expect(tokens, layer, cell, index + 1, V, tokens.v)


@compiled
def recall(tokens, layer, cell, index, chunk):
    """Fill `chunk` as `study` did, from what it kept."""
    meet(tokens, layer, cell, index, chunk.here, chunk.lr)
    take(tokens, layer, cell, index, K, tokens.k, chunk.here, chunk.k)
    expect(tokens, layer, cell, index - 1, K, tokens.k)
    inner_gradient(tokens, layer, cell, index, chunk)
    expect(tokens, layer, cell, index - 1, V, tokens.v)


@compiled
def ask(layer, w, chunk, q, yh, r, qt, gramt, ct):
    """Normalise the answers to the queries, by w and where causal by the steps of the tokens before."""
    answer(w, q, yh)
    if layer.causal:
        gram_and_chain(layer, q, chunk, qt, gramt, ct)
        matmul_t(yh, yh, ct, chunk.g)
    normalise(layer, yh, r)


@compiled
def answer(w, x, z):
    """Compute ``z = x w + bias``."""
    f = w.shape[1]
    matmul(z, w[f], x, w[:f])


@compiled
def normalise(layer, rows, r):
    """Put LN(rows) in their place, and 1/std in r."""
    kind, width = rows.dtype.type, lanes(rows)
    for i in range(len(rows)):  # three loops, for what waits for a sum lets the next row go ahead
        sums = zeros(rows)
        for j in range(0, rows.shape[1], width):
            sums += load(rows, i, j)
        r[i] = total(sums) / kind(layer.channels)
    for i in range(len(rows)):
        squares = zeros(rows)
        for j in range(0, rows.shape[1], width):
            centred = load(rows, i, j) - r[i] * load(layer.ones, 0, j)
            squares += centred * centred
            store(rows, i, j, centred)
        r[i] = kind(1) / np.sqrt(total(squares) / kind(layer.channels) + kind(1e-6))
    for i in range(len(rows)):
        for j in range(0, rows.shape[1], width):
            store(rows, i, j, r[i] * load(rows, i, j))


@compiled
def inner_gradient(tokens, layer, cell, index, chunk):
    """Compute error = gamma xh + beta - (v - k), and the gradient g of its half square by z."""
    k, xh, error, g, r, _, here = chunk
    head, f, width = cell % tokens.heads, k.shape[1], lanes(k)
    mean = k.dtype.type(1) / k.dtype.type(layer.channels)
    at, step = place(tokens, layer, V, cell, index)
    for i in range(len(here)):
        count = layer.channels if here[i] else 0
        s0, s1 = zeros(k), zeros(k)
        for j in range(0, f, width):
            gamma, x = load(layer.gamma, head, j), load(xh, i, j)
            miss = gamma * x + (load(layer.beta, head, j) + load(k, i, j) - read(tokens.v, at + j, count - j))
            store(error, i, j, miss)
            s0 += gamma * miss
            s1 += gamma * miss * x
        m0, m1 = mean * total(s0), mean * total(s1)
        for j in range(0, f, width):
            dxh = load(layer.gamma, head, j) * load(error, i, j)
            store(g, i, j, r[i] * (dxh - m0 * load(layer.ones, 0, j) - m1 * load(xh, i, j)))
        at += step


@compiled
def learn(w, chunk, end, scaled):
    """Take the step of a whole chunk, ``w -= [k, 1].T diag(end * lr) g``, or with -end back; `scaled` is used up."""
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
def write_answers(tokens, layer, cell, index, q, yh, chunk, out, loss):
    """Write a chunk's outputs and losses; those of an absent token are 0."""
    head, f, width = cell % tokens.heads, q.shape[1], lanes(q)
    at, step = place(tokens, layer, OUT, cell, index)
    loss_at, loss_step = place(tokens, layer, LOSS, cell, index)
    for i in range(size_of(tokens, layer, index)):
        squares = zeros(q)
        for j in range(0, f, width):
            answer, miss = zeros(q), zeros(q)
            if chunk.here[i]:
                answer = load(q, i, j) + load(layer.gamma, head, j) * load(yh, i, j) + load(layer.beta, head, j)
                miss = load(chunk.error, i, j)
            squares += miss * miss
            write(tokens, out, at + j, layer.channels - j, answer)
        write_one(tokens, loss, loss_at, total(squares) / q.dtype.type(2))
        at, loss_at = at + step, loss_at + loss_step
