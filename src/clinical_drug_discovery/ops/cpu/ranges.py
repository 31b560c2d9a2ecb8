"""Ranges of rows: parts of equal work for the threads, and tables and pieces that fit the cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Ranges of rows (parts) per kernel. More parts than threads, so that threads do not wait for a hub.
# The number is fixed, so that sums over parts do not depend on the number of threads.
NUM_PARTS = 64
Degrees = npt.NDArray[np.int64]
_TABLE_BYTES = 8 * 2**20  # bytes per range of `tables`
# `tables` cuts the source nodes into ranges; each range is one pass over the rows. With fewer
# edges per row and range than this, another pass costs more than it saves.
_FEW_EDGES = 8


def tables(first: int, last: int, row_bytes: int, degree: Degrees) -> list[tuple[int, int]]:
    """Cut nodes into ranges (tables) whose rows fit the last-level cache while edges gather them.

    On a CPU with 32 MiB of cache, shared with other programs, a gather from 32 MB took five times
    as long as one from 8 MB. If the gathering rows have few edges each, all nodes are one range.

    Args:
        first: first node.
        last: node after the last one.
        row_bytes: bytes per node.
        degree: number of edges of each gathering row.
    """
    size = max(1, _TABLE_BYTES // row_bytes)
    if int(degree.sum()) * size < _FEW_EDGES * len(degree) * (last - first):
        size = max(1, last - first)
    return [(low, min(low + size, last)) for low in range(first, last, size)]


def balanced_parts(degree: Degrees) -> npt.NDArray[np.int64]:
    """Return the boundaries of `NUM_PARTS` ranges of rows with about equal work (edges + rows).

    Ranges with equal numbers of rows are uneven: a hub can have more edges than all other rows.
    """
    work = np.zeros(len(degree) + 1, np.int64)
    np.cumsum(degree + 1, out=work[1:])  # a row without edges costs time as well
    return np.searchsorted(work, np.linspace(0, work[-1], NUM_PARTS + 1).astype(np.int64))


def pieces(
    indptr: npt.NDArray[np.int64], row_bytes: int, source_degree: Degrees, most_edges: int
) -> list[tuple[int, int]]:
    """Cut target nodes into ranges that fit the cache and have at most `most_edges` edges.

    A node with more edges is a range of its own.
    """
    found = []
    for start, last in tables(0, len(indptr) - 1, row_bytes, source_degree):
        while start < last:
            most = np.searchsorted(indptr, indptr[start] + most_edges, side="right") - 1
            stop = min(last, max(start + 1, int(most)))
            found.append((start, stop))
            start = stop
    return found
