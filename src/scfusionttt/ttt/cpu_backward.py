"""The backward steps of the CPU kernel on one chunk; equations and names are those of `chunked`."""

from scfusionttt.ttt.cpu_memory import LOSS, OUT, clear, fill, place, size_of, store
from scfusionttt.ttt.cpu_steps import answer
from scfusionttt.ttt.cpu_tile import compiled, matmul_t, transpose


@compiled
def answers_backward(tokens, layer, cell, index, dout, yh, r, here, dnorm, direct, dzbar):
    """Go back from the outputs to zbar: read dout into `direct`, write dzbar, add to dgamma and dbeta, dnorm [2, f]."""
    gamma, dgamma, dbeta = layer.gamma[cell % tokens.heads], dnorm[0], dnorm[1]
    kind, f = yh.dtype.type, len(gamma)
    at, step = place(tokens, OUT, cell, index, len(layer.tau))
    for i in range(len(here)):
        if here[i]:
            upstream = dout[at + i * step : at + i * step + f]
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
            clear(direct[i])
            clear(dzbar[i])


@compiled
def step_backward(dw, chunk, end, dg, rated, dlr):
    """Go back through the step ``w - [k, 1].T diag(end * lr) g``: write dg and ``rated = -end lr g``, add to dlr.

    Returns the gradient by `end`.
    """
    kind, dend = dg.dtype.type, dg.dtype.type(0)
    answer(dw, chunk.k, dg)
    for i in range(len(chunk.lr)):
        rate, total = -end * chunk.lr[i], kind(0)
        for j in range(dg.shape[1]):
            total += chunk.g[i, j] * dg[i, j]
        dlr[i] -= end * total
        dend -= chunk.lr[i] * total
        for j in range(dg.shape[1]):
            dg[i, j] *= rate
        for j in range(dg.shape[1]):
            rated[i, j] = rate * chunk.g[i, j]
    return dend


@compiled
def chain_backward(dct, gram, lr, tau, dlr, dtau, dgram, dgramt):
    """Go back through ``c = -tril(tau_i lr_j gram)``, given the transposed gradient of c."""
    fill(dgram, 0)
    fill(dgramt, 0)
    for i in range(len(tau)):
        for j in range(i + 1):
            x = -dct[j, i]
            dlr[j] += x * gram[i, j] * tau[i]
            dtau[i] += x * gram[i, j] * lr[j]
            dgram[i, j] = x * tau[i] * lr[j]
            dgramt[j, i] = dgram[i, j]


@compiled
def inner_gradient_backward(chunk, dg, dloss, gamma, dnorm, dgx, derror, dz):
    """Go back through the inner gradient and the layer norm before it: write derror and dz, add to dgamma and dbeta."""
    _, xh, error, g, r, _, here = chunk
    dgamma, dbeta = dnorm[0], dnorm[1]
    kind, f = xh.dtype.type, len(gamma)
    for i in range(len(here)):
        if not here[i]:
            clear(derror[i])
            clear(dz[i])
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


@compiled
def add_outer(dw, x, dz):
    """Add ``[x, 1].T dz``."""
    for i in range(len(dz)):
        for j in range(dz.shape[1]):
            dw[-1, j] += dz[i, j]
    matmul_t(dw[:-1], dw[:-1], x, dz)


@compiled
def write_gradients(tokens, layer, cell, index, here, direct, derror, dqt, dkt, dlr_row, spare, dq, dk, dv, dlr):
    """Write a chunk's gradients; dqt and dkt [f, n] are the parts of dq and dk that came through products."""
    f = layer.gamma.shape[1]
    count = size_of(tokens, layer, index)
    at, step = place(tokens, LOSS, cell, index, len(layer.tau))
    for i in range(count):
        dlr[at + i * step] = dlr_row[i] if here[i] else 0
    at, step = place(tokens, OUT, cell, index, len(layer.tau))
    for i in range(count):
        row = dv[at + i * step : at + i * step + f]
        for j in range(f):
            row[j] = -derror[i, j]
    for rows, columns, x in ((direct, dqt, dq), (derror, dkt, dk)):
        transpose(spare, columns)
        for i in range(count):
            for j in range(f):
                rows[i, j] += spare[i, j]
        store(tokens, layer, cell, index, rows, here, x)
