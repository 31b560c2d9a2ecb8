"""Products of many rows with weight matrices, and their gradients.

Products are computed in `Backend.product_dtype`. Sums over chunks of rows are in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .backend import FEW_ROWS, Backend

_SHARED_ROWS = 128  # products with at least this many rows do not depend on the number of threads
_SHARED_COLUMNS = 384  # likewise


def linear_into(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, backend: Backend
) -> None:
    """Write x weight^T + bias to `out`, a chunk of rows at a time, multiplied in the product dtype.

    Args:
        out: shape (N, D), of any dtype.
        x: shape (N, C).
        weight: shape (D, C).
        bias: shape (D,), or None.
        backend: determines dtype and chunks.
    """
    dtype = backend.product_dtype(x.dtype)
    columns = weight.to(dtype).t()
    shift = None if bias is None else bias.to(dtype)
    in_place = out.dtype == dtype and out.is_contiguous() and min(columns.shape) >= FEW_ROWS
    for rows in backend.row_chunks(0, len(x)):
        part = x[rows].to(dtype)
        if in_place and len(part) >= FEW_ROWS:
            if shift is None:
                torch.mm(part, columns, out=out[rows])
            else:
                torch.addmm(shift, part, columns, out=out[rows])
            continue
        product = multiply(part, columns)
        if shift is not None:
            product += shift
        out[rows] = product


def product_of(inputs: Sequence[Tensor], weights: Sequence[Tensor], backend: Backend) -> Tensor:
    """Return the sum of some maps without bias, as one product in the product dtype.

    Args:
        inputs: k arrays of shape (m, C).
        weights: k arrays of shape (D, C).
        backend: determines the dtype.

    Returns:
        shape (m, D).
    """
    dtype = backend.product_dtype(inputs[0].dtype)
    return multiply(side_by_side(inputs, dtype), side_by_side(weights, dtype).t())


def side_by_side(arrays: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return arrays of m rows as one array of m rows in another dtype."""
    if len(arrays) == 1:
        return arrays[0].to(dtype)
    result = arrays[0].new_empty(len(arrays[0]), sum(a.shape[1] for a in arrays), dtype=dtype)
    for part, array in zip(result.split([a.shape[1] for a in arrays], 1), arrays, strict=True):
        part.copy_(array)
    return result


def linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
    backend: Backend,
) -> None:
    """Add the gradients of `linear_into` to the three `grad_` arguments, a chunk of rows at a time.

    Args:
        grad: shape (N, D), the gradient with respect to the result.
        x: shape (N, C).
        weight: shape (D, C).
        grad_x: shape (N, C), for the gradient with respect to x.
        grad_weight: shape (D, C), likewise for weight.
        grad_bias: shape (D,), likewise for the bias; None to skip this gradient.
        backend: determines dtype and chunks.
    """
    dtype = backend.product_dtype(x.dtype)
    matrix = weight.to(dtype)
    for rows in backend.row_chunks(0, len(x)):
        part = grad[rows].to(dtype)
        grad_weight += multiply(part.t(), x[rows].to(dtype))
        grad_x[rows] += multiply(part, matrix)
    if grad_bias is not None:
        grad_bias += grad.sum(dim=0)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply two matrices. A bfloat16 matrix of few rows is multiplied in float32, then rounded.

    The result is the same. oneDNN would compile and keep a bfloat16 product for each shape. The
    last chunk of a node type has another size in each batch, so the memory of these compiled
    products would grow by 10 MB per epoch on PrimeKG.
    """
    with same_bits(len(a)):
        if a.dtype == torch.bfloat16 and min(a.shape) < FEW_ROWS:
            return (a.float() @ b.float()).to(a.dtype)
        return a @ b


@contextmanager
def same_bits(num_rows: int, num_columns: int = 0) -> Iterator[None]:
    """Give a product on the CPU the same bits for any number of threads, inside a `with` block.

    MKL divides the rows among threads. It multiplies the last 1 to 3 rows of each thread by another
    kernel, which rounds differently. Products of at least 128 rows, or of a multiple of 4 rows, had
    the same bits with 2 to 64 threads on AVX2, and 2 to 16 on AVX-512. Others run on one thread.

    MKL divides the columns, too. Then float32 products of 17 to 331 columns depended on the number
    of threads, from 3 on, unless the number of columns was a multiple of 16.

    Args:
        num_rows: number of rows of the product.
        num_columns: number of its columns; 0 if they need not count, as for the width of a model.
            A width that is not a multiple of 16 would leave most of the training to one thread.
    """
    threads = torch.get_num_threads()
    by_rows = num_rows >= _SHARED_ROWS or num_rows % 4 == 0
    by_columns = not 16 < num_columns < _SHARED_COLUMNS or num_columns % 16 == 0
    if threads == 1 or (by_rows and by_columns):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
