"""A part of the graph that a step of training sees in place of all of it.

Sampled by nodes with all edges among them, as "GraphSAINT: Graph Sampling Based Inductive Learning
Method" (arXiv:1907.04931) does: of neighbourhoods drawn for each node apart, three layers would
soon reach all nodes. All drawing is done on the host with numpy, so a seed gives the same parts on
every device.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from clinical_drug_discovery.graph.edge_kernels import kept_edges
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.system.errors import InputError


def induced_subgraph(graph: KnowledgeGraph, nodes: IntArray, hidden: IntArray) -> KnowledgeGraph:
    """Some nodes, with all edges among them but those that are hidden.

    Args:
        graph: on the CPU.
        nodes: shape (n,), distinct and ascending.
        hidden: shape (K,), numbers of edges to leave out; each with its mirror.

    Returns:
        A graph of n nodes of the same types and edge types, of which some may be empty.
    """
    place = np.full(graph.num_nodes, -1, np.int32)
    place[nodes] = np.arange(len(nodes), dtype=np.int32)
    gone = np.zeros(graph.num_edges, bool)
    gone[hidden] = True
    type_ptr = np.searchsorted(nodes, graph.bounds)
    runs = [
        nodes[type_ptr[dst] : type_ptr[dst + 1]] + (graph.indptr_ptr[r] - graph.bounds[dst])
        for r, (_, dst) in enumerate(graph.ends)
    ]
    first, indptr = np.cumsum([0, *map(len, runs)]), graph.indptr.numpy()
    run = np.concatenate(runs)
    src, ptr = kept_edges(indptr[run], indptr[run + 1], graph.src.numpy(), place, gone)
    return replace(
        graph,
        node_type=graph.node_type[torch.from_numpy(nodes)],
        src=torch.from_numpy(src),
        indptr=torch.from_numpy(
            np.concatenate([ptr[start : stop + 1] for start, stop in pairwise(first)])
        ),
        edge_type_ptr=torch.from_numpy(ptr[first]),
        type_ptr=torch.from_numpy(type_ptr),
        nodes=graph.nodes[nodes],
    )


class SubgraphSampler:
    """Draws nodes around those of a batch: as many of each node type, while batches allow it."""

    def __init__(self, graph: KnowledgeGraph, size: int, seed: int) -> None:
        """Prepare to draw.

        Args:
            graph: on the CPU.
            size: number of nodes to draw, those of a batch included.
            seed: of all drawing.
        """
        self._graph, self._size = graph, min(size, graph.num_nodes)
        self._rng = np.random.default_rng((seed, 3))
        self._sizes: IntArray | None = None  # of each node type; what the first batch leads to

    def sample(self, rows: IntArray) -> IntArray:
        """Draw neighbours of the nodes of a batch.

        Args:
            rows: shape (M,), distinct and ascending.

        Returns:
            The rows and others, shape (n,), distinct and ascending.

        Raises:
            InputError: the rows alone are more than the size.
        """
        bounds = self._graph.bounds
        near = np.setdiff1d(self._neighbors(rows), rows)
        near_ptr, row_ptr = np.searchsorted(near, bounds), np.searchsorted(rows, bounds)
        if len(rows) > self._size:
            raise InputError(
                f"subgraph_size (got {self._size:,}) must be at least the number of nodes of a "
                f"step's facts and candidates, {len(rows):,} here"
            )
        own_counts = np.diff(row_ptr)
        if self._sizes is None:
            self._sizes = self._share_out(own_counts, np.diff(near_ptr))
        rooms = np.maximum(self._sizes - own_counts, 0)
        while (over := int(rooms.sum()) + len(rows) - self._size) > 0:  # a type outgrows its share
            rooms[rooms.argmax()] -= min(over, int(rooms.max()))
        parts = [rows]
        for t, (first, last) in enumerate(pairwise(bounds)):
            own = rows[row_ptr[t] : row_ptr[t + 1]]
            room = int(rooms[t])
            found = near[near_ptr[t] : near_ptr[t + 1]]
            if len(found) > room:
                found = self._rng.choice(found, room, replace=False)
            elif len(found) < room:
                others = np.setdiff1d(np.arange(first, last), np.concatenate([own, found]))
                drawn = self._rng.choice(others, room - len(found), replace=False)
                found = np.concatenate([found, drawn])
            parts.append(found)
        return np.sort(np.concatenate(parts))

    def _neighbors(self, rows: IntArray) -> IntArray:
        """For each row and edge type one of its sources, drawn evenly."""
        graph, found = self._graph, []
        row_ptr, src = np.searchsorted(rows, graph.bounds), graph.src.numpy()
        for r, (_, dst) in enumerate(graph.ends):
            at = rows[row_ptr[dst] : row_ptr[dst + 1]] - graph.bounds[dst]
            indptr = graph.indptr_of(r).numpy()
            start, degree = indptr[at], indptr[at + 1] - indptr[at]
            start, degree = start[degree > 0], degree[degree > 0]
            found.append(src[start + (self._rng.random(len(start)) * degree).astype(np.int64)])
        return np.concatenate(found)

    def _share_out(self, own: IntArray, near: IntArray) -> IntArray:
        """How many nodes of each type to take: the batch's, and of the rest as many as are near."""
        most = np.diff(self._graph.bounds)
        lacking = self._size - int(own.sum())
        sizes: IntArray = np.minimum(own + lacking * near // max(int(near.sum()), 1), most)
        for t in np.argsort(sizes - most, kind="stable"):  # what rounding left over, and full types
            more = min(self._size - int(sizes.sum()), int(most[t] - sizes[t]))
            sizes[t] += more
        return sizes
