"""TTT-Linear for one (cell, head) after another, its state in cache: forward and backward, compiled by Numba."""

from scfusionttt.ttt.cpu_backward import (
    add_outer,
    answers_backward,
    chain_backward,
    inner_gradient_backward,
    step_backward,
    upstream,
    write_gradients,
)
from scfusionttt.ttt.cpu_memory import GRADIENT, OUT, SEGMENT, Q, copy, expect, expect_to_write, frame, give, size_of
from scfusionttt.ttt.cpu_steps import ask, learn, study, write_answers
from scfusionttt.ttt.cpu_tile import matmul, matmul_t, transpose
from scfusionttt.ttt.cpu_vector import compiled, entry


@entry
def forward(tokens, layer, scratch, first, out, loss, states, final, lo, hi):
    """Run cells x heads lo to hi: write outputs, inner losses and final states, and each segment's first state.

    first [h or b * h, f + 1, f] and final [b * h, f + 1, f] in padded sizes; states [b * h, segments, f + 1, f], where
    no segments means that none are kept.
    """
    n = scratch.here.shape[1]
    q, zbar, spare, r = scratch.rows[0, :n], scratch.rows[1, :n], scratch.rows[2, :n], scratch.lines[0]
    qt, gramt, ct = scratch.columns[0, : scratch.w.shape[2]], scratch.squares[0], scratch.squares[1]
    chunk, chunks = frame(scratch, 0), -(-tokens.length // layer.mini_batch)
    for cell in range(lo, hi):
        w, after = final[cell], scratch.w[0]
        copy(w, first[cell % len(first)])
        for index in range(chunks):
            if index % SEGMENT == 0 and states.shape[1] > 0:
                copy(states[cell, index // SEGMENT], w)
            study(tokens, layer, cell, index, w, chunk)
            learn(w, after, chunk, layer.tau[0, size_of(tokens, layer, index) - 1], spare)
            expect(tokens, layer, cell, index + 1, Q, tokens.q)
            expect_to_write(tokens, layer, cell, index, OUT, out)
            ask(tokens, layer, cell, index, w, after, chunk, q, zbar, r, qt, gramt, ct)
            write_answers(tokens, layer, cell, index, q, zbar, chunk, out, loss)
            w, after = after, w
        if chunks % 2:  # the last step ended in the other of the two
            copy(final[cell], w)


@entry
def backward(tokens, layer, scratch, states, dout, dloss, dq, dk, dv, dlr, dw, dtau, dnorm, lo, hi):
    """Run cells x heads lo to hi backwards: write the gradients by the tokens, add those by the layer.

    dw [b * h, f + 1, f] holds the gradient by the final state and receives that by the first; dtau [b * h, 1, n] and
    dnorm [b * h, segments, 2, f], of gamma and beta, are each one's share.
    """
    w, chunks = scratch.w, -(-tokens.length // layer.mini_batch)
    for cell in range(lo, hi):
        for segment in range(-(-chunks // SEGMENT) - 1, -1, -1):
            start, stop = segment * SEGMENT, min(chunks, (segment + 1) * SEGMENT)
            copy(w[0], states[cell, segment])
            for index in range(start, stop):
                s, end = index - start, layer.tau[0, size_of(tokens, layer, index) - 1]
                chunk = frame(scratch, s)
                study(tokens, layer, cell, index, w[s], chunk)
                learn(w[s], w[s + 1], chunk, end, scratch.rows[0, : len(chunk.lr)])
            for index in range(stop - 1, start - 1, -1):
                expect(tokens, layer, cell, index - 1, Q, tokens.q)
                expect(tokens, layer, cell, index - 1, OUT, dout)
                for gradient in (dq, dk, dv):
                    expect_to_write(tokens, layer, cell, index, GRADIENT, gradient)
                given = dw[cell], dtau[cell], dnorm[cell, segment]
                _chunk_backward(tokens, layer, scratch, cell, index, dout, dloss, dq, dk, dv, dlr, *given)


@compiled
def _chunk_backward(tokens, layer, scratch, cell, index, dout, dloss, dq, dk, dv, dlr, dw, dtau, dnorm):
    s, n, f, head = index % SEGMENT, scratch.here.shape[1], scratch.w.shape[2], cell % tokens.heads
    chunk, before, after, last = frame(scratch, s), scratch.w[s], scratch.w[s + 1], size_of(tokens, layer, index) - 1
    q, zbar, dzbar = scratch.rows[0, :n], scratch.rows[1, :n], scratch.rows[2, :n]
    dg, derror, direct, spare = scratch.rows[3, :n], scratch.rows[4, :n], scratch.rows[5, :n], zbar
    qt, xt, dqt, dkt = scratch.columns[0, :f], scratch.columns[1, :f], scratch.columns[2, :f], scratch.columns[3, :f]
    gramt, ct, dct, dgramt = scratch.squares[0], scratch.squares[1], scratch.squares[2], scratch.squares[3]
    r, dlr_row, dloss_row = scratch.lines[0], scratch.lines[1], scratch.lines[2]

    ask(tokens, layer, cell, index, before, after, chunk, q, zbar, r, qt, gramt, ct)
    upstream(tokens, layer, cell, index, chunk.here, dout, dloss, direct, dloss_row)
    answers_backward(layer, head, direct, zbar, r, dnorm, dzbar)
    if not layer.causal:
        add_outer(dw, q, dzbar)

    # what g did to the next state: dg, and dk through the products
    dtau[0, last] += step_backward(dw, chunk, layer.tau[0, last], dg, spare, dlr_row)
    transpose(xt, spare)
    matmul(dkt, None, dw[:f], xt)

    # what the queries met: the state and, where causal, g
    transpose(xt, dzbar)
    if layer.causal:
        matmul(dqt, None, before[:f], xt)
        matmul(dg, dg, ct, dzbar)
        matmul(dct, None, chunk.g, xt)
        chain_backward(layer, dct, gramt, chunk.lr, dlr_row, dtau, dgramt)
        matmul_t(direct, direct, dgramt, chunk.k)
        add_outer(dw, q, dzbar)
    else:
        matmul(dqt, None, after[:f], xt)

    # back through the inner gradient and its layer norm to k, v and the state
    inner_gradient_backward(layer, head, chunk, dg, dloss_row, dnorm, derror, spare)
    add_outer(dw, chunk.k, spare)
    transpose(xt, spare)
    matmul(dkt, dkt, before[:f], xt)
    write_gradients(tokens, layer, cell, index, chunk.here, derror, dlr_row, dv, dlr)
    if layer.causal:
        matmul(derror, derror, dgramt, q)
    transpose(spare, dqt)
    give(tokens, layer, cell, index, direct, spare, dq)
    transpose(spare, dkt)
    give(tokens, layer, cell, index, derror, spare, dk)
