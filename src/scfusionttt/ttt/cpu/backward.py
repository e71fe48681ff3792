"""The backward steps of the CPU kernel on one chunk; equations and names are those of `chunked.linear`."""

from scfusionttt.loops.compile import compiled
from scfusionttt.ttt.cpu.memory import GRADIENT, LOSS, OUT, chunk_length, locate, store_result, store_scalar
from scfusionttt.ttt.cpu.steps import inner_model
from scfusionttt.ttt.cpu.tile import matmul_t
from scfusionttt.ttt.cpu.vector import lanes, load, load_masked, reduce_sum, store, zeros


@compiled
def load_upstream(tokens, layer, cell, index, present, dout, dloss, rows, line):
    """Read the gradients by a chunk's outputs and inner losses."""
    at, step = locate(tokens, layer, OUT, cell, index)
    loss_at, loss_step = locate(tokens, layer, LOSS, cell, index)
    for i in range(len(present)):
        count = layer.channels if present[i] else 0
        for j in range(0, rows.shape[1], lanes(rows)):
            store(rows, i, j, load_masked(dout, at + j, count - j))
        line[i] = dloss[loss_at] if present[i] else 0
        at, loss_at = at + step, loss_at + loss_step


@compiled
def output_backward(layer, head, dout, yh, r, dnorm, dzbar):
    """Go back from the outputs to zbar: write dzbar, and add to dnorm [2, f], which is dgamma and dbeta."""
    f, width = yh.shape[1], lanes(yh)
    mean = yh.dtype.type(1) / yh.dtype.type(layer.channels)
    for i in range(len(yh)):
        s0, s1 = zeros(yh), zeros(yh)
        for j in range(0, f, width):
            dy, y = load(dout, i, j), load(yh, i, j)
            store(dnorm, 0, j, load(dnorm, 0, j) + dy * y)
            store(dnorm, 1, j, load(dnorm, 1, j) + dy)
            dy = load(layer.gamma, head, j) * dy
            s0 += dy
            s1 += dy * y
        m0, m1 = mean * reduce_sum(s0), mean * reduce_sum(s1)
        for j in range(0, f, width):
            dy = load(layer.gamma, head, j) * load(dout, i, j) - m0 * load(layer.ones, 0, j) - m1 * load(yh, i, j)
            store(dzbar, i, j, r[i] * dy)


@compiled
def step_backward(dw, chunk, end, dg, rated, dlr):
    """Go back through the step ``w - [k, 1].T diag(end * lr) g``: write dg, ``rated = -end lr g`` and dlr.

    Returns the gradient by `end`.
    """
    f, width, dend = dg.shape[1], lanes(dg), dg.dtype.type(0)
    inner_model(dw, chunk.k, dg)
    for i in range(len(chunk.lr)):
        rate, sums = -end * chunk.lr[i], zeros(dg)
        for j in range(0, f, width):
            g, dstep = load(chunk.g, i, j), load(dg, i, j)
            sums += g * dstep
            store(dg, i, j, rate * dstep)
            store(rated, i, j, rate * g)
        dlr[i] = -end * reduce_sum(sums)
        dend -= chunk.lr[i] * reduce_sum(sums)
    return dend


@compiled
def chain_backward(layer, dct, gramt, lr, dlr, dtau, dgramt):
    """Go back through ``c = -tril(tau_i lr_j gram)``; all matrices are transposed, dtau [1, n]."""
    for j in range(len(lr)):
        sums = zeros(dct)
        for i in range(0, len(lr), lanes(dct)):
            tau, dchain = load(layer.tau, 0, i), load(dct, j, i) * load(layer.earlier, j, i)
            store(dgramt, j, i, -lr[j] * tau * dchain)
            dchain = dchain * load(gramt, j, i)
            sums += tau * dchain
            store(dtau, 0, i, load(dtau, 0, i) - lr[j] * dchain)
        dlr[j] -= reduce_sum(sums)


@compiled
def inner_gradient_backward(layer, head, chunk, dg, dloss, dnorm, derror, dz):
    """Go back through the inner gradient and the layer norm before it: write derror and dz, add to dgamma and dbeta.

    dg is overwritten.
    """
    _, xh, error, g, r, _, _ = chunk
    f, width = xh.shape[1], lanes(xh)
    mean = xh.dtype.type(1) / xh.dtype.type(layer.channels)
    for i in range(len(xh)):
        s0, s1, s2, s3, s4, s5 = zeros(xh), zeros(xh), zeros(xh), zeros(xh), zeros(xh), zeros(xh)
        for j in range(0, f, width):
            d, x = load(dg, i, j), load(xh, i, j)
            s0 += d
            s1 += d * x
            s2 += d * load(g, i, j)
            s3 += load(layer.gamma, head, j) * load(error, i, j) * x
        m0, m1, m2, m3 = mean * reduce_sum(s0), mean * reduce_sum(s1), mean * reduce_sum(s2), mean * reduce_sum(s3)
        for j in range(0, f, width):
            gamma, x, miss = load(layer.gamma, head, j), load(xh, i, j), load(error, i, j)
            dgx = r[i] * (load(dg, i, j) - m0 * load(layer.ones, 0, j) - m1 * x)
            dmiss = gamma * dgx + dloss[i] * miss
            store(dg, i, j, dgx)
            store(derror, i, j, dmiss)
            s4 += gamma * dmiss
            s5 += gamma * dmiss * x
            store(dnorm, 0, j, load(dnorm, 0, j) + dgx * miss + dmiss * x)
            store(dnorm, 1, j, load(dnorm, 1, j) + dmiss)
        m4, m5 = mean * reduce_sum(s4), mean * reduce_sum(s5) + m2
        for j in range(0, f, width):
            dx = load(layer.gamma, head, j) * load(derror, i, j) - m4 * load(layer.ones, 0, j) - m5 * load(xh, i, j)
            store(dz, i, j, r[i] * (dx - m3 * load(dg, i, j) - m1 * load(g, i, j)))


@compiled
def add_outer(dw, x, dz):
    """Add ``[x, 1].T dz``."""
    f = dw.shape[1]
    for j in range(0, f, lanes(dw)):
        bias = load(dw, f, j)
        for i in range(len(dz)):
            bias += load(dz, i, j)
        store(dw, f, j, bias)
    matmul_t(dw[:f], dw[:f], x, dz)


@compiled
def store_gradients(tokens, layer, cell, index, present, derror, dlr_row, dv, dlr):
    """Write dv and dlr of a chunk."""
    width = lanes(dv)
    at, step = locate(tokens, layer, GRADIENT, cell, index)
    lr_at, lr_step = locate(tokens, layer, LOSS, cell, index)
    for i in range(chunk_length(tokens, layer, index)):
        for j in range(0, derror.shape[1], width):
            store_result(tokens, dv, at + j, layer.channels - j, zeros(derror) - load(derror, i, j))
        store_scalar(tokens, dlr, lr_at, dlr_row[i] if present[i] else dlr.dtype.type(0))
        at, lr_at = at + step, lr_at + lr_step
