"""TTT-Linear for one (cell, head) after another, its state in cache: forward and backward, compiled by Numba."""

from scfusionttt.ttt.cpu_backward import (
    add_outer,
    answers_backward,
    chain_backward,
    inner_gradient_backward,
    step_backward,
    write_gradients,
)
from scfusionttt.ttt.cpu_memory import LOSS, OUT, SEGMENT, Q, clear, copy, expect, fill, frame, place, size_of
from scfusionttt.ttt.cpu_steps import ask, learn, study, write
from scfusionttt.ttt.cpu_tile import compiled, entry, matmul, matmul_t, transpose


@entry
def forward(tokens, layer, scratch, first, out, loss, states, final, lo, hi):
    """Run cells x heads lo to hi: write outputs, inner losses and final states, and each segment's first state.

    first [h or b * h, f + 1, f] and final [b * h, f + 1, f] in padded sizes; states [b * h, segments, f + 1, f], where
    no segments means that none are kept.
    """
    n = scratch.here.shape[1]
    q, zbar, spare, r = scratch.rows[0, :n], scratch.rows[1, :n], scratch.rows[2, :n], scratch.lines[0]
    kt, gram, c = scratch.columns[0, : scratch.w.shape[2]], scratch.squares[0], scratch.squares[1]
    chunk, chunks = frame(scratch, 0), -(-tokens.length // len(layer.tau))
    for cell in range(lo, hi):
        w, after = final[cell], scratch.w[0]
        copy(w, first[cell % len(first)])
        for index in range(chunks):
            if index % SEGMENT == 0 and states.shape[1] > 0:
                copy(states[cell, index // SEGMENT], w)
            study(tokens, layer, cell, index, w, chunk)
            learn(w, after, chunk, layer.tau[size_of(tokens, layer, index) - 1], spare)
            expect(tokens, layer, cell, index + 1, Q, tokens.q)
            ask(tokens, layer, cell, index, w, after, chunk, q, zbar, r, kt, gram, c)
            write(tokens, layer, cell, index, q, zbar, chunk.error, chunk.here, out, loss)
            w, after = after, w
        if chunks % 2:  # the last step ended in the other of the two
            copy(final[cell], w)


@entry
def backward(tokens, layer, scratch, states, dout, dloss, dq, dk, dv, dlr, dw, dtau, dnorm, lo, hi):
    """Run cells x heads lo to hi backwards: write the gradients by the tokens, add those by the layer.

    dw [b * h, f + 1, f] holds the gradient by the final state and receives that by the first; dtau [b * h, n] and
    dnorm [b * h, segments, 2, f], of gamma and beta, are each one's share.
    """
    w, n = scratch.w, len(layer.tau)
    chunks = -(-tokens.length // n)
    for cell in range(lo, hi):
        for segment in range(-(-chunks // SEGMENT) - 1, -1, -1):
            start, stop = segment * SEGMENT, min(chunks, (segment + 1) * SEGMENT)
            copy(w[0], states[cell, segment])
            for index in range(start, stop):
                s, end = index - start, layer.tau[size_of(tokens, layer, index) - 1]
                chunk = frame(scratch, s)
                study(tokens, layer, cell, index, w[s], chunk)
                learn(w[s], w[s + 1], chunk, end, scratch.rows[0, : len(chunk.lr)])
            for index in range(stop - 1, start - 1, -1):
                expect(tokens, layer, cell, index - 1, Q, tokens.q)
                expect(tokens, layer, cell, index - 1, OUT, dout)
                share = dtau[cell], dnorm[cell, segment]
                _chunk_backward(tokens, layer, scratch, cell, index, dout, dloss, dq, dk, dv, dlr, dw[cell], share)


@compiled
def _chunk_backward(tokens, layer, scratch, cell, index, dout, dloss, dq, dk, dv, dlr, dw, share):
    s, n, f = index % SEGMENT, scratch.here.shape[1], scratch.w.shape[2]
    chunk, before, after, last = frame(scratch, s), scratch.w[s], scratch.w[s + 1], size_of(tokens, layer, index) - 1
    q, zbar, direct, dzbar = scratch.rows[0, :n], scratch.rows[1, :n], scratch.rows[2, :n], scratch.rows[3, :n]
    dg, dgx, derror, dz = scratch.rows[4, :n], scratch.rows[5, :n], scratch.rows[6, :n], scratch.rows[7, :n]
    kt, xt = scratch.columns[0, :f], scratch.columns[1, :f]
    dqt, dkt = scratch.columns[2, :f], scratch.columns[3, :f]
    gram, c, dct = scratch.squares[0], scratch.squares[1], scratch.squares[2]
    dgram, dgramt = scratch.squares[3], scratch.squares[4]
    r, dlr_row, dloss_row = scratch.lines[0], scratch.lines[1], scratch.lines[2]
    dtau, dnorm = share

    ask(tokens, layer, cell, index, before, after, chunk, q, zbar, r, kt, gram, c)
    answers_backward(tokens, layer, cell, index, dout, zbar, r, chunk.here, dnorm, direct, dzbar)
    if not layer.causal:
        add_outer(dw, q, dzbar)

    # what g did to the next state: dg, and dk through the products
    clear(dlr_row)
    dtau[last] += step_backward(dw, chunk, layer.tau[last], dg, zbar, dlr_row)
    transpose(xt, zbar)
    fill(dkt, 0)
    matmul(dkt, dw[:f], xt)

    # what the queries met: the state and, where causal, g
    transpose(xt, dzbar)
    fill(dqt, 0)
    if layer.causal:
        matmul(dqt, before[:f], xt)
        matmul_t(dg, dg, c, dzbar)
        fill(dct, 0)
        matmul(dct, chunk.g, xt)
        chain_backward(dct, gram, chunk.lr, layer.tau, dlr_row, dtau, dgram, dgramt)
        matmul_t(dqt, dqt, chunk.k, dgramt)
        matmul_t(dkt, dkt, q, dgram)
        add_outer(dw, q, dzbar)
    else:
        matmul(dqt, after[:f], xt)

    # back through the inner gradient and its layer norm to k, v and the state
    at, step = place(tokens, LOSS, cell, index, len(layer.tau))
    for i in range(last + 1):
        dloss_row[i] = dloss[at + i * step]
    inner_gradient_backward(chunk, dg, dloss_row, layer.gamma[cell % tokens.heads], dnorm, dgx, derror, dz)
    add_outer(dw, chunk.k, dz)
    transpose(xt, dz)
    matmul(dkt, before[:f], xt)
    write_gradients(tokens, layer, cell, index, chunk.here, direct, derror, dqt, dkt, dlr_row, dz, dq, dk, dv, dlr)
