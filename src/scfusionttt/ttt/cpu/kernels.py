"""TTT-Linear for one (cell, head) after another, its state in cache: forward and backward, compiled by Numba."""

from scfusionttt.loops.compile import compiled, entry
from scfusionttt.ttt.cpu.backward import (
    add_outer,
    chain_backward,
    inner_gradient_backward,
    load_upstream,
    output_backward,
    step_backward,
    store_gradients,
)
from scfusionttt.ttt.cpu.memory import (
    GRADIENT,
    OUT,
    SEGMENT,
    Q,
    chunk_buffers,
    chunk_length,
    copy,
    load_rotated,
    prefetch_chunk,
    prefetch_output,
    prefetch_trace,
    store_unrotated,
    trace_rows,
)
from scfusionttt.ttt.cpu.steps import (
    answer_queries,
    chunk_forward,
    gram_and_chain,
    reload_chunk,
    store_outputs,
    update_state,
)
from scfusionttt.ttt.cpu.tile import matmul, matmul_t, transpose
from scfusionttt.ttt.cpu.vector import fence


@entry
def forward(tokens, layer, scratch, trace, first, out, loss, final, lo, hi):
    """Run cells x heads lo to hi: write outputs, inner losses and final states, and fill the trace if it has room.

    first [h or b * h, f + 1, f] and final [b * h, f + 1, f] in padded sizes.
    """
    n, keeps = scratch.present.shape[0], trace.states.shape[1] > 0
    q, spare, qt = scratch.rows[5, :n], scratch.rows[6, :n], scratch.columns[0, : scratch.w.shape[1]]
    gramt, ct = scratch.squares[0], scratch.squares[1]
    for cell in range(lo, hi):
        w = final[cell]
        copy(w, first[cell % len(first)])
        for index in range(-(-tokens.length // layer.mini_batch)):
            if keeps and index % SEGMENT == 0:
                copy(trace.states[cell, index // SEGMENT], w)
            chunk = chunk_buffers(layer, trace, scratch, cell, index)
            end = layer.tau[0, chunk_length(tokens, layer, index) - 1]
            yh, r = trace_rows(layer, trace, scratch, 1, cell, index)
            chunk_forward(tokens, layer, cell, index, w, chunk)
            if not layer.causal:
                update_state(w, chunk, end, spare)
            load_rotated(tokens, layer, cell, index, Q, tokens.q, chunk.present, q)
            prefetch_chunk(tokens, layer, cell, index + 1, Q, tokens.q)
            prefetch_output(tokens, layer, cell, index, OUT, out)
            answer_queries(layer, w, chunk, q, yh, r, qt, gramt, ct)
            if layer.causal:
                update_state(w, chunk, end, spare)
            store_outputs(tokens, layer, cell, index, q, yh, chunk, out, loss)
        if keeps:
            copy(trace.states[cell, -1], w)
    fence()


@entry
def backward(tokens, layer, scratch, trace, gradients, dw, dtau, dnorm, lo, hi):
    """Run cells x heads lo to hi backwards: write the `gradients` by the tokens, add those by the layer.

    The states are rebuilt by undoing one step after another, from the state kept at each segment's end. dw
    [b * h, f + 1, f] holds the gradient by the final state and receives that by the first; dtau [b * h, 1, n] and dnorm
    [b * h, segments, 2, f], of gamma and beta, are each one's share.
    """
    w, chunks = scratch.w, -(-tokens.length // layer.mini_batch)
    for cell in range(lo, hi):
        for segment in range(-(-chunks // SEGMENT) - 1, -1, -1):
            copy(w, trace.states[cell, segment + 1])
            for index in range(min(chunks, (segment + 1) * SEGMENT) - 1, segment * SEGMENT - 1, -1):
                given = dw[cell], dtau[cell], dnorm[cell, segment]
                _chunk_backward(tokens, layer, scratch, trace, cell, index, gradients, *given)
    fence()


@compiled
def _chunk_backward(tokens, layer, scratch, trace, cell, index, gradients, dw, dtau, dnorm):
    n, f, head = scratch.present.shape[0], scratch.w.shape[1], cell % tokens.heads
    w, rows, chunk = scratch.w, scratch.rows, chunk_buffers(layer, trace, scratch, cell, index)
    yh, r = trace_rows(layer, trace, scratch, 1, cell, index)
    q, dzbar, dg, derror = rows[5, :n], rows[6, :n], rows[7, :n], rows[8, :n]
    direct, spare = rows[0, :n], rows[1, :n]
    qt, xt, dqt, dkt = scratch.columns[0, :f], scratch.columns[1, :f], scratch.columns[2, :f], scratch.columns[3, :f]
    gramt, ct, dct, dgramt = scratch.squares[0], scratch.squares[1], scratch.squares[2], scratch.squares[3]
    dlr_row, dloss_row, last = scratch.lines[3], scratch.lines[4], chunk_length(tokens, layer, index) - 1
    end = layer.tau[0, last]

    reload_chunk(tokens, layer, cell, index, chunk)
    load_rotated(tokens, layer, cell, index, Q, tokens.q, chunk.present, q)
    prefetch_chunk(tokens, layer, cell, index - 1, Q, tokens.q)
    load_upstream(tokens, layer, cell, index, chunk.present, gradients.out, gradients.loss, direct, dloss_row)
    prefetch_chunk(tokens, layer, cell, index - 1, OUT, gradients.out)
    prefetch_trace(layer, trace, cell, index - 1)
    for gradient in (gradients.q, gradients.k, gradients.v):
        prefetch_output(tokens, layer, cell, index, GRADIENT, gradient)
    output_backward(layer, head, direct, yh, r, dnorm, dzbar)
    transpose(xt, dzbar)
    if not layer.causal:  # the queries met the state after the step
        matmul(dqt, None, w[:f], xt)
        add_outer(dw, q, dzbar)

    # what g did to the next state: dg, and dk through the products
    update_state(w, chunk, -end, spare)
    dtau[0, last] += step_backward(dw, chunk, end, dg, spare, dlr_row)
    if layer.causal:  # they met the state before it, and g
        matmul(dqt, None, w[:f], xt)
        gram_and_chain(layer, q, chunk, qt, gramt, ct)
        matmul(dg, dg, ct, dzbar)
        matmul(dct, None, chunk.g, xt)
        chain_backward(layer, dct, gramt, chunk.lr, dlr_row, dtau, dgramt)
        matmul_t(direct, direct, dgramt, chunk.k)
    transpose(xt, spare)
    matmul(dkt, None, dw[:f], xt)
    if layer.causal:
        add_outer(dw, q, dzbar)

    # back through the inner gradient and its layer norm to k, v and the state
    inner_gradient_backward(layer, head, chunk, dg, dloss_row, dnorm, derror, spare)
    add_outer(dw, chunk.k, spare)
    transpose(xt, spare)
    matmul(dkt, dkt, w[:f], xt)
    store_gradients(tokens, layer, cell, index, chunk.present, derror, dlr_row, gradients.v, gradients.lr)
    if layer.causal:
        matmul(derror, derror, dgramt, q)
    transpose(spare, dqt)
    store_unrotated(tokens, layer, cell, index, direct, spare, gradients.q)
    transpose(spare, dkt)
    store_unrotated(tokens, layer, cell, index, derror, spare, gradients.k)
