"""Merge a few edges into the sorted edges of a graph, without sorting all of them again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..knowledge_graph import GraphArrays, IntArray, KnowledgeGraph

_BITS = 32  # of the source in a key; its target is above
_SOURCE = (1 << _BITS) - 1
Keys = npt.NDArray[np.int64]
Ends = tuple[IntArray, IntArray]  #: sources and targets


def merge_edges(
    graph: KnowledgeGraph, type_ptr: Keys, number: IntArray, added: Mapping[int, Ends]
) -> GraphArrays:
    """Return the arrays of a graph with more nodes and edges, as `build_graph` makes them.

    Old nodes keep their order, and new nodes end their type, so edges of types without new edges
    only get other numbers. This takes 0.1 s for 6 million edges, a twentieth of sorting them.

    Args:
        graph: without the new edges.
        type_ptr: shape (T + 1,), where the node types begin among all nodes, int64.
        number: shape (old nodes,), the number of each old node among all nodes, ascending.
        added: for an edge type of the graph, the sources and targets of new edges, as numbers among
            all nodes. Edges that the graph has, and repeated ones, change nothing.
    """
    renumbered = number.astype(np.int32)
    sources: list[npt.NDArray[np.int32]] = []
    pointers: list[Keys] = []
    edge_type_ptr = [0]
    for r, (_, dst_type) in enumerate(graph.endpoint_types):
        first, stop = type_ptr[dst_type : dst_type + 2].tolist()
        counts = np.zeros(stop - first, np.int64)
        before = np.diff(graph.pointers_of(r))
        counts[: len(before)] = before
        src = renumbered[graph.sources_of(r)]
        if r in added:
            keys = np.repeat(np.arange(len(before)), before) << _BITS | src
            keys, new = _merged(keys, _keys(*added[r], first))
            src = (keys & _SOURCE).astype(np.int32)
            counts += np.bincount(new >> _BITS, minlength=len(counts))
        sources.append(src)
        pointers.append(edge_type_ptr[-1] + np.concatenate([[0], np.cumsum(counts)]))
        edge_type_ptr.append(edge_type_ptr[-1] + len(src))
    return GraphArrays(
        node_type=np.repeat(np.arange(len(type_ptr) - 1, dtype=np.int32), np.diff(type_ptr)),
        src=np.concatenate(sources),
        indptr=np.concatenate(pointers),
        edge_type_ptr=np.array(edge_type_ptr),
        type_ptr=type_ptr,
    )


def _keys(src: IntArray, dst: IntArray, first: int) -> Keys:
    """Return a key for each distinct edge, sorted by target and source."""
    return np.unique((dst.astype(np.int64) - first) << _BITS | src)


def _merged(old: Keys, new: Keys) -> tuple[Keys, Keys]:
    """Return old and new keys in one order, and the new keys that are not old."""
    at = np.searchsorted(old, new)
    is_new = old[np.minimum(at, len(old) - 1)] != new
    return np.insert(old, at[is_new], new[is_new]), new[is_new]
