"""Small matrix products for the CPU kernel, a tile of the result held in vector registers.

LLVM does not find this tiling by itself: left to the loop vectoriser the same product runs at a third of the speed.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from scfusionttt.loops.compile import compiled
from scfusionttt.ttt.cpu.vector import (
    WIDE,
    Vector,
    array,
    broadcast,
    intrinsic,
    lanes,
    load_ir,
    pointer_to,
    store_ir,
)

TILE = 16 if WIDE else 8  # vectors in a tile: half of the registers or fewer


@intrinsic(prefer_literal=True)
def _tile(typing, c, base, a, b, i, j, depth, vectors, transposed):
    """One tile of ``c = base + a @ b``, from row i and column j on; a is read as a.T if transposed."""
    if not isinstance(vectors, types.IntegerLiteral) or not isinstance(transposed, types.BooleanLiteral):
        return None

    def codegen(context, builder, signature, args):
        c, a, b = (array(context, builder, signature, args, which) for which in (0, 2, 3))
        i, j, depth = args[4:7]
        count, vector = vectors.literal_value, Vector(signature.args[0].dtype).ir
        rows = [_plus(builder, i, r) for r in range(TILE // count)]
        columns = [_plus(builder, j, v * vector.count) for v in range(count)]

        sums = [[cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in columns] for _ in rows]
        with cgutils.for_range(builder, depth) as loop:
            right = [load_ir(builder, b, loop.index, v, vector) for v in columns]
            for r, kept in zip(rows, sums):
                where = (loop.index, r) if transposed.literal_value else (r, loop.index)
                left = broadcast(builder, builder.load(pointer_to(builder, a, *where)), vector)
                for total, x in zip(kept, right):
                    product = builder.fmul(left, x, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for r, kept in zip(rows, sums):
            for v, total in zip(columns, kept):
                result = builder.load(total)
                if base is not types.none:
                    # added at the end: adding term by term would round at the size of c each time
                    given = load_ir(builder, array(context, builder, signature, args, 1), r, v, vector)
                    result = builder.fadd(given, result)
                store_ir(builder, result, c, r, v)
        return context.get_dummy_value()

    return types.void(c, base, a, b, types.intp, types.intp, types.intp, vectors, transposed), codegen


def _product(transposed: bool) -> Any:
    @compiled
    def product(c, base, a, b):
        rows, columns = c.shape
        depth, width, j = b.shape[0], lanes(c), 0
        while columns - j >= 4 * width:
            for i in range(0, rows, TILE // 4):
                _tile(c, base, a, b, i, j, depth, 4, transposed)
            j += 4 * width
        while columns - j >= 2 * width:
            for i in range(0, rows, TILE // 2):
                _tile(c, base, a, b, i, j, depth, 2, transposed)
            j += 2 * width
        while columns - j >= width:
            for i in range(0, rows, TILE):
                _tile(c, base, a, b, i, j, depth, 1, transposed)
            j += width

    return product


# ``c = base + a @ b`` and ``c = base + a.T @ b``; base is a matrix, a row for all rows, or None. All are C-contiguous
# and their dimensions multiples of `PAD`.
matmul, matmul_t = _product(False), _product(True)


@intrinsic
def _transpose_block(typing, c, a, i, j):
    """``c[j:j+width, i:i+width] = a[i:i+width, j:j+width].T``, by log2(width) rounds of a perfect shuffle."""

    def codegen(context, builder, signature, args):
        c, a = (array(context, builder, signature, args, which) for which in range(2))
        vector = Vector(signature.args[0].dtype).ir
        width = vector.count
        halves = [[n // 2 + width * (n % 2) + start for n in range(width)] for start in (0, width // 2)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), width), half) for half in halves]
        rows = [load_ir(builder, a, _plus(builder, args[2], r), args[3], vector) for r in range(width)]
        for _ in range(width.bit_length() - 1):
            pairs = list(zip(rows[: width // 2], rows[width // 2 :]))
            rows = [builder.shuffle_vector(x, y, mask) for x, y in pairs for mask in masks]
        for r, row in enumerate(rows):
            store_ir(builder, row, c, _plus(builder, args[3], r), args[2])
        return context.get_dummy_value()

    return types.void(c, a, types.intp, types.intp), codegen


@compiled
def transpose(c, a):
    """``c = a.T``; C-contiguous, dimensions multiples of `PAD`."""
    width = lanes(c)
    for i in range(0, a.shape[0], width):
        for j in range(0, a.shape[1], width):
            _transpose_block(c, a, i, j)


def _plus(builder, index, offset):
    return builder.add(index, ir.Constant(index.type, offset))
