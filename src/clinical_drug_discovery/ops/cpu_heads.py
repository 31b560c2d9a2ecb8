"""A matrix for each attention head, applied to the rows that have edges, as CPU kernels.

A batched product of 8 matrices of 32 x 32 over rows side by side runs at a quarter of the CPU's
rate in BLAS; these kernels keep the products of six rows in registers. Compiled by numba on first
use and cached on disk.

Notation: n nodes, H heads of d channels, P = H d with d a multiple of `simd.LANES`.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.ops.cpu import flat
from clinical_drug_discovery.ops.simd import FAST, LANES, add, fma, load, load_splat, splat, store

_PARTS = 64  # not by the number of threads: sums are made by part, and must not depend on it
_GROUP = 6  # rows that a matrix is applied to at a time
_ROWS = 32  # whose outer products are summed at a time


def map_heads(nodes: Tensor, heads: Tensor, matrix: Tensor, out: Tensor, part: int) -> None:
    """The same as `reference.map_heads`."""
    width = heads.shape[1]
    _map(
        nodes.numpy(), _from_first(heads), heads.stride(0), 0, matrix.contiguous().numpy(),
        flat(out), 2 * width, part * width, False,
    )  # fmt: skip


def map_heads_backward(
    nodes: Tensor, heads: Tensor, matrix: Tensor, grad: Tensor, part: int, grad_heads: Tensor
) -> Tensor:
    """The same as `reference.map_heads_backward`."""
    width = heads.shape[1]
    transposed = matrix.transpose(1, 2).contiguous()
    by_part = torch.zeros(_PARTS, *matrix.shape, dtype=matrix.dtype)
    _map(
        nodes.numpy(), flat(grad), 2 * width, part * width, transposed.numpy(),
        _from_first(grad_heads), grad_heads.stride(0), 0, True,
    )  # fmt: skip
    _outer(
        nodes.numpy(), _from_first(heads), heads.stride(0), flat(grad), part * width,
        by_part.numpy(),
    )  # fmt: skip
    return by_part.sum(dim=0)


def _from_first(rows: Tensor) -> npt.NDArray[np.generic]:
    """All memory from the first of some rows, which may lie apart, to the end of the last."""
    size = (len(rows) - 1) * rows.stride(0) + rows.shape[1] if len(rows) else 0
    return flat(rows.as_strided((size,), (1,)))


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _map(nodes, heads, stride, first, matrix, out, out_stride, out_first, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types  # noqa: C901  # vectors do not go into arrays
    num_heads, dim = matrix.shape[:2]
    width = num_heads * dim
    weights = matrix.reshape(-1)
    zero = matrix.dtype.type(0)
    num_groups = -(-len(nodes) // _GROUP)
    for part in numba.prange(_PARTS):
        own = np.empty(_GROUP * width, matrix.dtype)  # widened, for numbers to be taken one by one
        for group in range(part * num_groups // _PARTS, (part + 1) * num_groups // _PARTS):
            count = min(_GROUP, len(nodes) - group * _GROUP)
            for i in range(count):
                row = nodes[group * _GROUP + i] * stride + first
                for c in range(0, width, LANES):
                    store(own, i * width + c, load(heads, row + c))
            for at in range(0, width, LANES):  # in the output
                h = at // dim
                column = at - h * dim
                s0 = s1 = s2 = s3 = s4 = s5 = splat(zero)
                for c in range(dim):
                    w = load(weights, (h * dim + c) * dim + column)
                    x = h * dim + c
                    s0 = fma(load_splat(own, x), w, s0)
                    s1 = fma(load_splat(own, x + width), w, s1)
                    s2 = fma(load_splat(own, x + 2 * width), w, s2)
                    s3 = fma(load_splat(own, x + 3 * width), w, s3)
                    s4 = fma(load_splat(own, x + 4 * width), w, s4)
                    s5 = fma(load_splat(own, x + 5 * width), w, s5)
                # What a last group lacks was computed of rubbish and is not kept.
                first_node, place = group * _GROUP, out_first + at
                _put(out, nodes[first_node] * out_stride + place, s0, accumulate)
                if count > 1:
                    _put(out, nodes[first_node + 1] * out_stride + place, s1, accumulate)
                if count > 2:
                    _put(out, nodes[first_node + 2] * out_stride + place, s2, accumulate)
                if count > 3:
                    _put(out, nodes[first_node + 3] * out_stride + place, s3, accumulate)
                if count > 4:
                    _put(out, nodes[first_node + 4] * out_stride + place, s4, accumulate)
                if count > 5:
                    _put(out, nodes[first_node + 5] * out_stride + place, s5, accumulate)


@numba.njit(inline="always", fastmath=FAST)
def _put(out, at, vector, accumulate):  # type: ignore[no-untyped-def]  # numba infers its types
    if accumulate:
        store(out, at, add(load(out, at), vector))
    else:
        store(out, at, vector)


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _outer(nodes, heads, stride, grad, first, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    """Sum the outer products of each head's rows and their gradients, by part."""
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
                    store(own, (i - start) * width + c, load(heads, nodes[i] * stride + c))
            for row in range(0, width, 4):  # dim is a multiple of 4
                head = row // dim * dim
                for column in range(0, dim, LANES):
                    at = part * size + row * dim + column
                    s0, s1 = load(sums, at), load(sums, at + dim)
                    s2, s3 = load(sums, at + 2 * dim), load(sums, at + 3 * dim)
                    for i in range(start, stop):
                        by = load(grad, nodes[i] * 2 * width + first + head + column)
                        x = (i - start) * width + row
                        s0 = fma(load_splat(own, x), by, s0)
                        s1 = fma(load_splat(own, x + 1), by, s1)
                        s2 = fma(load_splat(own, x + 2), by, s2)
                        s3 = fma(load_splat(own, x + 3), by, s3)
                    store(sums, at, s0)
                    store(sums, at + dim, s1)
                    store(sums, at + 2 * dim, s2)
                    store(sums, at + 3 * dim, s3)
