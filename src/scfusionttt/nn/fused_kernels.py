"""The loops of `fused`, compiled by Numba; each handles the rows or elements from lo to hi."""

import math

import numpy as np

from scfusionttt.loops.compile import compiled, entry


@entry
def norm_forward(x, weight, eps, y, r, lo, hi):
    """RMSNorm of x [rows, d] to y; r [rows] is kept for the backward pass."""
    d = x.shape[1]
    for i in range(lo, hi):
        total = x.dtype.type(0)
        for j in range(d):
            total += x[i, j] * x[i, j]
        r[i] = 1 / math.sqrt(total / d + eps)
        for j in range(d):
            y[i, j] = x[i, j] * r[i] * weight[j]


@entry
def norm_backward(dy, x, weight, r, dx, dweight, n_parts, lo, hi):
    """Gradient of RMSNorm; dweight [parts, d] holds the shares of `n_parts` equal parts of the rows."""
    rows, d = x.shape
    for part in range(lo, hi):
        for i in range(rows * part // n_parts, rows * (part + 1) // n_parts):
            product = x.dtype.type(0)
            for j in range(d):
                product += dy[i, j] * weight[j] * x[i, j]
            shrink = product / d * r[i] * r[i]
            for j in range(d):
                dweight[part, j] += dy[i, j] * x[i, j] * r[i]
                dx[i, j] = r[i] * (dy[i, j] * weight[j] - x[i, j] * shrink)


@compiled
def _hash(i, low, high):
    x = np.uint32(np.uint32(i) ^ low)
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15)) ^ high) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@entry
def add_dropped(x, y, low, high, threshold, scale, out, lo, hi):
    """Add to x what dropout leaves of y; all flat."""
    for i in range(lo, hi):
        kept = scale if _hash(i, low, high) >= threshold else x.dtype.type(0)
        out[i] = x[i] + kept * y[i]


@entry
def drop(dy, low, high, threshold, scale, out, lo, hi):
    """The gradient of `add_dropped` by y."""
    for i in range(lo, hi):
        kept = scale if _hash(i, low, high) >= threshold else dy.dtype.type(0)
        out[i] = kept * dy[i]
