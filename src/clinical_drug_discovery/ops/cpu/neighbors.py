"""Sums over neighbours as a CPU kernel, compiled by numba on first use and cached on disk.

Every output row is summed by one thread in the order of its edges, so results depend neither on the
number of threads nor on the run.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.cpu.simd import FAST, LANES, add, load, prefetch, splat, store

# Several parts a thread, so that one hub does not leave the others idle. The number does not depend
# on that of the threads: where sums are made by part, results must not either.
NUM_PARTS = 64
Degrees = npt.NDArray[np.int64]
_TABLE_BYTES = 8 * 2**20
AHEAD = 6  # edges whose rows are asked for before they are needed
_LINE = 64  # bytes of a cache line
_FEW_EDGES = (
    8  # of a row in one table, below which going over the rows again costs more than it saves
)


def tables(first: int, last: int, row_bytes: int, degree: Degrees) -> list[tuple[int, int]]:
    """Ranges of nodes whose rows stay in the last cache while edges gather from them at random.

    A gather from 32 MB took five times as long as one from 8 MB, on a CPU with 32 MiB of cache that
    other programs use as well. All nodes are one range where the rows that gather, `degree` of
    which are the numbers of edges, have few.
    """
    size = max(1, _TABLE_BYTES // row_bytes)
    if int(degree.sum()) * size < _FEW_EDGES * len(degree) * (last - first):
        size = max(1, last - first)
    return [(low, min(low + size, last)) for low in range(first, last, size)]


def add_neighbors(messages: Tensor, block: Block, scale: Tensor, out: Tensor) -> None:
    """The same as `reference.add_neighbors`, without any buffer of the size of the edges."""
    graph = block.graph
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        rows = slice(*block.row_ptr[dst_type : dst_type + 2])
        if rows.start < rows.stop:
            nodes, indptr = block.nodes_of(dst_type).numpy(), graph.indptr_of(r).numpy()
            degree = indptr[nodes + 1] - indptr[nodes]
            parts = balanced_parts(degree)
            for low, high in tables(*graph.node_range(src_type), _row_bytes(messages), degree):
                _add_neighbors(
                    parts, nodes, indptr, graph.src.numpy(), low, high, flat(messages),
                    scale[rows].numpy(), out[rows].numpy(),
                )  # fmt: skip


def add_neighbors_backward(messages: Tensor, block: Block, node_type: int, out: Tensor) -> None:
    """The same as `reference.add_neighbors_backward`, by source, so that no two threads collide."""
    graph = block.graph
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        if src_type == node_type and block.row_ptr[dst_type] < block.row_ptr[dst_type + 1]:
            indptr = graph.indptr_of(graph.reverse_edge_type[r]).numpy()
            degree = np.diff(indptr)
            parts, nodes = balanced_parts(degree), np.arange(len(degree))
            for low, high in tables(*graph.node_range(dst_type), _row_bytes(messages), degree):
                _add_neighbors_backward(
                    parts, nodes, indptr, graph.src.numpy(), low, high,
                    block.places().numpy(), flat(messages), out.numpy(),
                )  # fmt: skip


def _row_bytes(rows: Tensor) -> int:
    return rows.stride(0) * rows.element_size()


def flat(rows: Tensor) -> npt.NDArray[np.generic]:
    """Rows as one array for a kernel; bfloat16, which numpy does not know, as its bits."""
    bits = rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows
    return bits.view(-1).numpy()


def balanced_parts(degree: Degrees) -> npt.NDArray[np.int64]:
    """Row ranges of about equal numbers of edges (and rows), as boundaries.

    Balanced by edges, since one hub can have more of them than all other rows together.
    """
    work = np.zeros(len(degree) + 1, np.int64)
    np.cumsum(degree + 1, out=work[1:])  # a row costs something even when it has no edges
    return np.searchsorted(work, np.linspace(0, work[-1], NUM_PARTS + 1).astype(np.int64))


@numba.njit(inline="always")
def edges_between(entries, begin, end, low, high):  # type: ignore[no-untyped-def]  # numba infers its types
    """Of the ascending entries[begin:end] the part from `low` to below `high`."""
    if begin < end and entries[begin] < low:
        begin = _first(entries, begin, end, low)
    if begin < end and entries[end - 1] >= high:
        end = _first(entries, begin, end, high)
    return begin, end


@numba.njit(cache=True)
def _first(entries, begin, end, least):  # type: ignore[no-untyped-def]  # numba infers its types
    while begin < end:
        middle = (begin + end) // 2
        if entries[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin


@numba.njit(inline="always")
def prefetch_row(rows, at, count):  # type: ignore[no-untyped-def]  # numba infers its types
    """Ask for rows[at : at + count], which are needed soon."""
    for c in range(0, count, _LINE // rows.itemsize):
        prefetch(rows, at + c)


@numba.njit(inline="always")
def prefetch_sources(rows, src, begin, end, first, width):  # type: ignore[no-untyped-def]  # numba infers its types
    """Ask for the rows of the first few of src[begin:end]; the rows begin with node `first`."""
    for e in range(begin, min(begin + AHEAD, end)):
        prefetch_row(rows, (src[e] - first) * width, width)


@numba.njit(inline="always")
def next_row(row, stop, nodes, indptr, src, low, high):  # type: ignore[no-untyped-def]  # numba infers its types
    """The first row from `row` on that has edges from `low` to below `high`, and these.

    Knowing it early lets its first sources be fetched while the row before is worked on. Most edge
    types of PrimeKG have few edges a row: without it, they took as long as the large ones.
    """
    begin = end = np.int64(0)
    while row < stop:
        node = nodes[row]
        begin, end = edges_between(src, indptr[node], indptr[node + 1], low, high)
        if begin < end:
            break
        row += 1
    return row, begin, end


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _add_neighbors(  # type: ignore[no-untyped-def]  # numba infers its types  # one loop nest: a call per edge would cost more than the edge
    parts, nodes, indptr, src, low, high, messages, scale, out
):
    """Add to each row the messages of its sources, scaled.

    Rows of `messages` come padded to a multiple of `LANES`, and flat.
    """
    num_columns = out.shape[1]
    width = -(-num_columns // LANES) * LANES
    for part in numba.prange(len(parts) - 1):
        acc = np.empty(width, out.dtype)
        last = parts[part + 1]
        row, edge, end = next_row(parts[part], last, nodes, indptr, src, low, high)
        while row < last:
            then, then_begin, then_end = next_row(row + 1, last, nodes, indptr, src, low, high)
            prefetch_sources(messages, src, then_begin, then_end, 0, width)
            for c in range(0, width, LANES):
                store(acc, c, splat(out.dtype.type(0)))
            while edge + 4 <= end:  # four at a time read and write the sum a quarter as often
                for e in range(edge + AHEAD, min(edge + AHEAD + 4, end)):
                    prefetch_row(messages, src[e] * width, width)
                a, b = src[edge] * width, src[edge + 1] * width
                d, e = src[edge + 2] * width, src[edge + 3] * width
                for c in range(0, width, LANES):
                    left = add(load(messages, a + c), load(messages, b + c))
                    right = add(load(messages, d + c), load(messages, e + c))
                    store(acc, c, add(load(acc, c), add(left, right)))
                edge += 4
            while edge < end:
                a = src[edge] * width
                for c in range(0, width, LANES):
                    store(acc, c, add(load(acc, c), load(messages, a + c)))
                edge += 1
            for c in range(num_columns):
                out[row, c] += scale[row] * acc[c]
            row, edge, end = then, then_begin, then_end


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _add_neighbors_backward(parts, nodes, indptr, dst, low, high, place, messages, out):  # type: ignore[no-untyped-def]  # numba infers its types
    """Add to each node the messages of those of its targets that are rows of a block.

    `place` says which row of `messages` a target is, below 0 if none.
    """
    num_columns = out.shape[1]
    width = -(-num_columns // LANES) * LANES
    for part in numba.prange(len(parts) - 1):
        acc = np.empty(width, out.dtype)
        last = parts[part + 1]
        node, begin, end = next_row(parts[part], last, nodes, indptr, dst, low, high)
        while node < last:
            then, then_begin, then_end = next_row(node + 1, last, nodes, indptr, dst, low, high)
            for e in range(then_begin, min(then_begin + AHEAD, then_end)):
                prefetch_row(messages, max(place[dst[e]], 0) * width, width)
            for c in range(0, width, LANES):
                store(acc, c, splat(out.dtype.type(0)))
            for edge in range(begin, end):
                if edge + AHEAD < end:
                    prefetch_row(messages, max(place[dst[edge + AHEAD]], 0) * width, width)
                row = place[dst[edge]]
                if row >= 0:
                    for c in range(0, width, LANES):
                        store(acc, c, add(load(acc, c), load(messages, row * width + c)))
            for c in range(num_columns):
                out[node, c] += acc[c]
            node, begin, end = then, then_begin, then_end
