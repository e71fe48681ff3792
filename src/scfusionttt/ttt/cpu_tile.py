"""Small matrix products for the CPU kernel, a tile of the result held in vector registers.

LLVM does not find this tiling by itself: left to the loop vectoriser the same product runs at a third of the speed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic as numba_intrinsic

_WIDE = "+avx512f" in str(cpu_target.target_context.codegen().magic_tuple())
VECTOR_BYTES = 64 if _WIDE else 32
TILE = 16 if _WIDE else 8  # vectors in a tile: half of the registers or fewer
PAD = 16  # every matrix is filled up to a multiple of this in both directions

# NaN and inf keep their meaning; no reference counts: they took half the time, and nothing here allocates memory.
_njit: Any = partial(njit, fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True, _nrt=False)
compiled: Any = partial(_njit, no_cpython_wrapper=True, no_cfunc_wrapper=True)
intrinsic: Any = numba_intrinsic  # it takes away the argument `typing`, which type checkers cannot see


def entry(function: Callable) -> Any:
    """Compile a function that Python calls, and keep the result on disk where a place for it can be found."""
    try:
        kernel = _njit(function, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return _njit(function)
    sources = sorted(Path(__file__).parent.glob("cpu_*.py"))
    stamp = [(source.stat().st_mtime, source.stat().st_size) for source in sources]
    kernel._cache._cache_file._source_stamp = stamp  # Numba itself would look at the function's own file only
    return kernel


def padded(size: int) -> int:
    """Return the size that a matrix dimension takes in the kernel's memory."""
    return -(-size // PAD) * PAD


@intrinsic(prefer_literal=True)
def _tile(typing, c, base, a, b, i, j, depth, vectors, transposed):
    """One tile of ``c = base + a @ b``, from row i and column j on; a is read as a.T if transposed."""
    if not isinstance(vectors, types.IntegerLiteral) or not isinstance(transposed, types.BooleanLiteral):
        return None

    def codegen(context, builder, signature, args):
        c, base, a, b, vector = _operands(context, builder, signature, args, (0, 1, 2, 3))
        i, j, depth = args[4:7]
        count, zeros = vectors.literal_value, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        rows = [_plus(builder, i, r) for r in range(TILE // count)]
        columns = [_plus(builder, j, v * vector.count) for v in range(count)]

        sums = [[cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in columns] for _ in rows]
        with cgutils.for_range(builder, depth) as loop:
            right = [_load(builder, b, loop.index, v, vector) for v in columns]
            for r, kept in zip(rows, sums):
                where = (loop.index, r) if transposed.literal_value else (r, loop.index)
                scalar = builder.load(_element(builder, a, *where))
                left = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
                left = builder.shuffle_vector(left, left, zeros)
                for total, x in zip(kept, right):
                    product = builder.fmul(left, x, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for r, kept in zip(rows, sums):
            for v, total in zip(columns, kept):
                # the product is added at once: adding term by term would round at the size of c each time
                _store(builder, builder.fadd(_load(builder, base, r, v, vector), builder.load(total)), c, r, v, vector)
        return context.get_dummy_value()

    return types.void(c, base, a, b, types.intp, types.intp, types.intp, vectors, transposed), codegen


@compiled
def matmul(c, a, b):
    """``c += a @ b``; C-contiguous, dimensions multiples of `PAD`."""
    rows, columns = c.shape
    depth, lanes, j = a.shape[1], VECTOR_BYTES // c.itemsize, 0
    while columns - j >= 4 * lanes:
        for i in range(0, rows, TILE // 4):
            _tile(c, c, a, b, i, j, depth, 4, False)
        j += 4 * lanes
    while columns - j >= 2 * lanes:
        for i in range(0, rows, TILE // 2):
            _tile(c, c, a, b, i, j, depth, 2, False)
        j += 2 * lanes
    while columns - j >= lanes:
        for i in range(0, rows, TILE):
            _tile(c, c, a, b, i, j, depth, 1, False)
        j += lanes


@compiled
def matmul_t(c, base, a, b):
    """``c = base + a.T @ b``; C-contiguous, dimensions multiples of `PAD`."""
    rows, columns = c.shape
    depth, lanes, j = a.shape[0], VECTOR_BYTES // c.itemsize, 0
    while columns - j >= 4 * lanes:
        for i in range(0, rows, TILE // 4):
            _tile(c, base, a, b, i, j, depth, 4, True)
        j += 4 * lanes
    while columns - j >= 2 * lanes:
        for i in range(0, rows, TILE // 2):
            _tile(c, base, a, b, i, j, depth, 2, True)
        j += 2 * lanes
    while columns - j >= lanes:
        for i in range(0, rows, TILE):
            _tile(c, base, a, b, i, j, depth, 1, True)
        j += lanes


@intrinsic
def _transpose_block(typing, c, a, i, j):
    """``c[j:j+lanes, i:i+lanes] = a[i:i+lanes, j:j+lanes].T``, by log2(lanes) rounds of a perfect shuffle."""

    def codegen(context, builder, signature, args):
        c, a, vector = _operands(context, builder, signature, args, (0, 1))
        lanes = vector.count
        halves = [[n // 2 + lanes * (n % 2) + start for n in range(lanes)] for start in (0, lanes // 2)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), half) for half in halves]
        rows = [_load(builder, a, _plus(builder, args[2], r), args[3], vector) for r in range(lanes)]
        for _ in range(lanes.bit_length() - 1):
            pairs = list(zip(rows[: lanes // 2], rows[lanes // 2 :]))
            rows = [builder.shuffle_vector(x, y, mask) for x, y in pairs for mask in masks]
        for r, row in enumerate(rows):
            _store(builder, row, c, _plus(builder, args[3], r), args[2], vector)
        return context.get_dummy_value()

    return types.void(c, a, types.intp, types.intp), codegen


@compiled
def transpose(c, a):
    """``c = a.T``; C-contiguous, dimensions multiples of `PAD`."""
    lanes = VECTOR_BYTES // c.itemsize
    for i in range(0, a.shape[0], lanes):
        for j in range(0, a.shape[1], lanes):
            _transpose_block(c, a, i, j)


@intrinsic
def _rotate_block(typing, cos, sin, i, j, x, x_at, y, y_at):
    """Rotate the pairs in one vector, row i and column j of the tables, from x_at in x to y_at in y."""

    def codegen(context, builder, signature, args):
        cos, sin, x, y, vector = _operands(context, builder, signature, args, (0, 1, 4, 6))
        _, _, i, j, _, x_at, _, y_at = args
        swap = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [n ^ 1 for n in range(vector.count)])
        value = _load(builder, x, None, x_at, vector)
        turned = builder.fmul(builder.shuffle_vector(value, value, swap), _load(builder, sin, i, j, vector))
        value = builder.fmul(value, _load(builder, cos, i, j, vector), flags=["contract"])
        _store(builder, builder.fadd(value, turned, flags=["contract"]), y, None, y_at, vector)
        return context.get_dummy_value()

    return types.void(cos, sin, types.intp, types.intp, x, types.intp, y, types.intp), codegen


@compiled
def rotate(cos, sin, rows, x, x_at, x_step, y, y_at, y_step):
    """Rotate the pairs of some rows of x, the first at x_at, into rows of y; tables [n, f] as in `Layer`."""
    f, lanes = cos.shape[1], VECTOR_BYTES // x.itemsize
    whole = f - f % lanes
    for i in range(rows):
        for j in range(0, whole, lanes):
            _rotate_block(cos, sin, i, j, x, x_at + j, y, y_at + j)
        for j in range(whole, f, 2):
            even, odd = x[x_at + j], x[x_at + j + 1]
            y[y_at + j] = even * cos[i, j] + odd * sin[i, j]
            y[y_at + j + 1] = odd * cos[i, j + 1] + even * sin[i, j + 1]
        x_at, y_at = x_at + x_step, y_at + y_step


@intrinsic
def _prefetch(typing, x, at):
    def codegen(context, builder, signature, args):
        x, _ = _operands(context, builder, signature, args, (0,))
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        place = builder.bitcast(builder.gep(x.data, [args[1]]), byte)
        builder.call(hint, [place, word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@compiled
def prefetch(x, at, step, rows, size):
    """Ask for rows that are soon to be read: a head's tokens lie too far apart for the hardware to guess."""
    line = 64 // x.itemsize
    for _ in range(rows):
        for j in range(0, size, line):
            _prefetch(x, at + j)
        at += step


def _operands(context, builder, signature, args, which):
    """Return the arrays among the arguments, and the type of a vector of their elements."""
    arrays = [context.make_array(signature.args[i])(context, builder, args[i]) for i in which]
    dtype = signature.args[0].dtype
    return *arrays, ir.VectorType(context.get_data_type(dtype), VECTOR_BYTES * 8 // dtype.bitwidth)


def _plus(builder, index, offset):
    return builder.add(index, ir.Constant(index.type, offset))


def _element(builder, array, row, column):
    if row is None:
        return builder.gep(array.data, [column])
    width = builder.extract_value(array.shape, 1)
    return builder.gep(array.data, [builder.add(builder.mul(row, width), column)])


def _load(builder, array, row, column, vector):
    place = builder.bitcast(_element(builder, array, row, column), vector.as_pointer())
    return builder.load(place, align=VECTOR_BYTES // vector.count)


def _store(builder, value, array, row, column, vector):
    place = builder.bitcast(_element(builder, array, row, column), vector.as_pointer())
    builder.store(value, place, align=VECTOR_BYTES // vector.count)
