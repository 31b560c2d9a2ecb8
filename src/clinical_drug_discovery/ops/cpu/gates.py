"""CPU kernels of the end of an HGT layer: a gate and layer normalization, in one pass.

torch takes seven passes over a chunk of rows for the same. See `norms` for the order of the sums.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .kernel import kernel
from .norms import numbers, row_products, row_sum
from .simd import narrow, widen


def mix_and_normalize(
    product: Tensor, bias: Tensor, gate: Tensor, own: Tensor, eps: float, out: Tensor, scale: Tensor
) -> None:
    """Do the same as `reference.mix_and_normalize`."""
    _mix_and_normalize(
        numbers(product), bias.detach().numpy(), float(gate), own.detach().numpy(), eps,
        out.numpy(), scale.numpy(),
    )  # fmt: skip


def mix_and_normalize_backward(
    grad: Tensor, out: Tensor, scale: Tensor, own: Tensor, gate: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same as `reference.mix_and_normalize_backward`."""
    grad, by_sum = grad.contiguous(), torch.empty_like(out, memory_format=torch.contiguous_format)
    packed, by_gate = torch.empty_like(by_sum, dtype=dtype), out.new_empty(len(out))
    _mix_and_normalize_backward(
        grad.numpy(), out.numpy(), scale.numpy(), own.detach().numpy(), float(gate),
        by_sum.numpy(), numbers(packed), by_gate.numpy(),
    )  # fmt: skip
    return by_sum, packed, by_gate


@kernel(parallel=True, nogil=True)
def _mix_and_normalize(product, bias, gate, own, eps, out, scale):  # type: ignore[no-untyped-def]  # numba infers its types
    """Compute rows of `out` and `scale`."""
    num_columns, number = out.shape[1], out.dtype.type
    share, part = number(1) / number(num_columns), number(gate)
    for row in numba.prange(len(out)):
        for c in range(num_columns):
            x = own[row, c]
            out[row, c] = x + part * (widen(product[row, c]) + bias[c] - x)
        mean = row_sum(out, row) * share
        inverse = number(1) / np.sqrt(row_products(out, out, row, mean, mean) * share + number(eps))
        for c in range(num_columns):
            out[row, c] = (out[row, c] - mean) * inverse
        scale[row, 0] = inverse


@kernel(parallel=True, nogil=True)
def _mix_and_normalize_backward(grad, out, scale, own, gate, by_sum, packed, by_gate):  # type: ignore[no-untyped-def]  # numba infers its types
    """Compute rows of `by_sum`, `packed` and `by_gate`; see the reference for the formula."""
    num_columns, number = out.shape[1], out.dtype.type
    share, part, zero = number(1) / number(num_columns), number(gate), number(0)
    for row in numba.prange(len(out)):
        inverse = scale[row, 0]
        grad_mean = row_sum(grad, row) * share
        along = row_products(grad, out, row, zero, zero) * share
        for c in range(num_columns):
            x = (grad[row, c] - grad_mean - out[row, c] * along) * inverse
            by_sum[row, c] = x
            packed[row, c] = narrow(x * part, packed)
        by_mixed = row_products(by_sum, out, row, zero, zero) / inverse
        by_gate[row] = by_mixed - row_products(by_sum, own, row, zero, zero)
