"""TTT-Linear for one (cell, head) after another, its state in cache: forward and backward, compiled by Numba.

Equations and names are those of `chunked`. A chunk of n tokens is an [n, f] matrix, filled up with zeros to the size
of the tiles; an absent token, or one beyond the end, is a row of zeros with lr = 0. The last row of a state is its
bias. Numba looks for changes in this file, not in `cpu_tile`, when it decides whether its cache is still good.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from scfusionttt.ttt.cpu_tile import PAD, matmul, matmul_t, transpose

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
    cos: np.ndarray  # [n, f / 2]
    sin: np.ndarray
    causal: bool


@njit
def _up(size):
    return -(-size // PAD) * PAD


@njit
def _place(tokens, which, cell, chunk, n):
    """Return where a chunk's first token lies in array `which`, and the step to the next."""
    b, h, t = tokens.strides[which]
    first = chunk * n
    if tokens.reverse:
        first, t = tokens.length - 1 - first, -t
        return (cell // tokens.heads) * b + (cell % tokens.heads) * h - first * t, t
    return (cell // tokens.heads) * b + (cell % tokens.heads) * h + first * t, t


@njit
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


@njit(fastmath=FASTMATH)
def _load(x, at, step, here, cos, sin, rows):
    """Read a chunk of q or k, rotated."""
    for i in range(len(here)):
        if here[i]:
            for m in range(cos.shape[1]):
                x0, x1 = x[at + 2 * m], x[at + 2 * m + 1]
                rows[i, 2 * m] = x0 * cos[i, m] - x1 * sin[i, m]
                rows[i, 2 * m + 1] = x1 * cos[i, m] + x0 * sin[i, m]
        else:
            rows[i] = 0
        at += step


@njit(fastmath=FASTMATH)
def _store(rows, count, here, cos, sin, x, at, step):
    """Write the gradient of a chunk of q or k, rotated back; that of an absent token is 0."""
    for i in range(count):
        for m in range(cos.shape[1]):
            x0, x1 = rows[i, 2 * m], rows[i, 2 * m + 1]
            x[at + 2 * m] = x0 * cos[i, m] + x1 * sin[i, m]
            x[at + 2 * m + 1] = x1 * cos[i, m] - x0 * sin[i, m]
        if not here[i]:
            x[at : at + 2 * cos.shape[1]] = 0
        at += step


@njit(fastmath=FASTMATH)
def _normalise(rows, here, f, r):
    """Put LN(rows) in their place, 0 for absent tokens, and 1/std in r."""
    kind = rows.dtype.type
    for i in range(len(here)):
        if not here[i]:
            rows[i] = 0
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


@njit(fastmath=FASTMATH)
def _inner_gradient(k, v, at, step, here, gamma, beta, xh, r, error, g):
    """Compute error = gamma xh + beta - (v - k), and the gradient g of its half square by z."""
    kind = k.dtype.type
    f = len(gamma)
    for i in range(len(here)):
        if here[i]:
            for j in range(f):
                error[i, j] = gamma[j] * xh[i, j] + beta[j] + k[i, j] - v[at + j]
            s0, s1 = kind(0), kind(0)
            for j in range(f):
                g[i, j] = gamma[j] * error[i, j]
                s0 += g[i, j]
                s1 += g[i, j] * xh[i, j]
            s0, s1 = s0 / kind(f), s1 / kind(f)
            for j in range(f):
                g[i, j] = r[i] * (g[i, j] - s0 - xh[i, j] * s1)
        else:
            error[i] = 0
            g[i] = 0
        at += step


@njit(fastmath=FASTMATH)
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


@njit(fastmath=FASTMATH)
def _answer(w, x, z):
    """Compute ``z = x w + bias``."""
    for i in range(len(z)):
        z[i] = w[-1]
    matmul(z, x, w[:-1])


@njit(fastmath=FASTMATH)
def _gram(q, k, kt, gram, c, lr, tau):
    """Compute ``gram = q k^T + 1`` and ``c = -tril(tau_i lr_j gram)``."""
    transpose(kt, k)
    gram[:] = 1
    matmul(gram, q, kt)
    c[:] = 0
    for i in range(len(tau)):
        for j in range(i + 1):
            c[i, j] = -tau[i] * lr[j] * gram[i, j]


@njit(fastmath=FASTMATH, nogil=True, cache=True)
def forward(tokens, layer, first, keep, out, loss, states, final, lo, hi):
    """Run cells x heads lo to hi: write outputs, inner losses, final states and, if asked, each segment's first state.

    first [h or b * h, f + 1, f], states [b * h, segments, f + 1, f] and final [b * h, f + 1, f] in padded sizes.
    """
    n, f = len(layer.tau), layer.gamma.shape[1]
    nn, ff = _up(n), _up(f)
    kind = first.dtype.type
    rows = np.zeros((6, nn, ff), first.dtype)
    q, k, xh, error, g, zbar = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    kt, gram, c = np.zeros((ff, nn), first.dtype), np.zeros((nn, nn), first.dtype), np.zeros((nn, nn), first.dtype)
    here, lr, r = np.zeros(nn, np.bool_), np.zeros(nn, first.dtype), np.zeros(nn, first.dtype)
    for cell in range(lo, hi):
        gamma, beta = layer.gamma[cell % tokens.heads], layer.beta[cell % tokens.heads]
        w = final[cell]
        w[:] = first[cell % len(first)]
        for chunk in range(-(-tokens.length // n)):
            if keep and chunk % SEGMENT == 0:
                states[cell, chunk // SEGMENT] = w
            count = _meet(tokens, layer, cell, chunk, here, lr)
            end = layer.tau[count - 1]
            at, step = _place(tokens, 0, cell, chunk, n)
            _load(tokens.q, at, step, here, layer.cos, layer.sin, q)
            at, step = _place(tokens, 1, cell, chunk, n)
            _load(tokens.k, at, step, here, layer.cos, layer.sin, k)
            _answer(w, k, xh)
            _normalise(xh, here, f, r)
            at, step = _place(tokens, 2, cell, chunk, n)
            _inner_gradient(k, tokens.v, at, step, here, gamma, beta, xh, r, error, g)
            if layer.causal:
                _gram(q, k, kt, gram, c, lr, layer.tau)
                _answer(w, q, zbar)
                matmul(zbar, c, g)
            _learn(w, k, g, lr, end, xh)
            if not layer.causal:
                _answer(w, q, zbar)
            _normalise(zbar, here, f, r)
            at, step = _place(tokens, 5, cell, chunk, n)
            loss_at, loss_step = _place(tokens, 6, cell, chunk, n)
            for i in range(count):
                if here[i]:
                    for j in range(f):
                        out[at + j] = q[i, j] + gamma[j] * zbar[i, j] + beta[j]
                else:
                    out[at : at + f] = 0
                square = kind(0)
                for j in range(f):
                    square += error[i, j] ** 2
                loss[loss_at] = square / kind(2)
                at, loss_at = at + step, loss_at + loss_step


@njit(fastmath=FASTMATH)
def _output_backward(dzbar, yh, r, dout, at, step, here, gamma, dgamma, dbeta, direct):
    """Turn yh into dzbar, keep the upstream gradient in `direct`, add to dgamma and dbeta."""
    kind = yh.dtype.type
    f = len(gamma)
    for i in range(len(here)):
        if here[i]:
            for j in range(f):
                direct[i, j] = dout[at + j]
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
            direct[i] = 0
            dzbar[i] = 0
        at += step


@njit(fastmath=FASTMATH)
def _inner_gradient_backward(dg, xh, r, error, g, dloss, here, gamma, dgamma, dbeta, dgx, derror, dz):
    """Go back through `_inner_gradient` and the layer norm before it: write derror and dz, add to dgamma and dbeta."""
    kind = xh.dtype.type
    f = len(gamma)
    for i in range(len(here)):
        if not here[i]:
            derror[i] = 0
            dz[i] = 0
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


@njit(fastmath=FASTMATH)
def _gram_backward(dct, gram, lr, tau, dlr, dtau, dgram, dgramt):
    """Go back through ``c = -tril(tau_i lr_j gram)``, given the transposed gradient of c."""
    dgram[:] = 0
    dgramt[:] = 0
    for i in range(len(tau)):
        for j in range(i + 1):
            x = -dct[j, i]
            dlr[j] += x * gram[i, j] * tau[i]
            dtau[i] += x * gram[i, j] * lr[j]
            dgram[i, j] = x * tau[i] * lr[j]
            dgramt[j, i] = dgram[i, j]


@njit(fastmath=FASTMATH, nogil=True, cache=True)
def backward(tokens, layer, states, dout, dloss, dq, dk, dv, dlr, dw, dtau, dgamma, dbeta, lo, hi):
    """Run cells x heads lo to hi backwards: write the gradients by the tokens, add those by the layer.

    dw [b * h, f + 1, f] holds the gradient by the final state and receives that by the first; dtau [b * h, n],
    dgamma and dbeta [b * h, f] are each cell's and head's share. `dout` has the places of the outputs, `dloss` of
    the losses, `dq`, `dk`, `dv` of the outputs and `dlr` of the losses.
    """
    n, f = len(layer.tau), layer.gamma.shape[1]
    nn, ff = _up(n), _up(f)
    kind = states.dtype
    w = np.zeros((SEGMENT + 1, ff + 1, ff), kind)
    frames = np.zeros((4, SEGMENT, nn, ff), kind)
    ks, xhs, errors, gs = frames[0], frames[1], frames[2], frames[3]
    rs, lrs, heres = np.zeros((SEGMENT, nn), kind), np.zeros((SEGMENT, nn), kind), np.zeros((SEGMENT, nn), np.bool_)
    rows = np.zeros((8, nn, ff), kind)
    q, zbar, direct, dzbar, dg, dgx, derror, dz = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    columns = np.zeros((4, ff, nn), kind)
    kt, xt, dqt, dkt = columns[0], columns[1], columns[2], columns[3]
    squares = np.zeros((5, nn, nn), kind)
    gram, c, dct, dgram, dgramt = squares[0], squares[1], squares[2], squares[3], squares[4]
    r, dlr_row, dloss_row = np.zeros(nn, kind), np.zeros(nn, kind), np.zeros(nn, kind)

    chunks = -(-tokens.length // n)
    for cell in range(lo, hi):
        gamma, beta = layer.gamma[cell % tokens.heads], layer.beta[cell % tokens.heads]
        for segment in range(-(-chunks // SEGMENT) - 1, -1, -1):
            start, stop = segment * SEGMENT, min(chunks, (segment + 1) * SEGMENT)
            w[0] = states[cell, segment]
            for chunk in range(start, stop):
                s = chunk - start
                here = heres[s]
                count = _meet(tokens, layer, cell, chunk, here, lrs[s])
                at, step = _place(tokens, 1, cell, chunk, n)
                _load(tokens.k, at, step, here, layer.cos, layer.sin, ks[s])
                _answer(w[s], ks[s], xhs[s])
                _normalise(xhs[s], here, f, rs[s])
                at, step = _place(tokens, 2, cell, chunk, n)
                _inner_gradient(ks[s], tokens.v, at, step, here, gamma, beta, xhs[s], rs[s], errors[s], gs[s])
                w[s + 1] = w[s]
                _learn(w[s + 1], ks[s], gs[s], lrs[s], layer.tau[count - 1], zbar)

            for chunk in range(stop - 1, start - 1, -1):
                s = chunk - start
                k, g, lr, here = ks[s], gs[s], lrs[s], heres[s]
                count = min(n, tokens.length - chunk * n)
                end = layer.tau[count - 1]
                dlr_row[:] = 0
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
                dkt[:] = 0
                matmul(dkt, dw[cell, :ff], xt)
                transpose(xt, dzbar)
                dqt[:] = 0
                matmul(dqt, asked[:ff], xt)
                if layer.causal:
                    matmul_t(dg, c, dzbar)
                    dct[:] = 0
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
                    for j in range(f):
                        dv[at + i * step + j] = -derror[i, j]
                for i in range(count):
                    for j in range(f):
                        direct[i, j] += dqt[j, i]
                        derror[i, j] += dkt[j, i]
                _store(direct, count, here, layer.cos, layer.sin, dq, at, step)
                _store(derror, count, here, layer.cos, layer.sin, dk, at, step)


@njit(fastmath=FASTMATH)
def _add_outer(dw, x, dz):
    """Add ``[x, 1].T dz``."""
    for i in range(len(dz)):
        for j in range(dz.shape[1]):
            dw[-1, j] += dz[i, j]
    matmul_t(dw[:-1], x, dz)
