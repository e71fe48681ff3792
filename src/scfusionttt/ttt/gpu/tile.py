"""The steps of the Triton kernels on one tile: products, rotations, layer norms, and loads and stores by masks."""

import triton
import triton.language as tl

from scfusionttt.ttt.definition import EPS as _EPS

EPS = tl.constexpr(_EPS)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """Return ``a b`` of float32 tiles, summed up in float32."""
    if PRECISION == "bf16":
        product = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def add_product(w, a, b, PRECISION: tl.constexpr):
    """Return ``w + a b``, the product added whole: summed up inside w, each term would round at the size of w."""
    return w - dot(-a, b, PRECISION)


@triton.jit
def rotate(x, cos, sin):
    """Rotate the pairs of x [N, F] by the tables [N, F / 2]."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), x.shape)


@triton.jit
def normalize(z, inside, f):
    """Return the layer norm of each row of z, 0 outside the head, and its 1/std."""
    centered = tl.where(inside[None, :], z - (tl.sum(z, 1) / f)[:, None], 0.0)
    r = tl.rsqrt(tl.sum(centered * centered, 1) / f + EPS)[:, None]
    return centered * r, r


@triton.jit
def normalize_backward(y, xh, r, inside, f):
    """Return the gradient by z where y is that by ``xh = LN(z)``; y is 0 outside the head."""
    mean, slope = (tl.sum(y, 1) / f)[:, None], (tl.sum(y * xh, 1) / f)[:, None]
    return tl.where(inside[None, :], r * (y - mean - xh * slope), 0.0)


@triton.jit
def places(start, tokens, mask, mask_step, REVERSE, MASKED: tl.constexpr, n, N: tl.constexpr):
    """Return where the tokens of a chunk lie, which rows are tokens, and which of these are present."""
    rank = tl.arange(0, N)
    walked = start + rank
    exists = (rank < n) & (walked < tokens)
    token = tl.where(REVERSE, tokens - 1 - walked, walked).to(tl.int64)
    here = exists
    if MASKED:
        here = exists & (tl.load(mask + token * mask_step, exists, 0) != 0)
    return token, exists, here


@triton.jit
def load(x, token, step, rows, inside, F: tl.constexpr):
    """Return a tile of x: the tokens that lie `step` apart, 0 in the rows that are not wanted."""
    return tl.load(x + (token * step)[:, None] + tl.arange(0, F)[None, :], rows[:, None] & inside[None, :], 0.0)


@triton.jit
def store(x, value, token, step, rows, inside, F: tl.constexpr):
    """Write a tile to x, the rows that are wanted."""
    tl.store(x + (token * step)[:, None] + tl.arange(0, F)[None, :], value, rows[:, None] & inside[None, :])


@triton.jit
def load_matrix(x, f, F: tl.constexpr):
    """Return a matrix [f, f], filled up with zeros to [F, F]."""
    i = tl.arange(0, F)
    return tl.load(x + i[:, None] * f + i[None, :], (i[:, None] < f) & (i[None, :] < f), 0.0)


@triton.jit
def store_matrix(x, value, f, F: tl.constexpr):
    """Write the matrix [f, f] in a tile [F, F]."""
    i = tl.arange(0, F)
    tl.store(x + i[:, None] * f + i[None, :], value, (i[:, None] < f) & (i[None, :] < f))


@triton.jit
def load_rotations(cos, sin, n, f, N: tl.constexpr, F: tl.constexpr):
    """Return the tables that `rotate` wants."""
    i, pair = tl.arange(0, N), tl.arange(0, F // 2)
    at, inside = i[:, None] * (f // 2) + pair[None, :], (i[:, None] < n) & (pair[None, :] < f // 2)
    return tl.load(cos + at, inside, 0.0), tl.load(sin + at, inside, 0.0)


@triton.jit
def correction(q, k, lr, tau, PRECISION: tl.constexpr):
    """Return ``eta`` and ``gram``: zbar is ``q w - (eta * gram) g`` where a token sees the earlier ones only."""
    i = tl.arange(0, q.shape[0])
    eta = tl.where(i[:, None] >= i[None, :], tau[:, None] * lr[None, :], 0.0)
    return eta, dot(q, tl.trans(k), PRECISION) + 1.0
