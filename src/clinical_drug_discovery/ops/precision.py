"""In which precision rows are stored and multiplied. Sums are always made in that of the model.

On a CPU a float32 model stores the rows that edges gather as bfloat16, which halves what has to be
read, and multiplies dense matrices in bfloat16 where the CPU has instructions for it (AVX512_BF16
or AMX), which doubles their speed; both add up in float32. On CUDA both are done where it is asked
for (`backend.in_bfloat16`). Elsewhere, and in float64, everything is in the model's own precision.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.graph.chunks import FEW_ROWS
from clinical_drug_discovery.ops.backend import chunks_of, uses_bfloat16, uses_kernels, windows
from clinical_drug_discovery.ops.buffers import empty
from clinical_drug_discovery.ops.cpu.simd import LANES


def storage_dtype(x: Tensor) -> torch.dtype:
    """In what the rows of x are stored for gathering."""
    return _stored(x.device, x.dtype)


def stored_bytes(device: torch.device) -> int:
    """How many bytes a number of a float32 model takes where it is stored for gathering."""
    return _stored(device, torch.float32).itemsize


def _stored(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    halved = uses_kernels(device) or uses_bfloat16(device)
    return torch.bfloat16 if halved and dtype == torch.float32 else dtype


def product_dtype(x: Tensor) -> torch.dtype:
    """In what the rows of x are multiplied by matrices."""
    if x.dtype != torch.float32:
        return x.dtype
    fast = has_bfloat16_products() if uses_kernels(x.device) else uses_bfloat16(x.device)
    return torch.bfloat16 if fast else x.dtype


@cache
def has_bfloat16_products() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def padded(width: int) -> int:
    """The next multiple of what the kernels' vectors hold."""
    return -(-width // LANES) * LANES


def packed(x: Tensor, scale: Tensor | None = None) -> Tensor:
    """The rows of x, scaled, as kernels gather them: shape (N, padded C), in `storage_dtype`.

    Args:
        x: shape (N, C).
        scale: shape (N,), or None for ones.
    """
    num_rows, width = x.shape
    result = empty(x, num_rows, padded(width), dtype=storage_dtype(x))
    for rows in chunks_of(x, 0, num_rows):
        part = x[rows] if scale is None else x[rows] * scale[rows, None]
        result[rows, :width] = part
    result[:, width:] = 0
    return result


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`, multiplied in `product_dtype`; for some thousands of rows at a time."""
    dtype = product_dtype(x)
    if dtype == x.dtype:
        return functional.linear(x, weight, bias)
    if not uses_kernels(x.device):  # as torch.autocast does
        shift = None if bias is None else bias.to(dtype)
        return functional.linear(x.to(dtype), weight.to(dtype), shift).to(x.dtype)
    product = _product(x.to(dtype), weight.to(dtype).t()).to(x.dtype)
    return product if bias is None else product + bias


def linear_into(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    own: slice = slice(None),
) -> None:
    """Write `linear` of many rows to `out`, of any precision, a chunk of rows at a time.

    Args:
        out: shape (N, D).
        x: shape (N, C).
        weight: shape (D, C).
        bias: shape (D,).
        own: which rows are wanted; others may be written as well.
    """
    first, last, _ = own.indices(len(x))
    dtype = product_dtype(x)
    if not uses_kernels(x.device):
        weight = weight.to(dtype)  # once for all chunks
        for rows in chunks_of(x, first, last):
            out[rows] = linear(x[rows], weight, bias)
        return
    columns = weight.to(dtype).t()
    shift = None if bias is None else bias.to(dtype)
    in_place = out.dtype == dtype and out.is_contiguous() and min(columns.shape) >= FEW_ROWS
    for rows in chunks_of(x, first, last):
        part = x[rows].to(dtype)
        if in_place and len(part) >= FEW_ROWS:
            if shift is None:
                torch.mm(part, columns, out=out[rows])
            else:
                torch.addmm(shift, part, columns, out=out[rows])
            continue
        product = _product(part, columns)
        if shift is not None:
            product += shift
        out[rows] = product


def linear_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Gradients of `linear` by rows, weight and bias (if there is one) from that by the result."""
    dtype = product_dtype(x)
    part = grad.to(dtype)
    by_x = _product(part, weight.to(dtype)).to(x.dtype)
    by_weight = _product(part.t(), x.to(dtype)).to(x.dtype)
    return (by_x, by_weight) if bias is None else (by_x, by_weight, grad.sum(dim=0))


def linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
    own: slice = slice(None),
) -> None:
    """Add the gradients of `linear` by rows, weight and bias to those given.

    Args:
        grad: shape (N, D), by the result.
        x: shape (N, C).
        weight: shape (D, C).
        grad_x: shape (N, C).
        grad_weight: shape (D, C).
        grad_bias: shape (D,); None if not wanted.
        own: of which rows; the gradient by the result of others is 0.
    """
    dtype = product_dtype(x)
    matrix = weight.to(dtype)
    if not uses_kernels(x.device):
        for window in windows(x, *own.indices(len(x))[:2]):
            part, rows = window.only(grad[window.rows]), window.rows
            if grad_bias is not None:
                grad_bias += part.sum(dim=0)
            part = part.to(dtype)
            if dtype == grad_weight.dtype:
                grad_weight.addmm_(part.t(), x[rows])
            else:  # each window's product is rounded, their sum is not
                grad_weight += part.t() @ x[rows].to(dtype)
            grad_x[rows] += part @ matrix
        return
    for rows in chunks_of(x, 0, len(x)):
        part = grad[rows].to(dtype)
        grad_weight += _product(part.t(), x[rows].to(dtype))
        grad_x[rows] += _product(part, matrix)
    if grad_bias is not None:
        grad_bias += grad.sum(dim=0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices. Of few rows in bfloat16 on a CPU the same by way of float32.

    There a kernel for bfloat16 is compiled for each shape: no use for the last rows of some type,
    of which there are different ones in each batch. They took 10 MB an epoch on PrimeKG.
    """
    if a.dtype == torch.bfloat16 and min(a.shape) < FEW_ROWS and uses_kernels(a.device):
        return (a.float() @ b.float()).to(a.dtype)
    return a @ b
