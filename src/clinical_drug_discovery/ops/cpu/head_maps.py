"""CPU kernels that multiply each attention head of some rows by the matrix of the head.

In BLAS, a batched product of 8 matrices of 32 x 32 runs at a quarter of the CPU's peak speed. These
kernels keep the products of six rows in registers. Numba compiles the kernels on first use and
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
    add,
    add_pair_products,
    fma,
    load,
    load_splat,
    splat,
    store,
    store_pairs,
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
        at = np.empty(_GROUP, np.int64)
        for group in range(part * num_groups // _PARTS, (part + 1) * num_groups // _PARTS):
            count = _places(nodes, group, width, at)
            for i in range(count):
                for c in range(0, width, LANES):
                    store(own, i * width + c, load(heads, at[i] + c))
            for column in range(0, width, LANES):  # columns of the output
                h = column // dim
                # Six variables, because a numba array cannot hold SIMD vectors.
                s0 = s1 = s2 = s3 = s4 = s5 = splat(zero)
                for c in range(h * dim, (h + 1) * dim):
                    w = load(weights, c * dim + column - h * dim)
                    s0 = fma(load_splat(own, c), w, s0)
                    s1 = fma(load_splat(own, c + width), w, s1)
                    s2 = fma(load_splat(own, c + 2 * width), w, s2)
                    s3 = fma(load_splat(own, c + 3 * width), w, s3)
                    s4 = fma(load_splat(own, c + 4 * width), w, s4)
                    s5 = fma(load_splat(own, c + 5 * width), w, s5)
                # The last group may repeat its last row; repeated rows are not stored.
                _put_six(out, at, column, count, s0, s1, s2, s3, s4, s5, accumulate)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _map_pairs(nodes, heads, matrix, out, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    """Do the same as `_map` in bfloat16; rows 2 c and 2 c + 1 of each matrix are interleaved."""
    num_heads, dim = matrix.shape[0], matrix.shape[2]
    width = num_heads * dim
    weights = matrix.reshape(-1)
    num_groups = -(-len(nodes) // _GROUP)
    for part in numba.prange(_PARTS):
        at = np.empty(_GROUP, np.int64)
        for group in range(part * num_groups // _PARTS, (part + 1) * num_groups // _PARTS):
            count = _places(nodes, group, width, at)
            for column in range(0, width, LANES):  # columns of the output
                h = column // dim
                s0 = s1 = s2 = s3 = s4 = s5 = splat(np.float32(0))
                for c in range(h * dim, (h + 1) * dim, 2):
                    w = c * dim + 2 * (column - h * dim)
                    s0 = add_pair_products(heads, at[0] + c, weights, w, s0)
                    s1 = add_pair_products(heads, at[1] + c, weights, w, s1)
                    s2 = add_pair_products(heads, at[2] + c, weights, w, s2)
                    s3 = add_pair_products(heads, at[3] + c, weights, w, s3)
                    s4 = add_pair_products(heads, at[4] + c, weights, w, s4)
                    s5 = add_pair_products(heads, at[5] + c, weights, w, s5)
                _put_six(out, at, column, count, s0, s1, s2, s3, s4, s5, accumulate)


@numba.njit(inline="always")
def _places(nodes, group, width, at):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the number of rows in a group; write their starts to `at`, repeating the last."""
    count = min(_GROUP, len(nodes) - group * _GROUP)
    for i in range(_GROUP):
        at[i] = nodes[group * _GROUP + min(i, count - 1)] * width
    return count


@numba.njit(forceinline=True, fastmath=FAST)
def _put_six(out, at, column, count, s0, s1, s2, s3, s4, s5, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    _put(out, at[0] + column, s0, accumulate)
    if count > 1:
        _put(out, at[1] + column, s1, accumulate)
    if count > 2:
        _put(out, at[2] + column, s2, accumulate)
    if count > 3:
        _put(out, at[3] + column, s3, accumulate)
    if count > 4:
        _put(out, at[4] + column, s4, accumulate)
    if count > 5:
        _put(out, at[5] + column, s5, accumulate)


@numba.njit(forceinline=True, fastmath=FAST)
def _put(out, at, vector, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    if accumulate:
        store(out, at, add(load(out, at), vector))
    else:
        store(out, at, vector)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _outer(nodes, heads, grad, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    """Add the outer products of rows and gradients to `by_part`, for each part and head."""
    num_heads, dim = by_part.shape[1:3]
    width = num_heads * dim
    size = width * dim
    sums = by_part.reshape(-1)
    count = len(nodes)
    for part in numba.prange(_PARTS):
        own = np.empty(_ROWS * width, by_part.dtype)
        begin, end = part * count // _PARTS, (part + 1) * count // _PARTS
        for start in range(begin, end, _ROWS):
            stop = min(start + _ROWS, end)
            for i in range(start, stop):
                for c in range(0, width, LANES):
                    store(own, (i - start) * width + c, load(heads, nodes[i] * width + c))
            for row in range(0, width, 4):  # dim is a multiple of 4
                head = row // dim * dim
                for column in range(0, dim, LANES):
                    at = part * size + row * dim + column
                    s0, s1 = load(sums, at), load(sums, at + dim)
                    s2, s3 = load(sums, at + 2 * dim), load(sums, at + 3 * dim)
                    for i in range(start, stop):
                        by = load(grad, nodes[i] * width + head + column)
                        x = (i - start) * width + row
                        s0 = fma(load_splat(own, x), by, s0)
                        s1 = fma(load_splat(own, x + 1), by, s1)
                        s2 = fma(load_splat(own, x + 2), by, s2)
                        s3 = fma(load_splat(own, x + 3), by, s3)
                    store(sums, at, s0)
                    store(sums, at + dim, s1)
                    store(sums, at + 2 * dim, s2)
                    store(sums, at + 3 * dim, s3)


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _outer_pairs(nodes, heads, grad, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    """Do the same as `_outer` in bfloat16, with pairs of rows interleaved."""
    num_heads, dim = by_part.shape[1:3]
    width = num_heads * dim
    size = width * dim
    sums = by_part.reshape(-1)
    count = len(nodes)
    for part in numba.prange(_PARTS):
        own = np.empty(_ROWS * width, np.uint16)
        by = np.empty(_ROWS * width, np.uint16)
        begin, end = part * count // _PARTS, (part + 1) * count // _PARTS
        for start in range(begin, end, _ROWS):
            stop = min(start + _ROWS, end)
            pairs = (stop - start + 1) // 2
            for i in range(pairs):
                a, b = start + 2 * i, min(start + 2 * i + 1, stop - 1)
                x, y = nodes[a] * width, nodes[b] * width
                for c in range(0, width, LANES):
                    store_pairs(own, 2 * (i * width + c), heads, x + c, y + c)
                    store_pairs(by, 2 * (i * width + c), grad, x + c, y + c)
                if a == b:  # an odd last row is paired with zeros
                    for c in range(width):
                        by[2 * (i * width + c) + 1] = 0
                        own[2 * (i * width + c) + 1] = 0
            for row in range(0, width, 4):  # dim is a multiple of 4
                head = row // dim * dim
                for column in range(0, dim, LANES):
                    at = part * size + row * dim + column
                    s0, s1 = load(sums, at), load(sums, at + dim)
                    s2, s3 = load(sums, at + 2 * dim), load(sums, at + 3 * dim)
                    for i in range(pairs):
                        x, y = 2 * (i * width + row), 2 * (i * width + head + column)
                        s0 = add_pair_products(own, x, by, y, s0)
                        s1 = add_pair_products(own, x + 2, by, y, s1)
                        s2 = add_pair_products(own, x + 4, by, y, s2)
                        s3 = add_pair_products(own, x + 6, by, y, s3)
                    store(sums, at, s0)
                    store(sums, at + dim, s1)
                    store(sums, at + 2 * dim, s2)
                    store(sums, at + 3 * dim, s3)
