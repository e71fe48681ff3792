"""Small matrix products for the CPU kernel, a tile of the result held in vector registers.

LLVM does not find this tiling by itself: left to the loop vectoriser the same product runs at a third of the speed.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_WIDE = "+avx512f" in str(cpu_target.target_context.codegen().magic_tuple())
VECTOR_BYTES = 64 if _WIDE else 32
TILE = 16 if _WIDE else 8  # vectors in a tile: half of the registers or fewer
PAD = 16  # every matrix is filled up to a multiple of this in both directions


def padded(size: int) -> int:
    """Return the size that a matrix dimension takes in the kernel's memory."""
    return -(-size // PAD) * PAD


@intrinsic(prefer_literal=True)
def _tile(typing, c, a, b, i, j, depth, vectors, transposed):
    """``c[i:i+rows, j:j+columns] += a[i:i+rows, :depth] @ b[:depth, j:j+columns]``, a read as a.T if transposed."""
    if not isinstance(vectors, types.IntegerLiteral) or not isinstance(transposed, types.BooleanLiteral):
        return None

    def codegen(context, builder, signature, args):
        c, a, b = (context.make_array(t)(context, builder, x) for t, x in zip(signature.args, args[:3]))
        i, j, depth = args[3:6]
        count, size = vectors.literal_value, signature.args[0].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // size
        vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), lanes)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

        def plus(index, offset):
            return builder.add(index, ir.Constant(index.type, offset))

        def element(array, row, column):
            width = builder.extract_value(array.shape, 1)
            return builder.gep(array.data, [builder.add(builder.mul(row, width), column)])

        def vector_at(array, row, v):
            return builder.bitcast(element(array, row, plus(j, v * lanes)), vector.as_pointer())

        def broadcast(scalar):
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
            return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

        places = [[vector_at(c, plus(i, r), v) for v in range(count)] for r in range(TILE // count)]
        sums = [[cgutils.alloca_once(builder, vector) for _ in row] for row in places]
        for row, kept in zip(places, sums):
            for place, total in zip(row, kept):
                builder.store(builder.load(place, align=size), total)
        with cgutils.for_range(builder, depth) as loop:
            right = [builder.load(vector_at(b, loop.index, v), align=size) for v in range(count)]
            for r, kept in enumerate(sums):
                row = plus(i, r)
                left = broadcast(builder.load(element(a, *((loop.index, row) if is_t else (row, loop.index)))))
                for total, x in zip(kept, right):
                    product = builder.fmul(left, x, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for row, kept in zip(places, sums):
            for place, total in zip(row, kept):
                builder.store(builder.load(total), place, align=size)
        return context.get_dummy_value()

    is_t = transposed.literal_value
    return types.void(c, a, b, types.intp, types.intp, types.intp, vectors, transposed), codegen


@njit(_nrt=False)
def matmul(c, a, b):
    """``c += a @ b``; C-contiguous, dimensions multiples of `PAD`."""
    rows, columns = c.shape
    depth, lanes, j = a.shape[1], VECTOR_BYTES // c.itemsize, 0
    while columns - j >= 4 * lanes:
        for i in range(0, rows, TILE // 4):
            _tile(c, a, b, i, j, depth, 4, False)
        j += 4 * lanes
    while columns - j >= 2 * lanes:
        for i in range(0, rows, TILE // 2):
            _tile(c, a, b, i, j, depth, 2, False)
        j += 2 * lanes
    while columns - j >= lanes:
        for i in range(0, rows, TILE):
            _tile(c, a, b, i, j, depth, 1, False)
        j += lanes


@njit(_nrt=False)
def matmul_t(c, a, b):
    """``c += a.T @ b``; C-contiguous, dimensions multiples of `PAD`."""
    rows, columns = c.shape
    depth, lanes, j = a.shape[0], VECTOR_BYTES // c.itemsize, 0
    while columns - j >= 4 * lanes:
        for i in range(0, rows, TILE // 4):
            _tile(c, a, b, i, j, depth, 4, True)
        j += 4 * lanes
    while columns - j >= 2 * lanes:
        for i in range(0, rows, TILE // 2):
            _tile(c, a, b, i, j, depth, 2, True)
        j += 2 * lanes
    while columns - j >= lanes:
        for i in range(0, rows, TILE):
            _tile(c, a, b, i, j, depth, 1, True)
        j += lanes


@njit(_nrt=False)
def transpose(c, a):
    """``c[:] = a.T``."""
    for j in range(a.shape[1]):
        for i in range(a.shape[0]):
            c[j, i] = a[i, j]
