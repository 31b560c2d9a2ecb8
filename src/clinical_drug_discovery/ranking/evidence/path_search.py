"""Find paths in a graph from both ends, and join them at the nodes where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ...graph.adjacency import DAMPING
from ...graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph
from ..drug_similarity import Metapath

_KEPT = 3  # paths from each side to a meeting node that `join_paths` tries

Path = tuple[tuple[int, ...], float]  #: the nodes and the score of a path


@dataclass(frozen=True)
class PathsFromNode:
    """P paths from one node, sorted by last node, then by falling weight."""

    nodes: npt.NDArray[np.int64]  #: shape (P, steps + 1)
    weights: npt.NDArray[np.float64]  #: shape (P,)

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """The last node of each path, ascending; shape (P,)."""
        return self.nodes[:, -1]

    def best(self, ends: IntArray) -> npt.NDArray[np.float64]:
        """Return the weight of the best path to each of `ends`; a path must exist for each."""
        return self.weights[np.searchsorted(self.ends, ends)]

    def to(self, end: int) -> list[Path]:
        """Return the best `_KEPT` paths to a node, the best first."""
        first, stop = np.searchsorted(self.ends, [end, end + 1])
        rows = slice(first, min(stop, first + _KEPT))
        nodes = map(tuple, self.nodes[rows].tolist())
        return list(zip(nodes, self.weights[rows].tolist(), strict=True))


class PathSearch:
    """Find paths from a node in the edge arrays of a graph on the CPU."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._src, self._indptr = graph.arrays.src, graph.arrays.indptr
        self._number = {kind: r for r, kind in enumerate(graph.edge_types)}

    def paths_from(self, start: int, metapath: Metapath) -> PathsFromNode:
        """Return all paths from a node along a metapath."""
        nodes, weights = np.array([[start]]), np.ones(1)
        for kind in metapath:
            first, degree = self._edges_from(kind, nodes[:, -1])
            at = np.repeat(np.arange(len(nodes)), degree)
            offset = np.arange(len(at)) - np.repeat(np.cumsum(degree) - degree, degree)
            ends = self._src[first[at] + offset].astype(np.int64)
            _, degree_of_end = self._edges_from(kind.reverse, ends)
            nodes = np.column_stack([nodes[at], ends])
            weights = weights[at] * (degree[at] * degree_of_end.astype(np.float64)) ** -DAMPING
        order = np.lexsort((*nodes.T, -weights, nodes[:, -1]))
        return PathsFromNode(nodes[order], weights[order])

    def _edges_from(self, kind: EdgeType, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Return the position of each node's first edge of a type, and the number of such edges.

        A position is an index into `src`, which contains the other end of the edge.
        """
        r = self._number[kind.reverse]
        at = self._graph.indptr_ptr[r] + nodes
        at = at - self._graph.node_range(self._graph.endpoint_types[r][1])[0]
        return self._indptr[at], self._indptr[at + 1] - self._indptr[at]


def join_paths(start: PathsFromNode, end: PathsFromNode, most: int) -> list[Path]:
    """Join paths from both ends; return the best `most`, at most one for each meeting node.

    Paths that visit a node twice are left out.
    """
    common = np.intersect1d(start.ends, end.ends)
    if not len(common):
        return []
    bound = start.best(common) * end.best(common)
    found: list[Path] = []
    for i in np.lexsort((common, -bound)).tolist():
        if len(found) >= most and bound[i] < found[most - 1][1]:
            break
        paths = [
            ((*left, *reversed(right[:-1])), a * b)
            for (left, a), (right, b) in product(start.to(common[i]), end.to(common[i]))
        ]
        simple = [path for path in paths if len(set(path[0])) == len(path[0])]
        if simple:
            found.append(max(simple, key=lambda path: (path[1], path[0])))
            found.sort(key=lambda path: (-path[1], path[0]))
    return found[:most]
