"""CPU kernels of layer normalization, in one pass with the operations before and after it.

torch takes eight passes over a chunk of rows for the same, and in most of them a new buffer: 8 to
17 times as long. One thread computes a row, so results depend neither on the number of threads nor
on the chunks. The order in which a sum takes the vectors of a row is explicit: a compiler that may
reorder sums (`simd.FAST`) made another choice for a kernel from the cache than for one that was
just compiled.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .kernel import kernel
from .simd import LANES, add, fma, load, narrow, splat, total, widen


def normalize(
    product: Tensor, bias: Tensor, eps: float, out: Tensor, result: Tensor, before: Tensor | None
) -> None:
    """Do the same as `reference.normalize`."""
    _normalize(
        numbers(product), bias.detach().numpy(), eps, before is not None, out.numpy(),
        result.numpy(), (result if before is None else before.detach()).numpy(),
    )  # fmt: skip


def normalize_backward(
    grad: Tensor, x: Tensor, eps: float, relu: bool, scale: Tensor, packed: Tensor
) -> None:
    """Do the same as `reference.normalize_backward`."""
    # Whole vectors are read from rows without gaps. The gradient of a sum, for one, has none.
    _normalize_backward(
        grad.contiguous().numpy(), x.numpy(), eps, relu, scale.numpy(), numbers(packed)
    )


def numbers(rows: Tensor) -> npt.NDArray[np.generic]:
    """Return rows as a numpy array. Bfloat16, which numpy lacks, becomes uint16 (its bits)."""
    return (rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows).numpy()


@kernel(parallel=True, nogil=True)
def _normalize(product, bias, eps, is_hidden, out, result, before):  # type: ignore[no-untyped-def]  # numba infers its types
    """Compute rows of `out` and `result`; only hidden layers have a sum in `out` and a `before`."""
    num_columns, number = out.shape[1], out.dtype.type
    share = number(1) / number(num_columns)
    for row in numba.prange(len(out)):
        for c in range(num_columns):
            x = widen(product[row, c]) + bias[c]
            if is_hidden:
                x += out[row, c]
                x = number(0) if x < 0 else x  # in this order, NaN stays NaN
            out[row, c] = x
        mean = row_sum(out, row) * share
        scale = number(1) / np.sqrt(row_products(out, out, row, mean, mean) * share + number(eps))
        for c in range(num_columns):
            x = (out[row, c] - mean) * scale
            result[row, c] = before[row, c] + x if is_hidden else x


@kernel(parallel=True, nogil=True)
def _normalize_backward(grad, x, eps, relu, scale, packed):  # type: ignore[no-untyped-def]  # numba infers its types
    """Compute rows of `x` and `packed`."""
    num_columns, number = x.shape[1], x.dtype.type
    share = number(1) / number(num_columns)
    for row in numba.prange(len(x)):
        mean, grad_mean = row_sum(x, row) * share, row_sum(grad, row) * share
        inverse = number(1) / np.sqrt(row_products(x, x, row, mean, mean) * share + number(eps))
        along = row_products(x, grad, row, mean, number(0)) * share * inverse * inverse
        for c in range(num_columns):
            value = x[row, c]
            by_x = (grad[row, c] - grad_mean - (value - mean) * along) * inverse
            if relu:
                by_x = number(0) if value <= 0 else by_x  # in this order, NaN stays NaN
            x[row, c] = by_x
            packed[row, c] = narrow(by_x * scale[row], packed)


@numba.njit(inline="always")
def row_sum(rows, row):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the sum of a row's numbers."""
    num_columns = rows.shape[1]
    whole, at = num_columns // LANES * LANES, row * num_columns
    sums = splat(rows.dtype.type(0))
    for c in range(0, whole, LANES):
        sums = add(sums, load(rows, at + c))
    result = total(sums)
    for c in range(whole, num_columns):
        result += rows[row, c]
    return result


@numba.njit(inline="always")
def row_products(a, b, row, from_a, from_b):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the sum of (a - from_a) * (b - from_b) over the columns of a row."""
    num_columns = a.shape[1]
    whole, at = num_columns // LANES * LANES, row * num_columns
    sums, shift_a, shift_b = splat(a.dtype.type(0)), splat(-from_a), splat(-from_b)
    for c in range(0, whole, LANES):
        sums = fma(add(load(a, at + c), shift_a), add(load(b, at + c), shift_b), sums)
    result = total(sums)
    for c in range(whole, num_columns):
        result += (a[row, c] - from_a) * (b[row, c] - from_b)
    return result
