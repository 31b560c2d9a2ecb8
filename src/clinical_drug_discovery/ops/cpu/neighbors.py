"""CPU kernels of sums over neighbors.

Numba compiles the kernels on first use and caches them on disk. Each row is summed by one thread in
the order of the edges, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..blocks import Block
from .kernel import kernel
from .ranges import balanced_parts, tables
from .simd import FAST, LANES, add, element, load, prefetch, splat, store

AHEAD = 6  # edges between the prefetch of a row and its use
_AHEAD = 8  # the same for sums without products, which take less time per edge
_LINE = 64  # bytes per cache line
_ALL = np.empty(0, np.int32)  # `row_of_node` of a block of all nodes


def add_neighbors(messages: Tensor, block: Block, scale: Tensor, out: Tensor) -> None:
    """Do the same as `reference.add_neighbors`.

    It takes four bytes for each edge of the ranges of rows that threads sum at the moment.
    """
    graph = block.graph
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        rows = slice(*block.row_ptr[dst_type : dst_type + 2])
        if rows.start < rows.stop:
            nodes, indptr = block.nodes_of(dst_type).numpy(), graph.indptr_of(r).numpy()
            degree = indptr[nodes + 1] - indptr[nodes]
            parts = balanced_parts(degree)
            typical = block.typical_degree(degree, indptr)
            for low, high in tables(*graph.node_range(src_type), _row_bytes(messages), typical):
                _add_neighbors(
                    parts, nodes, indptr, graph.src.numpy(), low, high, _ALL, flat(messages),
                    scale[rows].numpy(), out[rows].numpy(),
                )  # fmt: skip


def add_neighbors_backward(messages: Tensor, block: Block, node_type: int, out: Tensor) -> None:
    """Do the same as `reference.add_neighbors_backward`; one thread sums each source node."""
    graph = block.graph
    is_whole = isinstance(block.rows, slice) and block.num_rows == graph.num_nodes
    row_of_node = _ALL if is_whole else block.rows_of_nodes().numpy()
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        if src_type == node_type and block.row_ptr[dst_type] < block.row_ptr[dst_type + 1]:
            indptr = graph.indptr_of(graph.reverse_edge_type[r]).numpy()
            degree = np.diff(indptr)
            parts, nodes = balanced_parts(degree), np.arange(len(degree))
            ones = np.ones(len(degree), out.numpy().dtype)
            for low, high in tables(*graph.node_range(dst_type), _row_bytes(messages), degree):
                _add_neighbors(
                    parts, nodes, indptr, graph.src.numpy(), low, high, row_of_node,
                    flat(messages), ones, out.numpy(),
                )  # fmt: skip


def _row_bytes(rows: Tensor) -> int:
    return rows.stride(0) * rows.element_size()


def flat(rows: Tensor) -> npt.NDArray[np.generic]:
    """Return rows as a flat numpy array. Bfloat16, which numpy lacks, becomes uint16 (its bits)."""
    bits = rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows
    return bits.view(-1).numpy()


@numba.njit(inline="always")
def edges_between(entries, begin, end, low, high):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the begin and end of the entries in low:high; entries[begin:end] must be sorted."""
    if begin < end and entries[begin] < low:
        begin = _first(entries, begin, end, low)
    if begin < end and entries[end - 1] >= high:
        end = _first(entries, begin, end, high)
    return begin, end


@kernel()
def _first(entries, begin, end, least):  # type: ignore[no-untyped-def]  # numba infers its types
    while begin < end:
        middle = (begin + end) // 2
        if entries[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin


@numba.njit(inline="always")
def edges_of(j, last, indptr, dst, low, high):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the range of source j's edges to targets in low:high; empty if j >= last."""
    if j >= last:
        return np.int64(0), np.int64(0)
    return edges_between(dst, indptr[j], indptr[j + 1], low, high)


@numba.njit(inline="always")
def prefetch_row(rows, at, count):  # type: ignore[no-untyped-def]  # numba infers its types
    """Prefetch rows[at : at + count], and up to three cache lines more.

    Four lines at a time: loops over single lines cost more instructions than prefetches.
    """
    line = _LINE // rows.itemsize
    for c in range(at, at + count, 4 * line):
        prefetch(rows, c)
        prefetch(rows, c + line)
        prefetch(rows, c + 2 * line)
        prefetch(rows, c + 3 * line)


@numba.njit(inline="always")
def prefetch_sources(rows, src, begin, end, first, width):  # type: ignore[no-untyped-def]  # numba infers its types
    """Prefetch the rows of the first `AHEAD` nodes of src[begin:end]; node `first` is row 0."""
    for e in range(begin, min(begin + AHEAD, end)):
        prefetch_row(rows, (src[e] - first) * width, width)


@numba.njit(inline="always")
def next_row(row, stop, nodes, indptr, src, low, high):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the first row >= `row` with sources in low:high, and the range of these edges.

    The caller prefetches the row's first sources while it sums the row before. Most edge types of
    PrimeKG have few edges per row; without the prefetch they took as long as the large ones.
    """
    begin = end = np.int64(0)
    while row < stop:
        node = nodes[row]
        begin, end = edges_between(src, indptr[node], indptr[node + 1], low, high)
        if begin < end:
            break
        row += 1
    return row, begin, end


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _add_neighbors(  # type: ignore[no-untyped-def]  # numba infers its types  # one loop nest, because a function call per edge is slow
    parts, nodes, indptr, ends, low, high, row_of_node, messages, scale, out
):
    """Add to each row of `out` the scaled sum of the messages of its node's neighbors in low:high.

    Neighbors without a message are left out. The rows of `messages` are padded to a multiple of
    `LANES`. A list of all rows that a part gathers lets prefetches cross the ends of short sums.
    It takes a tenth of the time.

    Args:
        parts: boundaries of the ranges of rows that one thread sums.
        nodes: node of each row.
        indptr: range of `ends` of each node.
        ends: neighbors.
        low: first neighbor.
        high: neighbor after the last one.
        row_of_node: row in `messages` of each neighbor, or a negative number; if it is empty, the
            row has the neighbor's number.
        messages: flat.
        scale: factor of each row's sum.
        out: rows.
    """
    num_columns = out.shape[1]
    width = -(-num_columns // LANES) * LANES
    flat_out = out.reshape(-1)
    for part in numba.prange(len(parts) - 1):
        first, last = parts[part], parts[part + 1]
        gathered, stops = _gathered(first, last, nodes, indptr, ends, low, high, row_of_node)
        count = stops[-1]
        acc = np.empty(width, out.dtype)
        for e in range(min(_AHEAD, count)):
            prefetch_row(messages, element(gathered, e) * width, width)
        edge = np.int64(0)
        for row in range(first, last):
            end = stops[row - first]
            if edge == end:
                continue
            prefetch_row(flat_out, row * num_columns, num_columns)
            _sum_rows(gathered, edge, end, count, messages, width, acc)
            edge = end
            factor = scale[row]
            for c in range(num_columns):
                out[row, c] += factor * acc[c]


@numba.njit(inline="always")
def _gathered(first, last, nodes, indptr, ends, low, high, row_of_node):  # type: ignore[no-untyped-def]  # numba infers its types
    """Return the rows of messages that the rows first:last gather, and the end of each row's."""
    most = 0
    for row in range(first, last):
        most += indptr[nodes[row] + 1] - indptr[nodes[row]]
    gathered, stops = np.empty(most, np.int32), np.zeros(max(last - first, 1), np.int64)
    count = 0
    for row in range(first, last):
        begin, end = edges_between(ends, indptr[nodes[row]], indptr[nodes[row] + 1], low, high)
        if len(row_of_node) == 0:
            gathered[count : count + end - begin] = ends[begin:end]
            count += end - begin
        else:
            for edge in range(begin, end):
                found = element(row_of_node, element(ends, edge))
                gathered[np.uint64(count)] = found  # an unsigned index needs no test of its sign
                count += found >= 0
        stops[row - first] = count
    return gathered, stops


@numba.njit(inline="always")
def _sum_rows(gathered, edge, end, count, messages, width, acc):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write the sum of the rows gathered[edge:end] to `acc`, and prefetch the rows after them."""
    for c in range(0, width, LANES):
        store(acc, c, splat(acc.dtype.type(0)))
    while edge + 4 <= end:  # four edges per step: fewer reads and writes of the sum
        for e in range(edge + _AHEAD, min(edge + _AHEAD + 4, count)):
            prefetch_row(messages, element(gathered, e) * width, width)
        a, b = element(gathered, edge) * width, element(gathered, edge + 1) * width
        d, e = element(gathered, edge + 2) * width, element(gathered, edge + 3) * width
        for c in range(0, width, LANES):
            left = add(load(messages, a + c), load(messages, b + c))
            right = add(load(messages, d + c), load(messages, e + c))
            store(acc, c, add(load(acc, c), add(left, right)))
        edge += 4
    while edge < end:
        if edge + _AHEAD < count:
            prefetch_row(messages, element(gathered, edge + _AHEAD) * width, width)
        a = element(gathered, edge) * width
        for c in range(0, width, LANES):
            store(acc, c, add(load(acc, c), load(messages, a + c)))
        edge += 1
