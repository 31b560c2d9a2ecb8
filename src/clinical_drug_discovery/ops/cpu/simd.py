"""Vectors of 16 numbers for numba kernels. Arrays may store the numbers as bfloat16.

The compiler hardly vectorizes the short loops over an attention head. These explicit intrinsics
made the kernels twice as fast. LLVM maps the intrinsics to the CPU's instructions (AVX-512, AVX2,
NEON). Arithmetic is in float32 or float64. Arrays of uint16 hold bfloat16 numbers, each the upper
half of a float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import overload, register_model

from .llvm import (
    FLOATS,
    INT32,
    INT32S,
    PAIRS,
    add_pairs,
    exp_of,
    fma_of,
    larger_of,
    round_to_bfloat16,
    splat_int,
    splat_of,
    suffix,
)
from .llvm import LANES as LANES

# LLVM may reorder sums, so that it can vectorize them. Infinities keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz"}
Generator = tuple[Any, Callable[..., Any]]


def intrinsic(generator: Callable[..., Generator]) -> Any:
    """Return a numba intrinsic. Kernels call it without the first parameter of `generator`."""
    return numba_intrinsic(generator)


def _built_by(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return the code generator of an intrinsic: `operation` takes LLVM's builder and arguments."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return operation(builder, *args)

    return generate


class Vector(types.Type):
    """Numba's type of a vector of `LANES` numbers."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector({scalar})")


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = ir.FloatType() if vector.scalar == types.float32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(element, LANES))  # type: ignore[no-untyped-call]  # numba has no types


def widen(x: Any) -> Any:
    """Convert a stored number to float32 or float64. This works only inside kernels."""
    raise NotImplementedError


@overload(widen, inline="always")
def _widen(x):  # type: ignore[no-untyped-def]  # numba compares its signature with that of the result
    if isinstance(x, types.Integer):
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def narrow(x: Any, like: Any) -> Any:
    """Round x to the dtype of the array `like`, ties to even. This works only inside kernels."""
    raise NotImplementedError


@overload(narrow, inline="always")
def _narrow(x, like):  # type: ignore[no-untyped-def]  # as above
    return _narrow_float32 if like.dtype == types.uint16 else lambda x, like: x


def _narrow_float32(x, like):  # type: ignore[no-untyped-def]  # as above
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) >> np.uint32(16))


@intrinsic
def load(_: Any, array: Any, at: Any) -> Generator:
    """Load array[at : at + LANES] of a flat array; bfloat16 becomes float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(context, builder, signature.args[0], *args)

    stored_as_bfloat16 = array.dtype == types.uint16
    return Vector(types.float32 if stored_as_bfloat16 else array.dtype)(array, types.intp), generate


@intrinsic
def store(_: Any, array: Any, at: Any, vector: Any) -> Generator:
    """Store a vector to array[at : at + LANES], rounded to the array's dtype, ties to even.

    With AVX512_BF16, subnormal numbers are stored as zero.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, alignment = _address(context, builder, signature, args)
        value = args[2]
        if array.dtype == types.uint16:
            value = round_to_bfloat16(context, builder, value)
        builder.store(value, pointer, align=alignment)

    return types.void(array, types.intp, vector), generate


@intrinsic
def load_splat(_: Any, array: Any, at: Any) -> Generator:
    """Load array[at] of a flat array into all places of a vector; bfloat16 becomes float32.

    `splat(array[at])` would also test for a negative index, which costs more than the arithmetic.
    """
    stored_as_bfloat16 = array.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        number = builder.load(builder.gep(struct.data, [args[1]]))
        if stored_as_bfloat16:
            bits = builder.shl(builder.zext(number, INT32), INT32(16))
            number = builder.bitcast(bits, ir.FloatType())
        return splat_of(builder, number)

    return Vector(types.float32 if stored_as_bfloat16 else array.dtype)(array, types.intp), generate


@intrinsic
def element(_: Any, array: Any, at: Any) -> Generator:
    """Return array[at] of a flat array of integers as int64.

    `array[at]` would also test for a negative index, which slows down short loops over edges.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.sext(builder.load(builder.gep(struct.data, [args[1]])), ir.IntType(64))

    return types.int64(array, types.intp), generate


@intrinsic
def prefetch(_: Any, array: Any, at: Any) -> Generator:
    """Prefetch the cache line of array[at]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(builder.gep(struct.data, [args[1]]), byte)
        function = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        fetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(fetch, [pointer, INT32(0), INT32(3), INT32(1)])  # for reading, into all caches

    return types.void(array, types.intp), generate


@intrinsic
def splat(_: Any, x: Any) -> Generator:
    """Return a vector with one number in all places."""
    return Vector(x)(x), _built_by(splat_of)


@intrinsic
def add(_: Any, a: Any, b: Any) -> Generator:
    """Return a + b."""
    return a(a, b), _built_by(ir.IRBuilder.fadd)


@intrinsic
def mul(_: Any, a: Any, b: Any) -> Generator:
    """Return a * b."""
    return a(a, b), _built_by(ir.IRBuilder.fmul)


@intrinsic
def sub(_: Any, a: Any, b: Any) -> Generator:
    """Return a - b."""
    return a(a, b), _built_by(ir.IRBuilder.fsub)


@intrinsic
def larger(_: Any, a: Any, b: Any) -> Generator:
    """Return the larger number of a and b in each place; b if one of them is NaN."""
    return a(a, b), _built_by(larger_of)


@intrinsic
def exp(_: Any, x: Any) -> Generator:
    """Return e**x for x <= 0; NaN stays NaN."""
    return x(x), _built_by(exp_of)


@intrinsic
def fma(_: Any, a: Any, b: Any, c: Any) -> Generator:
    """Return a * b + c."""
    return a(a, b, c), _built_by(fma_of)


@intrinsic
def add_products(_: Any, a: Any, i: Any, b: Any, j: Any, sums: Any) -> Generator:
    """Add the 2 `LANES` products a[i + c] * b[j + c] to `sums`, two products to each sum.

    Which two products go to one sum is not specified. For two arrays of bfloat16, AVX512_BF16 does
    this in one instruction and takes subnormals as zero; other CPUs save work too.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, y, place, value = args
        x_kind, _, y_kind = signature.args[:3]
        if x_kind.dtype != types.uint16 or y_kind.dtype != types.uint16:
            for more in (0, LANES):
                left = _load(context, builder, x_kind, x, builder.add(at, at.type(more)))
                right = _load(context, builder, y_kind, y, builder.add(place, at.type(more)))
                value = fma_of(builder, left, right, value)
            return value
        left = builder.load(_pointer(context, builder, x_kind, x, at, PAIRS), align=2)
        right = builder.load(_pointer(context, builder, y_kind, y, place, PAIRS), align=2)
        return add_pairs(context, builder, value, left, right)

    return sums(a, i, b, j, sums), generate


@intrinsic
def add_pair_products(_: Any, a: Any, i: Any, b: Any, j: Any, sums: Any) -> Generator:
    """Return sums[c] + a[i] * b[j + 2 c] + a[i + 1] * b[j + 2 c + 1] for each c < `LANES`.

    Both arrays hold bfloat16. With AVX512_BF16 this is one instruction, see `add_products`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, y, place, value = args
        x_kind, _, y_kind = signature.args[:3]
        data = context.make_array(x_kind)(context, builder, x).data
        pointer = builder.bitcast(builder.gep(data, [at]), INT32.as_pointer())
        left = splat_of(builder, builder.load(pointer, align=2))
        right = builder.load(_pointer(context, builder, y_kind, y, place, PAIRS), align=2)
        return add_pairs(context, builder, value, left, right)

    return sums(a, i, b, j, sums), generate


@intrinsic
def store_pairs(_: Any, out: Any, at: Any, array: Any, i: Any, j: Any) -> Generator:
    """Store pairs (array[i + c], array[j + c]) for c < `LANES` to out[at : at + 2 LANES]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out, at, array, *places = args
        kind = signature.args[2]
        halves = ir.VectorType(ir.IntType(16), LANES)
        first, second = (
            builder.zext(
                builder.load(_pointer(context, builder, kind, array, place, halves), align=2),
                INT32S,
            )
            for place in places
        )
        pairs = builder.or_(first, builder.shl(second, splat_int(16)))
        pointer = _pointer(context, builder, signature.args[0], out, at, PAIRS)
        builder.store(pairs, pointer, align=2)

    return types.void(out, types.intp, array, types.intp, types.intp), generate


@intrinsic
def total(_: Any, a: Any) -> Generator:
    """Return the sum of a vector's numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.vector.reduce.fadd.v{LANES}{suffix(kind)}"
        function = ir.FunctionType(kind.element, [kind.element, kind])
        reduce = cgutils.get_or_insert_function(builder.module, function, name)
        return builder.call(reduce, [kind.element(-0.0), args[0]], fastmath=("reassoc",))

    return a.scalar(a), generate


@intrinsic
def store_totals(_: Any, array: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> Generator:
    """Store the sums of four vectors to array[at : at + 4]: half the work of four `total`s."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def halves(x: Any, y: Any, width: int) -> Any:
            """Cut x and y into groups of `width` numbers, and add the two halves of each group."""
            count = x.type.count if y is x else 2 * x.type.count
            low = [at + i for at in range(0, count, width) for i in range(width // 2)]
            high = [at + width // 2 for at in low]
            masks = (ir.Constant(ir.VectorType(INT32, len(low)), part) for part in (low, high))
            left, right = (builder.shuffle_vector(x, y, mask) for mask in masks)
            return builder.fadd(left, right)

        a, b, c, d = args[2:]
        sums = halves(halves(a, b, LANES), halves(c, d, LANES), LANES // 2)
        for width in (LANES // 4, LANES // 8):
            sums = halves(sums, sums, width)
        array_struct = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.gep(array_struct.data, [args[1]])
        alignment = signature.args[0].dtype.bitwidth // 8
        builder.store(sums, builder.bitcast(pointer, sums.type.as_pointer()), align=alignment)

    return types.void(array, types.intp, a, b, c, d), generate


def _address(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, int]:
    kind = signature.args[0]
    vector = ir.VectorType(context.get_value_type(kind.dtype), LANES)
    alignment = kind.dtype.bitwidth // 8  # that of one number, because rows may start anywhere
    return _pointer(context, builder, kind, args[0], args[1], vector), alignment


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    vector = ir.VectorType(context.get_value_type(kind.dtype), LANES)
    pointer = _pointer(context, builder, kind, array, at, vector)
    value = builder.load(pointer, align=kind.dtype.bitwidth // 8)
    if kind.dtype != types.uint16:
        return value
    bits = builder.shl(builder.zext(value, INT32S), splat_int(16))
    return builder.bitcast(bits, FLOATS)
