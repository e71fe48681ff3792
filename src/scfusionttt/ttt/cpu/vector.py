"""Vectors as values in compiled code, one register each: ``load``, ``store``, ``+``, ``-``, ``*`` and a few more.

LLVM's own loop vectoriser gains nothing on rows of 32 or 64 channels: its checks and remainders cost more than the
work. In arithmetic with a vector, a scalar is broadcast.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import register_model

from scfusionttt.loops.compile import compiled

WIDE = "+avx512f" in str(cpu_target.target_context.codegen().magic_tuple())
VECTOR_BYTES = 64 if WIDE else 32
PAD = 16  # every matrix is filled up to a multiple of this in both directions

intrinsic: Any = numba_intrinsic  # it takes away the argument `typing`, which type checkers cannot see
_FUSED = ["contract"]


def padded(size: int) -> int:
    """Return the size that a matrix dimension takes in the kernel's memory."""
    return -(-size // PAD) * PAD


class Vector(types.Type):
    """The numba type of a SIMD vector: as many numbers as fit into a register."""

    def __init__(self, dtype: types.Float) -> None:
        super().__init__(name=f"Vector({dtype})")
        self.dtype = dtype
        element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.ir = ir.VectorType(element, VECTOR_BYTES * 8 // dtype.bitwidth)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.ir)


def _arithmetic(operation: Callable, instruction: str) -> None:
    @infer_global(operation)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            kinds = [arg for arg in args if isinstance(arg, Vector)]
            if len(args) == 2 and kinds and all(isinstance(arg, (Vector, types.Float)) for arg in args):
                return signature(kinds[0], *args)
            return None

    def lower(context, builder, signature, args):
        kind = signature.return_type
        x, y = (
            x if isinstance(given, Vector) else broadcast(builder, context.cast(builder, x, given, kind.dtype), kind.ir)
            for x, given in zip(args, signature.args)
        )
        return getattr(builder, instruction)(x, y, flags=_FUSED)

    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(operation, *kinds)(lower)


for _operation, _instruction in {
    operator.add: "fadd",
    operator.iadd: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
}.items():
    _arithmetic(_operation, _instruction)


@intrinsic
def zeros(typing, matrix):
    """Return a vector of zeros of the matrix's type."""

    def codegen(context, builder, signature, args):
        return ir.Constant(signature.return_type.ir, None)

    return Vector(matrix.dtype)(matrix), codegen


@intrinsic
def lanes(typing, matrix):
    """Return the numbers per vector, for the type of a matrix: a compile-time constant, unlike its `itemsize`."""

    def codegen(context, builder, signature, args):
        return context.get_constant(types.intp, Vector(matrix.dtype).ir.count)

    return types.intp(matrix), codegen


@intrinsic
def load(typing, matrix, i, j):
    """Return the vector in row i that begins in column j."""

    def codegen(context, builder, signature, args):
        _, i, j = args
        return load_ir(builder, array(context, builder, signature, args, 0), i, j, signature.return_type.ir)

    return Vector(matrix.dtype)(matrix, types.intp, types.intp), codegen


@intrinsic
def store(typing, matrix, i, j, vector):
    """Write a vector to row i, from column j on."""

    def codegen(context, builder, signature, args):
        store_ir(builder, args[3], array(context, builder, signature, args, 0), *args[1:3])
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, vector), codegen


@intrinsic
def load_masked(typing, x, at, count):
    """Return the vector that begins at x[at]; only its first `count` numbers are read, and the others are 0."""

    def codegen(context, builder, signature, args):
        kind = signature.return_type.ir
        place, mask = _masked(context, builder, signature, args, kind)
        given = [place, _align(kind), mask, ir.Constant(kind, None)]
        return _call(builder, f"llvm.masked.load.{_name(kind)}.p0", kind, given)

    return Vector(x.dtype)(x, types.intp, types.intp), codegen


@intrinsic
def store_masked(typing, x, at, count, vector):
    """Write the first `count` numbers of a vector to x, from x[at] on."""

    def codegen(context, builder, signature, args):
        kind = signature.args[3].ir
        place, mask = _masked(context, builder, signature, args, kind)
        _call(builder, f"llvm.masked.store.{_name(kind)}.p0", ir.VoidType(), [args[3], place, _align(kind), mask])
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, vector), codegen


@intrinsic
def store_nontemporal(typing, x, at, vector):
    """Write a vector to x[at], aligned to its size, bypassing the cache (non-temporal store); see `fence`."""

    def codegen(context, builder, signature, args):
        x, kind = array(context, builder, signature, args, 0), signature.args[2].ir
        place = builder.bitcast(builder.gep(x.data, [args[1]]), kind.as_pointer())
        stored = builder.store(args[2], place, align=VECTOR_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(x, types.intp, vector), codegen


@intrinsic
def fence(typing):
    """Make non-temporal stores visible to other threads before any later memory access."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def reduce_sum(typing, vector):
    """Return the sum of a vector's numbers."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0].ir
        given = [ir.Constant(kind.element, 0.0), args[0]]
        return _call(builder, f"llvm.vector.reduce.fadd.{_name(kind)}", kind.element, given, fastmath=["reassoc"])

    return vector.dtype(vector), codegen


@intrinsic
def swap_pairs(typing, vector):
    """Return a vector with the two numbers of each adjacent pair swapped."""

    def codegen(context, builder, signature, args):
        count = signature.args[0].ir.count
        swap = ir.Constant(ir.VectorType(ir.IntType(32), count), [n ^ 1 for n in range(count)])
        return builder.shuffle_vector(args[0], args[0], swap)

    return vector(vector), codegen


@intrinsic(prefer_literal=True)
def _prefetch(typing, x, at, writing):
    if not isinstance(writing, types.BooleanLiteral):
        return None

    def codegen(context, builder, signature, args):
        x = array(context, builder, signature, args, 0)
        word = ir.IntType(32)
        place = builder.bitcast(builder.gep(x.data, [args[1]]), ir.IntType(8).as_pointer())
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, word(int(writing.literal_value)), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(x, types.intp, writing), codegen


def _prefetcher(writing: bool) -> Any:
    @compiled
    def prefetch(x, at, step, rows, size):
        for _ in range(rows):
            for j in range(0, size, 64 // VECTOR_BYTES * lanes(x)):
                _prefetch(x, at + j, writing)
            at += step

    return prefetch


# Prefetch rows to read, or to write: the tokens of a head lie too far apart for the hardware prefetcher.
prefetch, prefetch_to_write = _prefetcher(False), _prefetcher(True)


def array(context, builder, signature, args, which):
    """Return an argument that is an array."""
    return context.make_array(signature.args[which])(context, builder, args[which])


def broadcast(builder, scalar, vector):
    """Return the IR of a vector of equal numbers."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


def pointer_to(builder, matrix, row, column):
    """Return the IR of a pointer to an element of a matrix; a vector stands for a matrix of equal rows."""
    if len(matrix.shape.type) == 1:
        return builder.gep(matrix.data, [column])
    width = builder.extract_value(matrix.shape, 1)
    return builder.gep(matrix.data, [builder.add(builder.mul(row, width), column)])


def load_ir(builder, matrix, row, column, vector):
    """Return the IR of a vector read from a matrix."""
    place = builder.bitcast(pointer_to(builder, matrix, row, column), vector.as_pointer())
    return builder.load(place, align=VECTOR_BYTES // vector.count)


def store_ir(builder, value, matrix, row, column):
    """Write the IR that puts a vector into a matrix."""
    place = builder.bitcast(pointer_to(builder, matrix, row, column), value.type.as_pointer())
    builder.store(value, place, align=VECTOR_BYTES // value.type.count)


def _masked(context, builder, signature, args, kind):
    """Return where a vector begins in x, and which of its numbers are among the `count` that exist."""
    x, words = array(context, builder, signature, args, 0), ir.VectorType(ir.IntType(32), kind.count)
    place = builder.bitcast(builder.gep(x.data, [args[1]]), kind.as_pointer())
    ranks, count = ir.Constant(words, list(range(kind.count))), builder.trunc(args[2], words.element)
    return place, builder.icmp_signed("<", ranks, broadcast(builder, count, words))


def _align(kind):
    return ir.IntType(32)(VECTOR_BYTES // kind.count)


def _name(kind):
    return f"v{kind.count}f{VECTOR_BYTES * 8 // kind.count}"


def _call(builder, name, result, args, **options):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [x.type for x in args]), name)
    return builder.call(function, args, **options)
