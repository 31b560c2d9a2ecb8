"""CPU kernels that multiply each attention head of some rows by the matrix of the head.

In BLAS, a batched product of 8 matrices of 32 x 32 runs at a quarter of the CPU's peak speed. These
kernels keep the products of six rows in registers, and prefetch the next rows meanwhile: otherwise
a third of the time would pass in waiting for memory. Numba compiles the kernels on first use and
caches them on disk.

Notation: n nodes, H heads of d channels, P = H d. Padding makes d a multiple of `LANES`. Kernels
take flattened arrays of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..backend import has_bfloat16_products
from .kernel import kernel
from .neighbors import flat
from .simd import (
    FAST,
    LANES,
    add_pair_products,
    fma,
    load,
    load_splat,
    prefetch,
    splat,
    store,
    store_pairs,
    total,
)

_PARTS = 32  # ranges of rows: a fixed number, so sums do not depend on the number of threads
_GROUP = 6  # rows per step of a multiplication
_ROWS = 32  # rows per step of a sum of outer products


def map_heads(nodes: Tensor, heads: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Do the same as `reference.map_heads`."""
    kernel, weights = _mapper(heads, matrix)
    kernel(nodes.numpy(), flat(heads), weights, flat(out), False)


def map_heads_backward(
    nodes: Tensor, heads: Tensor, matrix: Tensor, grad: Tensor, grad_heads: Tensor
) -> Tensor:
    """Do the same as `reference.map_heads_backward`."""
    kernel, weights = _mapper(grad, matrix.transpose(1, 2))
    kernel(nodes.numpy(), flat(grad), weights, flat(grad_heads), True)
    by_part = torch.zeros(_PARTS, *matrix.shape, dtype=matrix.dtype)
    outer = _outer_pairs if _in_pairs(heads) and _in_pairs(grad) else _outer
    outer(nodes.numpy(), flat(heads), flat(grad), by_part.numpy())
    return by_part.sum(dim=0)


def head_dots(a: Tensor, b: Tensor, num_heads: int) -> Tensor:
    """Do the same as `reference.head_dots`."""
    dots = b.new_empty(len(b), num_heads)
    _head_dots(flat(a), flat(b), dots.numpy())
    return dots


def _mapper(rows: Tensor, matrix: Tensor) -> tuple[Callable[..., None], npt.NDArray[np.generic]]:
    """Return the kernel for the dtype of `rows`, and `matrix` in the layout for this kernel."""
    if not _in_pairs(rows):
        return _map, matrix.contiguous().numpy()
    num_heads, dim, _ = matrix.shape
    pairs = matrix.to(torch.bfloat16).view(num_heads, dim // 2, 2, dim).transpose(2, 3)
    return _map_pairs, pairs.contiguous().view(torch.uint16).numpy()


def _in_pairs(rows: Tensor) -> bool:
    """Return whether `rows` are multiplied as pairs of bfloat16 numbers."""
    return rows.dtype == torch.bfloat16 and has_bfloat16_products()


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _map(nodes, heads, matrix, out, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    num_heads, dim = matrix.shape[:2]
    width = num_heads * dim
    weights = matrix.reshape(-1)
    zero = matrix.dtype.type(0)
    num_groups = -(-len(nodes) // _GROUP)
    for part in numba.prange(_PARTS):
        own = np.empty(_GROUP * width, matrix.dtype)  # converted once, read number by number
        at, later = np.empty(_GROUP, np.int64), np.empty(_GROUP, np.int64)
        for group in range(part * num_groups // _PARTS, (part + 1) * num_groups // _PARTS):
            _places(nodes, group, width, at)
            _places(nodes, group + 1, width, later)
            for i in range(_GROUP):
                for c in range(0, width, LANES):
                    store(own, i * width + c, load(heads, at[i] + c))
            for h in range(num_heads):
                first = h * dim
                for column in range(first, first + dim, LANES):  # columns of the output
                    _prefetch_six(heads, out, later, column)
                    # Six variables, because a numba array cannot hold SIMD vectors.
                    s0 = s1 = s2 = s3 = s4 = s5 = splat(zero)
                    if accumulate:
                        s0, s1 = load(out, at[0] + column), load(out, at[1] + column)
                        s2, s3 = load(out, at[2] + column), load(out, at[3] + column)
                        s4, s5 = load(out, at[4] + column), load(out, at[5] + column)
                    for c in range(first, first + dim):
                        w = load(weights, c * dim + column - first)
                        s0 = fma(load_splat(own, c), w, s0)
                        s1 = fma(load_splat(own, c + width), w, s1)
                        s2 = fma(load_splat(own, c + 2 * width), w, s2)
                        s3 = fma(load_splat(own, c + 3 * width), w, s3)
                        s4 = fma(load_splat(own, c + 4 * width), w, s4)
                        s5 = fma(load_splat(own, c + 5 * width), w, s5)
                    store(out, at[0] + column, s0)
                    store(out, at[1] + column, s1)
                    store(out, at[2] + column, s2)
                    store(out, at[3] + column, s3)
                    store(out, at[4] + column, s4)
                    store(out, at[5] + column, s5)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _map_pairs(nodes, heads, matrix, out, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    """Do the same as `_map` in bfloat16; rows 2 c and 2 c + 1 of each matrix are interleaved."""
    num_heads, dim = matrix.shape[0], matrix.shape[2]
    width = num_heads * dim
    weights = matrix.reshape(-1)
    num_groups = -(-len(nodes) // _GROUP)
    for part in numba.prange(_PARTS):
        at, later = np.empty(_GROUP, np.int64), np.empty(_GROUP, np.int64)
        for group in range(part * num_groups // _PARTS, (part + 1) * num_groups // _PARTS):
            _places(nodes, group, width, at)
            _places(nodes, group + 1, width, later)
            for h in range(num_heads):
                first = h * dim
                for column in range(first, first + dim, LANES):  # columns of the output
                    _prefetch_six(heads, out, later, column)
                    s0 = s1 = s2 = s3 = s4 = s5 = splat(np.float32(0))
                    if accumulate:
                        s0, s1 = load(out, at[0] + column), load(out, at[1] + column)
                        s2, s3 = load(out, at[2] + column), load(out, at[3] + column)
                        s4, s5 = load(out, at[4] + column), load(out, at[5] + column)
                    for c in range(first, first + dim, 2):
                        w = c * dim + 2 * (column - first)
                        s0 = add_pair_products(heads, at[0] + c, weights, w, s0)
                        s1 = add_pair_products(heads, at[1] + c, weights, w, s1)
                        s2 = add_pair_products(heads, at[2] + c, weights, w, s2)
                        s3 = add_pair_products(heads, at[3] + c, weights, w, s3)
                        s4 = add_pair_products(heads, at[4] + c, weights, w, s4)
                        s5 = add_pair_products(heads, at[5] + c, weights, w, s5)
                    store(out, at[0] + column, s0)
                    store(out, at[1] + column, s1)
                    store(out, at[2] + column, s2)
                    store(out, at[3] + column, s3)
                    store(out, at[4] + column, s4)
                    store(out, at[5] + column, s5)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _head_dots(a, b, dots):  # type: ignore[no-untyped-def]  # numba infers its types
    num_rows, num_heads = dots.shape
    dim = len(b) // max(1, num_rows * num_heads)
    zero = splat(dots.dtype.type(0))
    for row in numba.prange(num_rows):
        for h in range(num_heads):
            first, sums = (row * num_heads + h) * dim, zero
            for c in range(first, first + dim, LANES):
                sums = fma(load(a, c), load(b, c), sums)
            dots[row, h] = total(sums)


@numba.njit(inline="always")
def _places(nodes, group, width, at):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write the starts of a group's rows to `at`, repeating the last row.

    The repeated rows are computed and stored again, with the same result.
    """
    for i in range(_GROUP):
        at[i] = nodes[min(group * _GROUP + i, len(nodes) - 1)] * width


@numba.njit(inline="always")
def _prefetch_six(heads, out, at, column):  # type: ignore[no-untyped-def]  # numba infers its types
    """Prefetch a column of a group's rows."""
    for i in range(_GROUP):
        prefetch(heads, at[i] + column)
        prefetch(out, at[i] + column)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _outer(nodes, heads, grad, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    """Add the outer products of rows and gradients to `by_part`, for each part and head."""
    num_heads, dim = by_part.shape[1:3]
    width = num_heads * dim
    size = width * dim
    sums = by_part.reshape(-1)
    count = len(nodes)
    for part in numba.prange(_PARTS):
        own = np.empty(_ROWS * dim, by_part.dtype)
        by = np.empty(_ROWS * dim, by_part.dtype)
        begin, end = part * count // _PARTS, (part + 1) * count // _PARTS
        for start in range(begin, end, _ROWS):
            num_rows = min(_ROWS, end - start)
            for h in range(num_heads):
                head = h * dim
                # One head of all rows, so that these numbers and their sums stay in the L1 cache.
                _gather(nodes, start, num_rows, heads, head, width, dim, own)
                _gather(nodes, start, num_rows, grad, head, width, dim, by)
                for row in range(0, dim, 4):  # dim is a multiple of 4
                    _prefetch_later(nodes, start, head + row, width, heads, grad)
                    for column in range(0, dim, LANES):
                        at = part * size + (head + row) * dim + column
                        s0, s1 = load(sums, at), load(sums, at + dim)
                        s2, s3 = load(sums, at + 2 * dim), load(sums, at + 3 * dim)
                        for i in range(num_rows):
                            x, vector = i * dim + row, load(by, i * dim + column)
                            s0 = fma(load_splat(own, x), vector, s0)
                            s1 = fma(load_splat(own, x + 1), vector, s1)
                            s2 = fma(load_splat(own, x + 2), vector, s2)
                            s3 = fma(load_splat(own, x + 3), vector, s3)
                        store(sums, at, s0)
                        store(sums, at + dim, s1)
                        store(sums, at + 2 * dim, s2)
                        store(sums, at + 3 * dim, s3)


@numba.njit(fastmath=FAST)
def _gather(nodes, start, num_rows, rows, head, width, dim, out):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write one head of some rows to `out`, one row after the other."""
    for i in range(num_rows):
        at = nodes[start + i] * width + head
        for c in range(0, dim, LANES):
            store(out, i * dim + c, load(rows, at + c))


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _outer_pairs(nodes, heads, grad, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    """Do the same as `_outer` in bfloat16, with pairs of rows interleaved."""
    num_heads, dim = by_part.shape[1:3]
    width = num_heads * dim
    size = width * dim
    sums = by_part.reshape(-1)
    count = len(nodes)
    for part in numba.prange(_PARTS):
        own = np.empty(_ROWS * dim, np.uint16)
        by = np.empty(_ROWS * dim, np.uint16)
        begin, end = part * count // _PARTS, (part + 1) * count // _PARTS
        for start in range(begin, end, _ROWS):
            num_rows = min(_ROWS, end - start)
            pairs = (num_rows + 1) // 2
            for h in range(num_heads):
                head = h * dim
                _interleave(nodes, start, num_rows, heads, head, width, dim, own)
                _interleave(nodes, start, num_rows, grad, head, width, dim, by)
                for row in range(0, dim, 4):  # dim is a multiple of 4
                    _prefetch_later(nodes, start, head + row, width, heads, grad)
                    for column in range(0, dim, LANES):
                        at = part * size + (head + row) * dim + column
                        s0, s1 = load(sums, at), load(sums, at + dim)
                        s2, s3 = load(sums, at + 2 * dim), load(sums, at + 3 * dim)
                        for i in range(pairs):
                            x, y = 2 * (i * dim + row), 2 * (i * dim + column)
                            s0 = add_pair_products(own, x, by, y, s0)
                            s1 = add_pair_products(own, x + 2, by, y, s1)
                            s2 = add_pair_products(own, x + 4, by, y, s2)
                            s3 = add_pair_products(own, x + 6, by, y, s3)
                        store(sums, at, s0)
                        store(sums, at + dim, s1)
                        store(sums, at + 2 * dim, s2)
                        store(sums, at + 3 * dim, s3)


@numba.njit(fastmath=FAST)
def _interleave(nodes, start, num_rows, rows, head, width, dim, out):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write one head of each pair of rows to `out`; an odd last row is paired with zeros."""
    for i in range(num_rows // 2):
        x, y = nodes[start + 2 * i] * width + head, nodes[start + 2 * i + 1] * width + head
        for c in range(0, dim, LANES):
            store_pairs(out, 2 * (i * dim + c), rows, x + c, y + c)
    if num_rows % 2 == 1:
        last = nodes[start + num_rows - 1] * width + head
        for c in range(dim):
            out[(num_rows - 1) * dim + 2 * c] = rows[last + c]
            out[(num_rows - 1) * dim + 2 * c + 1] = 0


@numba.njit(fastmath=FAST)
def _prefetch_later(nodes, start, row, width, heads, grad):  # type: ignore[no-untyped-def]  # numba infers its types
    """Prefetch 4 / `width` of the rows of the next step, in the order of the memory.

    The caller does this once per four rows of its matrices. `row` is the first of the four.
    """
    share, size = np.uint64(row * _ROWS), np.uint64(width)
    node = nodes[min(start + _ROWS + np.int64(share // size), len(nodes) - 1)]
    first = node * width + np.int64(share % size)
    for c in range(first, first + 4 * _ROWS, LANES):
        prefetch(heads, c)
        prefetch(grad, c)
