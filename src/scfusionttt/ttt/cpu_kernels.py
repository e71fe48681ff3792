"""TTT-Linear for one (cell, head) after another, its state in cache: forward and backward, compiled by Numba.

Equations and names are those of `chunked`. A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size
of the tiles; an absent token, or one beyond the end, is a row of zeros with lr = 0. The last row of a state is its
bias. Numba looks for changes in this file, not in `cpu_tile`, when it decides whether its cache is still good.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from scfusionttt.ttt.cpu_tile import matmul, matmul_t, padded, prefetch, rotate, transpose

SEGMENT = 16  # chunks between two kept states
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}  # NaN and inf keep their meaning


class Tokens(NamedTuple):
    """What a sequence holds: values one after another in memory, and where [cell, head, token] begins."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lr: np.ndarray
    present: np.ndarray
    strides: np.ndarray  # int64 [7, 3]: of q, k, v, lr, present, outputs and losses
    length: int
    heads: int
    reverse: bool


class Layer(NamedTuple):
    """What all cells share."""

    tau: np.ndarray  # [n]
    gamma: np.ndarray  # [h, f]
    beta: np.ndarray
    cos: np.ndarray  # [n, f], each twice
    sin: np.ndarray  # [n, f], with a minus before each first
    back: np.ndarray  # -sin
    causal: bool


class Scratch(NamedTuple):
    """One thread's memory, in padded sizes; the matrices of a row of tokens lie a little apart, not whole pages."""

    w: np.ndarray  # [SEGMENT + 1, f + 1, f], as the frames only for the backward
    frames: np.ndarray  # [4, SEGMENT, n, f]
    frame_vectors: np.ndarray  # [2, SEGMENT, n]
    here: np.ndarray  # bool [SEGMENT, n]
    rows: np.ndarray  # [8, n + 1, f]
    columns: np.ndarray  # [4, f, n]
    squares: np.ndarray  # [5, n, n]
    vectors: np.ndarray  # [3, n]


def make_scratch(n, f, dtype):
    """Return zeroed memory for chunks of n tokens of f channels."""
    n, f = padded(n), padded(f)
    shapes = (SEGMENT + 1, f + 1, f), (4, SEGMENT, n, f), (2, SEGMENT, n)
    more = (8, n + 1, f), (4, f, n), (5, n, n), (3, n)
    zeros = [np.zeros(shape, dtype) for shape in (*shapes, *more)]
    return Scratch(*zeros[:3], np.zeros((SEGMENT, n), bool), *zeros[3:])


@njit(_nrt=False)
def _place(tokens, which, cell, chunk, n):
    """Return where a chunk's first token lies in array `which`, and the step to the next."""
    b, h, t = tokens.strides[which]
    first = chunk * n
    if tokens.reverse:
        first, t = tokens.length - 1 - first, -t
        return (cell // tokens.heads) * b + (cell % tokens.heads) * h - first * t, t
    return (cell // tokens.heads) * b + (cell % tokens.heads) * h + first * t, t


@njit(_nrt=False)
def _meet(tokens, layer, cell, chunk, here, lr):
    """Find which tokens of a chunk are present, and their lr; return how many there are, absent ones too."""
    n = len(layer.tau)
    count = min(n, tokens.length - chunk * n)
    at, step = _place(tokens, 4, cell, chunk, n)
    lr_at, lr_step = _place(tokens, 3, cell, chunk, n)
    for i in range(len(here)):
        here[i] = i < count and tokens.present[at + i * step]
        lr[i] = tokens.lr[lr_at + i * lr_step] if here[i] else 0
    return count


@njit(_nrt=False)
def _expect(tokens, layer, cell, chunk, which, x):
    n, f = layer.cos.shape
    if 0 <= chunk * n < tokens.length:
        at, step = _place(tokens, which, cell, chunk, n)
        prefetch(x, at, step, min(n, tokens.length - chunk * n), f)


@njit(fastmath=FASTMATH, _nrt=False)
def _load(x, at, step, here, cos, sin, rows):
    """Read a chunk of q or k, rotated; an absent token is a row of zeros."""
    count = len(cos)
    while count > 0 and not here[count - 1]:
        count -= 1
    rotate(cos, sin, count, x, at, step, rows.reshape(rows.size), 0, rows.shape[1])
    for i in range(len(here)):
        if not here[i]:
            _clear(rows[i])


@njit(_nrt=False)
def _fill(matrix, value):
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] = value


@njit(_nrt=False)
def _copy(matrix, source):
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] = source[i, j]


@njit(_nrt=False)
def _clear(row):
    for j in range(len(row)):
        row[j] = 0


@njit(fastmath=FASTMATH, _nrt=False)
def _normalise(rows, here, f, r):
    """Put LN(rows) in their place, 0 for absent tokens, and 1/std in r."""
    kind = rows.dtype.type
    for i in range(len(here)):
        if not here[i]:
            _clear(rows[i])
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


@njit(fastmath=FASTMATH, _nrt=False)
def _inner_gradient(k, v, at, step, here, gamma, beta, xh, r, error, g):
    """Compute error = gamma xh + beta - (v - k), and the gradient g of its half square by z."""
    kind = k.dtype.type
    f = len(gamma)
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
            _clear(error[i])
            _clear(g[i])
        at += step


@njit(fastmath=FASTMATH, _nrt=False)
def _learn(w, k, g, lr, end, scaled):
    """Take the step of a whole chunk: ``w -= [k, 1].T diag(end * lr) g``."""
    f = w.shape[1]
    for i in range(len(lr)):
        rate = -end * lr[i]
        for j in range(f):
            scaled[i, j] = rate * g[i, j]
        for j in range(f):
            w[f, j] += scaled[i, j]
    matmul_t(w[:f], k, scaled)


@njit(fastmath=FASTMATH, _nrt=False)
def _answer(w, x, z):
    """Compute ``z = x w + bias``."""
    f = w.shape[1]
    for i in range(len(z)):
        for j in range(f):
            z[i, j] = w[f, j]
    matmul(z, x, w[:f])


@njit(fastmath=FASTMATH, _nrt=False)
def _gram(q, k, kt, gram, c, lr, tau):
    """Compute ``gram = q k^T + 1`` and ``c = -tril(tau_i lr_j gram)``."""
    transpose(kt, k)
    _fill(gram, 1)
    matmul(gram, q, kt)
    _fill(c, 0)
    for i in range(len(tau)):
        for j in range(i + 1):
            c[i, j] = -tau[i] * lr[j] * gram[i, j]


@njit(fastmath=FASTMATH, nogil=True, cache=True, _nrt=False)
def forward(tokens, layer, scratch, first, keep, out, loss, states, final, lo, hi):
    """Run cells x heads lo to hi: write outputs, inner losses, final states and, if asked, each segment's first state.

    first [h or b * h, f + 1, f], states [b * h, segments, f + 1, f] and final [b * h, f + 1, f] in padded sizes.
    """
    n, f = len(layer.tau), layer.gamma.shape[1]
    nn = scratch.here.shape[1]
    rows, kt, gram, c = scratch.rows, scratch.columns[0], scratch.squares[0], scratch.squares[1]
    q, k, xh, error, g, zbar = rows[0, :nn], rows[1, :nn], rows[2, :nn], rows[3, :nn], rows[4, :nn], rows[5, :nn]
    here, lr, r = scratch.here[0], scratch.vectors[0], scratch.vectors[1]
    for cell in range(lo, hi):
        gamma, beta = layer.gamma[cell % tokens.heads], layer.beta[cell % tokens.heads]
        w = final[cell]
        _copy(w, first[cell % len(first)])
        for chunk in range(-(-tokens.length // n)):
            if keep and chunk % SEGMENT == 0:
                _copy(states[cell, chunk // SEGMENT], w)
            count = _meet(tokens, layer, cell, chunk, here, lr)
            end = layer.tau[count - 1]
            _expect(tokens, layer, cell, chunk + 1, 0, tokens.q)
            at, step = _place(tokens, 0, cell, chunk, n)
            _load(tokens.q, at, step, here, layer.cos, layer.sin, q)
            at, step = _place(tokens, 1, cell, chunk, n)
            _load(tokens.k, at, step, here, layer.cos, layer.sin, k)
            _answer(w, k, xh)
            _expect(tokens, layer, cell, chunk + 1, 1, tokens.k)
            _normalise(xh, here, f, r)
            at, step = _place(tokens, 2, cell, chunk, n)
            _inner_gradient(k, tokens.v, at, step, here, gamma, beta, xh, r, error, g)
            if layer.causal:
                _gram(q, k, kt, gram, c, lr, layer.tau)
                _answer(w, q, zbar)
                matmul(zbar, c, g)
            _expect(tokens, layer, cell, chunk + 1, 2, tokens.v)
            _learn(w, k, g, lr, end, xh)
            if not layer.causal:
                _answer(w, q, zbar)
            _normalise(zbar, here, f, r)
            at, step = _place(tokens, 5, cell, chunk, n)
            _write(q, zbar, here[:count], gamma, beta, out, at, step)
            at, step = _place(tokens, 6, cell, chunk, n)
            _write_loss(error, count, loss, at, step)


@njit(fastmath=FASTMATH, _nrt=False)
def _write(q, yh, here, gamma, beta, out, at, step):
    f = len(gamma)
    for i in range(len(here)):
        row = out[at : at + f]
        if here[i]:
            for j in range(f):
                row[j] = q[i, j] + gamma[j] * yh[i, j] + beta[j]
        else:
            _clear(row)
        at += step


@njit(fastmath=FASTMATH, _nrt=False)
def _write_loss(error, count, loss, at, step):
    kind = error.dtype.type
    for i in range(count):
        square = kind(0)
        for j in range(error.shape[1]):
            square += error[i, j] ** 2
        loss[at] = square / kind(2)
        at += step


@njit(fastmath=FASTMATH, _nrt=False)
def _output_backward(dzbar, yh, r, dout, at, step, here, gamma, dgamma, dbeta, direct):
    """Turn yh into dzbar, keep the upstream gradient in `direct`, add to dgamma and dbeta."""
    kind = yh.dtype.type
    f = len(gamma)
    for i in range(len(here)):
        if here[i]:
            upstream = dout[at : at + f]
            for j in range(f):
                direct[i, j] = upstream[j]
            s0, s1 = kind(0), kind(0)
            for j in range(f):
                dzbar[i, j] = gamma[j] * direct[i, j]
                s0 += dzbar[i, j]
                s1 += dzbar[i, j] * yh[i, j]
            s0, s1 = s0 / kind(f), s1 / kind(f)
            for j in range(f):
                dzbar[i, j] = r[i] * (dzbar[i, j] - s0 - yh[i, j] * s1)
            for j in range(f):
                dgamma[j] += direct[i, j] * yh[i, j]
            for j in range(f):
                dbeta[j] += direct[i, j]
        else:
            _clear(direct[i])
            _clear(dzbar[i])
        at += step


@njit(fastmath=FASTMATH, _nrt=False)
def _inner_gradient_backward(dg, xh, r, error, g, dloss, here, gamma, dgamma, dbeta, dgx, derror, dz):
    """Go back through `_inner_gradient` and the layer norm before it: write derror and dz, add to dgamma and dbeta."""
    kind = xh.dtype.type
    f = len(gamma)
    for i in range(len(here)):
        if not here[i]:
            _clear(derror[i])
            _clear(dz[i])
            continue
        s0, s1, s2, s3 = kind(0), kind(0), kind(0), kind(0)
        for j in range(f):
            s0 += dg[i, j]
            s1 += dg[i, j] * xh[i, j]
            s2 += dg[i, j] * g[i, j]
            s3 += gamma[j] * error[i, j] * xh[i, j]
        s0, s1, s2, s3 = s0 / kind(f), s1 / kind(f), s2 / kind(f), s3 / kind(f)
        for j in range(f):
            dgx[i, j] = r[i] * (dg[i, j] - s0 - xh[i, j] * s1)
        for j in range(f):
            derror[i, j] = gamma[j] * dgx[i, j] + dloss[i] * error[i, j]
        t0, t1 = kind(0), kind(0)
        for j in range(f):
            t0 += gamma[j] * derror[i, j]
            t1 += gamma[j] * derror[i, j] * xh[i, j]
        t0, t1 = t0 / kind(f), t1 / kind(f) + s2
        for j in range(f):
            dz[i, j] = r[i] * (gamma[j] * derror[i, j] - t0 - xh[i, j] * t1 - s3 * dgx[i, j] - s1 * g[i, j])
        for j in range(f):
            dgamma[j] += dgx[i, j] * error[i, j] + derror[i, j] * xh[i, j]
        for j in range(f):
            dbeta[j] += derror[i, j]


@njit(fastmath=FASTMATH, _nrt=False)
def _gram_backward(dct, gram, lr, tau, dlr, dtau, dgram, dgramt):
    """Go back through ``c = -tril(tau_i lr_j gram)``, given the transposed gradient of c."""
    _fill(dgram, 0)
    _fill(dgramt, 0)
    for i in range(len(tau)):
        for j in range(i + 1):
            x = -dct[j, i]
            dlr[j] += x * gram[i, j] * tau[i]
            dtau[i] += x * gram[i, j] * lr[j]
            dgram[i, j] = x * tau[i] * lr[j]
            dgramt[j, i] = dgram[i, j]


@njit(fastmath=FASTMATH, nogil=True, cache=True, _nrt=False)
def backward(tokens, layer, scratch, states, dout, dloss, dq, dk, dv, dlr, dw, dtau, dgamma, dbeta, lo, hi):
    """Run cells x heads lo to hi backwards: write the gradients by the tokens, add those by the layer.

    dw [b * h, f + 1, f] holds the gradient by the final state and receives that by the first; dtau [b * h, n],
    dgamma and dbeta [b * h, f] are each cell's and head's share. `dout` has the places of the outputs, `dloss` of
    the losses, `dq`, `dk`, `dv` of the outputs and `dlr` of the losses.
    """
    n, f = len(layer.tau), layer.gamma.shape[1]
    nn, ff = scratch.here.shape[1], scratch.w.shape[2]
    w, rows, columns, squares, vectors = scratch.w, scratch.rows, scratch.columns, scratch.squares, scratch.vectors
    q, zbar, direct, dzbar = rows[0, :nn], rows[1, :nn], rows[2, :nn], rows[3, :nn]
    dg, dgx, derror, dz = rows[4, :nn], rows[5, :nn], rows[6, :nn], rows[7, :nn]
    kt, xt, dqt, dkt = columns[0], columns[1], columns[2], columns[3]
    gram, c, dct, dgram, dgramt = squares[0], squares[1], squares[2], squares[3], squares[4]
    r, dlr_row, dloss_row = vectors[0], vectors[1], vectors[2]
    ks, xhs, errors, gs = scratch.frames[0], scratch.frames[1], scratch.frames[2], scratch.frames[3]
    rs, lrs, heres = scratch.frame_vectors[0], scratch.frame_vectors[1], scratch.here
    chunks = -(-tokens.length // n)
    for cell in range(lo, hi):
        gamma, beta = layer.gamma[cell % tokens.heads], layer.beta[cell % tokens.heads]
        for segment in range(-(-chunks // SEGMENT) - 1, -1, -1):
            start, stop = segment * SEGMENT, min(chunks, (segment + 1) * SEGMENT)
            _copy(w[0], states[cell, segment])
            for chunk in range(start, stop):
                s = chunk - start
                here = heres[s]
                count = _meet(tokens, layer, cell, chunk, here, lrs[s])
                _expect(tokens, layer, cell, chunk + 1, 1, tokens.k)
                _expect(tokens, layer, cell, chunk + 1, 2, tokens.v)
                at, step = _place(tokens, 1, cell, chunk, n)
                _load(tokens.k, at, step, here, layer.cos, layer.sin, ks[s])
                _answer(w[s], ks[s], xhs[s])
                _normalise(xhs[s], here, f, rs[s])
                at, step = _place(tokens, 2, cell, chunk, n)
                _inner_gradient(ks[s], tokens.v, at, step, here, gamma, beta, xhs[s], rs[s], errors[s], gs[s])
                _copy(w[s + 1], w[s])
                _learn(w[s + 1], ks[s], gs[s], lrs[s], layer.tau[count - 1], zbar)

            for chunk in range(stop - 1, start - 1, -1):
                s = chunk - start
                k, g, lr, here = ks[s], gs[s], lrs[s], heres[s]
                count = min(n, tokens.length - chunk * n)
                end = layer.tau[count - 1]
                _clear(dlr_row)
                _expect(tokens, layer, cell, chunk - 1, 0, tokens.q)
                _expect(tokens, layer, cell, chunk - 1, 5, dout)
                # the answers to the queries, again, and back through their layer norm
                at, step = _place(tokens, 0, cell, chunk, n)
                _load(tokens.q, at, step, here, layer.cos, layer.sin, q)
                asked = w[s] if layer.causal else w[s + 1]
                _answer(asked, q, zbar)
                if layer.causal:
                    _gram(q, k, kt, gram, c, lr, layer.tau)
                    matmul(zbar, c, g)
                _normalise(zbar, here, f, r)
                at, step = _place(tokens, 5, cell, chunk, n)
                _output_backward(dzbar, zbar, r, dout, at, step, here, gamma, dgamma[cell], dbeta[cell], direct)
                if not layer.causal:
                    _add_outer(dw[cell], q, dzbar)
                # what g did to the next state and, where causal, to the answers
                _answer(dw[cell], k, dg)
                for i in range(nn):
                    total = states.dtype.type(0)
                    for j in range(f):
                        total += g[i, j] * dg[i, j]
                    dlr_row[i] -= end * total
                    dtau[cell, count - 1] -= lr[i] * total
                    for j in range(f):
                        dg[i, j] *= -end * lr[i]
                        zbar[i, j] = -end * lr[i] * g[i, j]
                transpose(xt, zbar)
                _fill(dkt, 0)
                matmul(dkt, dw[cell, :ff], xt)
                transpose(xt, dzbar)
                _fill(dqt, 0)
                matmul(dqt, asked[:ff], xt)
                if layer.causal:
                    matmul_t(dg, c, dzbar)
                    _fill(dct, 0)
                    matmul(dct, g, xt)
                    _gram_backward(dct, gram, lr, layer.tau, dlr_row, dtau[cell], dgram, dgramt)
                    matmul_t(dqt, k, dgramt)
                    matmul_t(dkt, q, dgram)
                    _add_outer(dw[cell], q, dzbar)
                # back through the inner gradient
                at, step = _place(tokens, 6, cell, chunk, n)
                for i in range(count):
                    dloss_row[i] = dloss[at + i * step] if here[i] else 0
                _inner_gradient_backward(
                    dg, xhs[s], rs[s], errors[s], g, dloss_row, here, gamma, dgamma[cell], dbeta[cell], dgx, derror, dz
                )
                _add_outer(dw[cell], k, dz)
                transpose(xt, dz)
                matmul(dkt, w[s, :ff], xt)

                for i in range(count):
                    dlr[at + i * step] = dlr_row[i] if here[i] else 0
                at, step = _place(tokens, 5, cell, chunk, n)
                for i in range(count):
                    row = dv[at + i * step : at + i * step + f]
                    for j in range(f):
                        row[j] = -derror[i, j]
                transpose(dgx, dqt)
                transpose(dz, dkt)
                for i in range(count):
                    for j in range(f):
                        direct[i, j] += dgx[i, j]
                    for j in range(f):
                        derror[i, j] += dz[i, j]
                    if not here[i]:
                        _clear(direct[i])
                        _clear(derror[i])
                rotate(layer.cos, layer.back, count, direct.reshape(direct.size), 0, ff, dq, at, step)
                rotate(layer.cos, layer.back, count, derror.reshape(derror.size), 0, ff, dk, at, step)


@njit(fastmath=FASTMATH, _nrt=False)
def _add_outer(dw, x, dz):
    """Add ``[x, 1].T dz``."""
    for i in range(len(dz)):
        for j in range(dz.shape[1]):
            dw[-1, j] += dz[i, j]
    matmul_t(dw[:-1], x, dz)
