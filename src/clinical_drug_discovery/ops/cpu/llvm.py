"""LLVM code for `simd`: vectors of `LANES` numbers, and pairs of bfloat16.

A pair of bfloat16 numbers is a 32-bit integer. The first number is in the lower half.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ..backend import LANES as LANES

INT32 = ir.IntType(32)
INT32S = ir.VectorType(INT32, LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
PAIRS = INT32S  #: `LANES` pairs of bfloat16


class _BFloat16(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """LLVM's bfloat type, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


def fma_of(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""
    name = f"llvm.fma.v{LANES}{suffix(a.type)}"
    function = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [a, b, c])


def splat_of(builder: Any, number: Any) -> Any:
    """Return a vector with one number in all places."""
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first, undefined, splat_int(0))


def splat_int(value: int) -> Any:
    """Return a constant vector with one integer in all places."""
    return ir.Constant(INT32S, [value] * LANES)


def suffix(vector: Any) -> str:
    """Return the suffix of LLVM's function names for the type of a vector."""
    return "f32" if isinstance(vector.element, ir.FloatType) else "f64"


def lower(builder: Any, pairs: Any) -> Any:
    """Return the first number of each pair, as float32."""
    return builder.bitcast(builder.shl(pairs, splat_int(16)), FLOATS)


def upper(builder: Any, pairs: Any) -> Any:
    """Return the second number of each pair, as float32."""
    return builder.bitcast(builder.and_(pairs, splat_int(0xFFFF0000)), FLOATS)


def round_to_bfloat16(context: Any, builder: Any, numbers: Any) -> Any:
    """Round a vector's numbers to bfloat16, ties to even."""
    halves = ir.VectorType(ir.IntType(16), LANES)
    if _has_bfloat16_products(context):
        function = ir.FunctionType(ir.VectorType(_BFloat16(), LANES), [FLOATS])
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        convert = cgutils.get_or_insert_function(builder.module, function, name)
        return builder.bitcast(builder.call(convert, [numbers]), halves)
    bits = builder.bitcast(numbers, INT32S)
    odd = builder.and_(builder.lshr(bits, splat_int(16)), splat_int(1))
    rounded = builder.add(builder.add(bits, splat_int(0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, splat_int(16)), halves)


def add_pairs(context: Any, builder: Any, sums: Any, a: Any, b: Any) -> Any:
    """Return sums[c] + a[2 c] * b[2 c] + a[2 c + 1] * b[2 c + 1] for each c < `LANES`."""
    if not _has_bfloat16_products(context):
        sums = fma_of(builder, lower(builder, a), lower(builder, b), sums)
        return fma_of(builder, upper(builder, a), upper(builder, b), sums)
    kind = ir.VectorType(_BFloat16(), 2 * LANES)
    function = ir.FunctionType(FLOATS, [FLOATS, kind, kind])
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    dot = cgutils.get_or_insert_function(builder.module, function, name)
    return builder.call(dot, [sums, builder.bitcast(a, kind), builder.bitcast(b, kind)])


def _has_bfloat16_products(context: Any) -> bool:
    """Return whether the target CPU has AVX512_BF16. Numba's cache depends on CPU features."""
    return "+avx512bf16" in context.codegen().magic_tuple()[2]
