"""The forward steps of the CPU kernel on one chunk; equations and names are those of `chunked`."""

import numpy as np

from scfusionttt.ttt.cpu_memory import LOSS, OUT, K, Q, V, clear, expect, fill, load, meet, place, size_of
from scfusionttt.ttt.cpu_tile import compiled, matmul, matmul_t, transpose


@compiled
def study(tokens, layer, cell, index, w, chunk):
    """Meet a chunk and let the inner model w try it: fill `chunk`."""
    head = cell % tokens.heads
    meet(tokens, layer, cell, index, chunk.here, chunk.lr)
    load(tokens, layer, cell, index, K, tokens.k, chunk.here, chunk.k)
    answer(w, chunk.k, chunk.xh)
    expect(tokens, layer, cell, index + 1, K, tokens.k)
    normalise(chunk.xh, chunk.here, layer.gamma.shape[1], chunk.r)
    at, step = place(tokens, V, cell, index, len(layer.tau))
    inner_gradient(tokens.v, at, step, layer.gamma[head], layer.beta[head], chunk)
    expect(tokens, layer, cell, index + 1, V, tokens.v)


@compiled
def ask(tokens, layer, cell, index, before, after, chunk, q, zbar, r, kt, gram, c):
    """Load the queries and normalise the answers to them, with the states before and after the chunk's step."""
    load(tokens, layer, cell, index, Q, tokens.q, chunk.here, q)
    if layer.causal:
        gram_and_chain(q, chunk.k, chunk.lr, layer.tau, kt, gram, c)
        answer(before, q, zbar)
        matmul(zbar, c, chunk.g)
    else:
        answer(after, q, zbar)
    normalise(zbar, chunk.here, layer.gamma.shape[1], r)


@compiled
def answer(w, x, z):
    """Compute ``z = x w + bias``."""
    f = w.shape[1]
    for i in range(len(z)):
        for j in range(f):
            z[i, j] = w[f, j]
    matmul(z, x, w[:f])


@compiled
def normalise(rows, here, f, r):
    """Put LN(rows) in their place, 0 for absent tokens, and 1/std in r."""
    kind = rows.dtype.type
    for i in range(len(here)):
        if not here[i]:
            clear(rows[i])
            r[i] = 0
            continue
        total = kind(0)
        for j in range(f):
            total += rows[i, j]
        mean, square = total / kind(f), kind(0)
        for j in range(f):
            square += (rows[i, j] - mean) ** 2
        r[i] = kind(1) / np.sqrt(square / kind(f) + kind(1e-6))
        for j in range(f):
            rows[i, j] = (rows[i, j] - mean) * r[i]


@compiled
def inner_gradient(v, at, step, gamma, beta, chunk):
    """Compute error = gamma xh + beta - (v - k), and the gradient g of its half square by z."""
    k, xh, error, g, r, _, here = chunk
    kind, f = k.dtype.type, len(gamma)
    for i in range(len(here)):
        if here[i]:
            target = v[at : at + f]
            for j in range(f):
                error[i, j] = gamma[j] * xh[i, j] + beta[j] + k[i, j] - target[j]
            s0, s1 = kind(0), kind(0)
            for j in range(f):
                g[i, j] = gamma[j] * error[i, j]
                s0 += g[i, j]
                s1 += g[i, j] * xh[i, j]
            s0, s1 = s0 / kind(f), s1 / kind(f)
            for j in range(f):
                g[i, j] = r[i] * (g[i, j] - s0 - xh[i, j] * s1)
        else:
            clear(error[i])
            clear(g[i])
        at += step


@compiled
def learn(w, after, chunk, end, scaled):
    """Take the step of a whole chunk: ``after = w - [k, 1].T diag(end * lr) g``; `scaled` is used up."""
    f = w.shape[1]
    for i in range(len(chunk.lr)):
        rate = -end * chunk.lr[i]
        for j in range(f):
            scaled[i, j] = rate * chunk.g[i, j]
    matmul_t(after[:f], w[:f], chunk.k, scaled)
    for i in range(1, len(chunk.lr)):
        for j in range(f):
            scaled[0, j] += scaled[i, j]
    for j in range(f):
        after[f, j] = w[f, j] + scaled[0, j]


@compiled
def gram_and_chain(q, k, lr, tau, kt, gram, c):
    """Compute ``gram = q k^T + 1`` and ``c = -tril(tau_i lr_j gram)``."""
    transpose(kt, k)
    fill(gram, 1)
    matmul(gram, q, kt)
    fill(c, 0)
    for i in range(len(tau)):
        for j in range(i + 1):
            c[i, j] = -tau[i] * lr[j] * gram[i, j]


@compiled
def write(tokens, layer, cell, index, q, yh, error, here, out, loss):
    """Write a chunk's outputs and losses; those of an absent token are 0."""
    kind, f = q.dtype.type, layer.gamma.shape[1]
    gamma, beta = layer.gamma[cell % tokens.heads], layer.beta[cell % tokens.heads]
    at, step = place(tokens, OUT, cell, index, len(layer.tau))
    loss_at, loss_step = place(tokens, LOSS, cell, index, len(layer.tau))
    for i in range(size_of(tokens, layer, index)):
        row, square = out[at + i * step : at + i * step + f], kind(0)
        if here[i]:
            for j in range(f):
                row[j] = q[i, j] + gamma[j] * yh[i, j] + beta[j]
            for j in range(f):
                square += error[i, j] ** 2
        else:
            clear(row)
        loss[loss_at + i * loss_step] = square / kind(2)
