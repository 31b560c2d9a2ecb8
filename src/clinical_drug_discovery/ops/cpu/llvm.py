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
# Cephes' expf: the coefficients of f**7 to f**2 in e**f - 1 - f.
_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
)  # fmt: skip


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


def larger_of(builder: Any, a: Any, b: Any) -> Any:
    """Return the larger number of a and b in each place; b if one of them is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def exp_of(builder: Any, x: Any) -> Any:
    """Return e**x for x <= 0.

    In float32, this is 2**n times a polynomial in x - n ln 2, as in Cephes' expf. The error is at
    most 2 units in the last place for x >= -87; smaller x count as -87. NaN stays NaN.
    """
    if x.type != FLOATS:
        return _unary(builder, "exp", x)

    def number(value: float) -> Any:
        return ir.Constant(FLOATS, [value] * LANES)

    low = number(-87.0)
    # For NaN, `larger_of` returns its second argument: n is finite, and f is NaN.
    above, x = larger_of(builder, x, low), larger_of(builder, low, x)
    n = _unary(builder, "floor", fma_of(builder, above, number(1.44269504), number(0.5)))
    f = fma_of(builder, n, number(-0.693359375), x)
    f = fma_of(builder, n, number(2.12194440e-4), f)
    p = number(_EXP[0])
    for value in _EXP[1:]:
        p = fma_of(builder, p, f, number(value))
    p = builder.fadd(fma_of(builder, builder.fmul(p, f), f, f), number(1.0))
    exponent = builder.add(builder.fptosi(n, INT32S), splat_int(127))
    return builder.fmul(p, builder.bitcast(builder.shl(exponent, splat_int(23)), FLOATS))


def _unary(builder: Any, name: str, x: Any) -> Any:
    """Call the intrinsic of LLVM with this name, for each number of a vector."""
    function = ir.FunctionType(x.type, [x.type])
    name = f"llvm.{name}.v{LANES}{suffix(x.type)}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [x])


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
