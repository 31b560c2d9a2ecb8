"""All paths of one or two steps out of a node, each with its degree-damped weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import DAMPING
from clinical_drug_discovery.graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph

_KEPT = 3  # paths to each end: one or two may come by nodes of the other half


@dataclass(frozen=True)
class Half:
    """Paths out of one node, sorted by where they end, then the best first."""

    nodes: npt.NDArray[np.int64]  #: shape (P, steps + 1)
    weights: npt.NDArray[np.float64]  #: shape (P,)

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each path ends, ascending."""
        return self.nodes[:, -1]

    def best(self, ends: IntArray) -> npt.NDArray[np.float64]:
        """The weight of the best path to each of some nodes, all of which are ends."""
        return self.weights[np.searchsorted(self.ends, ends)]

    def to(self, end: int) -> list[tuple[tuple[int, ...], float]]:
        """The best few paths to a node, with their weights."""
        first, stop = np.searchsorted(self.ends, [end, end + 1])
        rows = slice(first, min(stop, first + _KEPT))
        return list(
            zip(map(tuple, self.nodes[rows].tolist()), self.weights[rows].tolist(), strict=True)
        )


class Steps:
    """Who is joined to whom by a graph's edges, read off its tensors without a copy."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._src, self._indptr = graph.src.numpy(), graph.indptr.numpy()
        self._number = {kind: r for r, kind in enumerate(graph.edge_types)}

    def half(self, start: int, chain: Sequence[EdgeType]) -> Half:
        """All paths out of a node along a metapath.

        Args:
            start: node number.
            chain: edge types, each starting where the one before ends.
        """
        nodes, weights = np.array([[start]]), np.ones(1)
        for kind in chain:
            first, degree = self._out(kind, nodes[:, -1])
            at = np.repeat(np.arange(len(nodes)), degree)
            offset = np.arange(len(at)) - np.repeat(np.cumsum(degree) - degree, degree)
            ends = self._src[first[at] + offset].astype(np.int64)
            back = EdgeType(kind.dst_type, kind.relation, kind.src_type)
            degrees = degree[at] * self._out(back, ends)[1].astype(np.float64)
            nodes = np.column_stack([nodes[at], ends])
            weights = weights[at] * degrees**-DAMPING
        order = np.lexsort((*nodes.T, -weights, nodes[:, -1]))
        return Half(nodes[order], weights[order])

    def _out(self, kind: EdgeType, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Where in the graph's sources the ends of nodes' edges of a type stand, and how many."""
        mirror = self._number[EdgeType(kind.dst_type, kind.relation, kind.src_type)]
        at = self._graph.indptr_ptr[mirror] + nodes
        at = at - self._graph.span(self._graph.ends[mirror][1])[0]
        return self._indptr[at], self._indptr[at + 1] - self._indptr[at]
