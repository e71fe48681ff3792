"""The Triton kernels of TTT-Linear: one program per cell, head and direction, its state in registers.

Equations and names are those of `chunked.linear`. A chunk is a tile of N tokens by F columns, both powers of two; a
token that is absent or beyond the end is a row of zeros, and columns beyond the head size f stay 0.

The forward keeps g, and no states. The backward starts from the final state and undoes one step after the other:
``w = w' + k.T diag(e) g``.
"""

import triton
import triton.language as tl

from scfusionttt.ttt.gpu.tile import (
    add_product,
    correction,
    dot,
    load,
    load_matrix,
    load_rotations,
    normalize,
    normalize_backward,
    places,
    rotate,
    store,
    store_matrix,
)


@triton.jit(do_not_specialize=["tokens", "first"])
def forward(
    q, k, v, lr, mask, tau, gamma, beta, cos, sin, w0, b0,
    out, loss, g, w_end, b_end,
    q_cell, q_head, q_step, k_cell, k_head, k_step, v_cell, v_head, v_step,
    lr_cell, lr_head, lr_step, mask_cell, mask_step, w_cell, b_cell,
    tokens, first,
    HEADS: tl.constexpr, n: tl.constexpr, f: tl.constexpr, N: tl.constexpr, F: tl.constexpr,
    CAUSAL: tl.constexpr, ROPE: tl.constexpr, MASKED: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Train the inner model chunk by chunk; shapes are those of `ttt_linear`. The grid is cells x heads, directions."""
    index, direction = tl.program_id(0).to(tl.int64), tl.program_id(1)
    cell, head, reverse = index // HEADS, index % HEADS, direction + first == 1
    index += direction * tl.num_programs(0)
    row = index // HEADS * tokens * HEADS + head  # of out: directions x cells x tokens x heads
    column, rank = tl.arange(0, F), tl.arange(0, N)
    inside = column < f
    scale, shift = tl.load(gamma + head * f + column, inside, 0.0), tl.load(beta + head * f + column, inside, 0.0)
    steps = tl.load(tau + rank, rank < n, 0.0)
    w = load_matrix(w0 + cell * w_cell + head * f * f, f, F)
    b = tl.load(b0 + cell * b_cell + head * f + column, inside, 0.0)

    for start in range(0, tokens, n):
        token, exists, here = places(start, tokens, mask + cell * mask_cell, mask_step, reverse, MASKED, n, N)
        q_i = load(q + cell * q_cell + head * q_head, token, q_step, here, inside, F)
        k_j = load(k + cell * k_cell + head * k_head, token, k_step, here, inside, F)
        v_j = load(v + cell * v_cell + head * v_head, token, v_step, here, inside, F)
        rate = tl.load(lr + cell * lr_cell + head * lr_head + token * lr_step, here, 0.0)
        end = tl.load(tau + tl.minimum(n, tokens - start) - 1)
        if ROPE:
            turn_cos, turn_sin = load_rotations(cos, sin, n, f, N, F)
            q_i, k_j = rotate(q_i, turn_cos, turn_sin), rotate(k_j, turn_cos, turn_sin)

        xh, r = normalize(dot(k_j, w, PRECISION) + b[None, :], inside, f)
        error = scale[None, :] * xh + shift[None, :] - (v_j - k_j)
        g_j = normalize_backward(scale[None, :] * error, xh, r, inside, f)
        tl.store(loss + index * tokens + token, tl.where(here, 0.5 * tl.sum(error * error, 1), 0.0), exists)
        if KEEP:
            store(g + row * f, g_j, token, HEADS * f, exists, inside, F)

        if CAUSAL:
            eta, gram = correction(q_i, k_j, rate, steps, PRECISION)
            zbar = dot(q_i, w, PRECISION) + b[None, :] - dot(eta * gram, g_j, PRECISION)
        rated = -(end * rate)[:, None] * g_j
        w = add_product(w, tl.trans(k_j), rated, PRECISION)
        b += tl.sum(rated, 0)
        if not CAUSAL:
            zbar = dot(q_i, w, PRECISION) + b[None, :]
        yh, _ = normalize(zbar, inside, f)
        y = tl.where(here[:, None], q_i + scale[None, :] * yh + shift[None, :], 0.0)
        store(out + row * f, y, token, HEADS * f, exists, inside, F)

    store_matrix(w_end + index * f * f, w, f, F)
    tl.store(b_end + index * f + column, b, inside)


@triton.jit
def answer_backward(zbar, dout, scale, dscale, inside, f):
    """Go back from the output to zbar; return dzbar, and dscale with this part added."""
    yh, r = normalize(zbar, inside, f)
    return normalize_backward(scale[None, :] * dout, yh, r, inside, f), dscale + tl.sum(dout * yh, 0)


@triton.jit
def step_backward(k, g, e, dw, db, PRECISION: tl.constexpr):
    """Go back through ``w' = w - k.T diag(e) g``; return the gradients by k, g and e."""
    slope = dot(k, dw, PRECISION) + db[None, :]
    return -dot(e * g, tl.trans(dw), PRECISION), -e * slope, -tl.sum(g * slope, 1)


@triton.jit
def inner_gradient_backward(z, offset, g, dg, dloss, scale, shift, dscale, inside, f):
    """Go back through g and the layer norm before it; return dz, derror, and dscale with this part added."""
    xh, r = normalize(z, inside, f)
    error = scale[None, :] * xh + shift[None, :] + offset
    dgx = normalize_backward(dg, xh, r, inside, f)
    derror = scale[None, :] * dgx + dloss * error
    slopes = dgx * tl.sum(scale[None, :] * error * xh, 1)[:, None] + g * tl.sum(dg * xh, 1)[:, None]
    slopes += xh * tl.sum(dg * g, 1)[:, None]
    dz = normalize_backward(scale[None, :] * derror, xh, r, inside, f) - r / f * slopes
    return dz, derror, dscale + tl.sum(dgx * error + derror * xh, 0)


@triton.jit(do_not_specialize=["tokens", "first"])
def backward(
    q, k, v, lr, mask, tau, gamma, beta, cos, sin, g, w_end, b_end,
    dout, dloss, dw_end, db_end,
    dq, dk, dv, dlr, dtau, dw0, db0, dgamma, dbeta,
    q_cell, q_head, q_step, k_cell, k_head, k_step, v_cell, v_head, v_step,
    lr_cell, lr_head, lr_step, mask_cell, mask_step,
    dout_way, dout_cell, dout_head, dout_step, dloss_way, dloss_cell, dloss_head, dloss_step,
    tokens, first,
    HEADS: tl.constexpr, n: tl.constexpr, f: tl.constexpr, N: tl.constexpr, F: tl.constexpr,
    CAUSAL: tl.constexpr, ROPE: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Undo the steps of `forward` from the last chunk to the first, and carry all gradients along."""
    index, direction = tl.program_id(0).to(tl.int64), tl.program_id(1)
    cell, head, reverse = index // HEADS, index % HEADS, direction + first == 1
    dout += direction * dout_way + cell * dout_cell + head * dout_head
    dloss += direction * dloss_way + cell * dloss_cell + head * dloss_head
    index += direction * tl.num_programs(0)
    row = index // HEADS * tokens * HEADS + head
    column, rank = tl.arange(0, F), tl.arange(0, N)
    inside, earlier = column < f, rank[:, None] >= rank[None, :]
    scale, shift = tl.load(gamma + head * f + column, inside, 0.0), tl.load(beta + head * f + column, inside, 0.0)
    steps = tl.load(tau + rank, rank < n, 0.0)
    w, dw = load_matrix(w_end + index * f * f, f, F), load_matrix(dw_end + index * f * f, f, F)
    b = tl.load(b_end + index * f + column, inside, 0.0)
    db = tl.load(db_end + index * f + column, inside, 0.0)
    dscale, dshift = tl.zeros((F,), tl.float32), tl.zeros((F,), tl.float32)
    dsteps = tl.zeros((N,), tl.float32)

    for back in range(0, tokens, n):
        start = (tokens - 1) // n * n - back
        token, exists, here = places(start, tokens, mask + cell * mask_cell, mask_step, reverse, MASKED, n, N)
        q_i = load(q + cell * q_cell + head * q_head, token, q_step, here, inside, F)
        k_j = load(k + cell * k_cell + head * k_head, token, k_step, here, inside, F)
        v_j = load(v + cell * v_cell + head * v_head, token, v_step, here, inside, F)
        g_j = load(g + row * f, token, HEADS * f, here, inside, F)
        dout_i = load(dout, token, dout_step, here, inside, F)
        dloss_j = tl.load(dloss + token * dloss_step, here, 0.0)[:, None]
        rate = tl.load(lr + cell * lr_cell + head * lr_head + token * lr_step, here, 0.0)
        last = tl.minimum(n, tokens - start) - 1
        end = tl.load(tau + last)
        if ROPE:
            turn_cos, turn_sin = load_rotations(cos, sin, n, f, N, F)
            q_i, k_j = rotate(q_i, turn_cos, turn_sin), rotate(k_j, turn_cos, turn_sin)

        # Products with the same matrix stand side by side, or its elements would have to stay in registers between.
        e_j = (end * rate)[:, None]
        if not CAUSAL:
            zbar = dot(q_i, w, PRECISION) + b[None, :]
            dzbar, dscale = answer_backward(zbar, dout_i, scale, dscale, inside, f)
            dq_i = dout_i + dot(dzbar, tl.trans(w), PRECISION)
            dw = add_product(dw, tl.trans(q_i), dzbar, PRECISION)
            db += tl.sum(dzbar, 0)
        w = add_product(w, tl.trans(k_j), e_j * g_j, PRECISION)
        b += tl.sum(e_j * g_j, 0)
        z = dot(k_j, w, PRECISION) + b[None, :]
        if CAUSAL:
            zbar = dot(q_i, w, PRECISION) + b[None, :]
        dk_j, dg, de = step_backward(k_j, g_j, e_j, dw, db, PRECISION)
        dlr_j = end * de
        dsteps += tl.where(rank == last, tl.sum(rate * de, 0), 0.0)
        if CAUSAL:
            eta, gram = correction(q_i, k_j, rate, steps, PRECISION)
            zbar -= dot(eta * gram, g_j, PRECISION)
            dzbar, dscale = answer_backward(zbar, dout_i, scale, dscale, inside, f)
            dchain = tl.where(earlier, -dot(dzbar, tl.trans(g_j), PRECISION), 0.0)
            dg -= dot(tl.trans(eta * gram), dzbar, PRECISION)
            dgram, deta = dchain * eta, dchain * gram
            dk_j += dot(tl.trans(dgram), q_i, PRECISION)
            dlr_j += tl.sum(deta * steps[:, None], 0)
            dsteps += tl.sum(deta * rate[None, :], 1)
            dw = add_product(dw, tl.trans(q_i), dzbar, PRECISION)
            db += tl.sum(dzbar, 0)

        dz, derror, dscale = inner_gradient_backward(z, k_j - v_j, g_j, dg, dloss_j, scale, shift, dscale, inside, f)
        dk_j += derror + dot(dz, tl.trans(w), PRECISION)
        if CAUSAL:
            dq_i = dout_i + dot(dzbar, tl.trans(w), PRECISION) + dot(dgram, k_j, PRECISION)
        dw = add_product(dw, tl.trans(k_j), dz, PRECISION)
        db += tl.sum(dz, 0)
        dshift += tl.sum(dout_i + derror, 0)

        if ROPE:
            dq_i, dk_j = rotate(dq_i, turn_cos, -turn_sin), rotate(dk_j, turn_cos, -turn_sin)
        store(dq + row * f, dq_i, token, HEADS * f, exists, inside, F)
        store(dk + row * f, dk_j, token, HEADS * f, exists, inside, F)
        store(dv + row * f, -derror, token, HEADS * f, exists, inside, F)
        tl.store(dlr + index * tokens + token, tl.where(here, dlr_j, 0.0), exists)

    store_matrix(dw0 + index * f * f, dw, f, F)
    tl.store(db0 + index * f + column, db, inside)
    tl.store(dgamma + index * f + column, dscale, inside)
    tl.store(dbeta + index * f + column, dshift, inside)
    tl.store(dtau + index * n + rank, dsteps, rank < n)
