"""Loops over all edges of a graph for which numpy has no fast word, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_Ints = npt.NDArray[np.int64]
_Nodes = npt.NDArray[np.int32]


def kept_edges(
    begin: _Ints, end: _Ints, src: _Nodes, place: _Nodes, gone: npt.NDArray[np.bool_]
) -> tuple[_Nodes, _Ints]:
    """The sources of some runs of edges, numbered anew, without those that have no number.

    Args:
        begin: shape (P,), the first edge of each run.
        end: shape (P,), what follows its last.
        src: shape (E,).
        place: shape (N,), the new number of each node, below 0 if it has none.
        gone: shape (E,), edges that are left out as well.

    Returns:
        The kept sources, run after run, and where each run starts and ends, shape (P + 1,).
    """
    ptr = np.zeros(len(begin) + 1, np.int64)
    _count_kept(begin, end, src, place, gone, ptr)
    np.cumsum(ptr, out=ptr)
    kept = np.empty(ptr[-1], np.int32)
    _write_kept(begin, end, src, place, gone, ptr, kept)
    return kept, ptr


def reverse_edges(
    edge_type_ptr: _Ints, src: _Nodes, first: _Ints, mirror: _Ints, turn: list[_Ints]
) -> _Nodes:
    """For each edge the number of its mirror, shape (E,).

    Args:
        edge_type_ptr: shape (R + 1,), where the edges of each type stand.
        src: shape (E,).
        first: shape (R,), the first node of each edge type's source type.
        mirror: shape (R,), the edge type that holds the edges the other way round.
        turn: for each edge type the first edge into each node of its target type.
    """
    mirrored = np.empty(len(src), np.int32)
    ptr = np.cumsum([0, *map(len, turn)])
    _mirrored_edges(edge_type_ptr, src, first, mirror, np.concatenate(turn), ptr, mirrored)
    return mirrored


@numba.njit(parallel=True, cache=True, nogil=True)
def _mirrored_edges(edge_type_ptr, src, first, mirror, turn, ptr, mirrored):  # type: ignore[no-untyped-def]  # numba infers its types
    for r in numba.prange(len(mirror)):
        # Edges in order of their targets: of those that leave a node, each is the next to arrive.
        start = ptr[mirror[r]] - first[r]
        for edge in range(edge_type_ptr[r], edge_type_ptr[r + 1]):
            at = start + src[edge]
            mirrored[edge] = turn[at]
            turn[at] += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def _count_kept(begin, end, src, place, gone, ptr):  # type: ignore[no-untyped-def]  # numba infers its types
    for run in numba.prange(len(begin)):
        count = 0
        for edge in range(begin[run], end[run]):
            count += place[src[edge]] >= 0 and not gone[edge]
        ptr[run + 1] = count


@numba.njit(parallel=True, cache=True, nogil=True)
def _write_kept(begin, end, src, place, gone, ptr, kept):  # type: ignore[no-untyped-def]  # numba infers its types
    for run in numba.prange(len(begin)):
        at = ptr[run]
        for edge in range(begin[run], end[run]):
            number = place[src[edge]]
            if number >= 0 and not gone[edge]:
                kept[at] = number
                at += 1
