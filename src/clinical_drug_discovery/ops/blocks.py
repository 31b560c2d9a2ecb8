"""Which edges one layer has to look at: those into all nodes, into some, or into a range of them.

A block is what a layer sees of the graph. Its target rows are numbered from 0 and ordered by node
type; its source rows are the graph's nodes. No edge is copied: a block of some rows says which
nodes they are, and for the gradient which row a node is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.edge_chunks import EdgeIndex, index_edges


@dataclass(frozen=True)
class Block:
    """The edges into M target rows."""

    graph: KnowledgeGraph  #: on the device of the backend
    backend: Backend
    rows: Tensor | slice  #: the graph's nodes that are targets: shape (M,), int64, or a range
    row_ptr: tuple[int, ...]  #: the rows of type t are row_ptr[t]:row_ptr[t + 1]
    place: Tensor | None  #: shape (N,), int32: a node's row, or -1; None: no backward pass
    host_rows: Tensor | slice  #: `rows` on the CPU

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.row_ptr[-1]

    @property
    def typed_rows(self) -> list[tuple[int, slice]]:
        """Node types with their target rows, where there are any."""
        ends = enumerate(pairwise(self.row_ptr))
        return [(t, slice(start, stop)) for t, (start, stop) in ends if stop > start]

    def typed_chunks(self) -> Iterator[tuple[int, slice]]:
        """Yield each node type with its target rows, some thousands at a time."""
        for node_type, rows in self.typed_rows:
            for chunk in self.backend.row_chunks(rows.start, rows.stop):
                yield node_type, chunk

    def nodes_of(self, node_type: int) -> Tensor:
        """The target rows of a node type, numbered within it: shape (m,), int64, ascending."""
        start, stop = self.row_ptr[node_type], self.row_ptr[node_type + 1]
        first = self.graph.type_offsets[node_type]
        if isinstance(self.rows, slice):
            begin = self.rows.start - first
            return torch.arange(begin + start, begin + stop, device=self.graph.device)
        return self.rows[start:stop] - first

    @cached_property
    def edges(self) -> EdgeIndex:
        """Where the edges are, for operations in plain torch; made on first use."""
        return index_edges(self.graph, self.host_rows, self.row_ptr)

    def places(self) -> Tensor:
        """`place`, or an error where there is no backward pass."""
        if self.place is None:
            raise RuntimeError("a range_block has no backward pass: use it under torch.no_grad()")
        return self.place


def full_block(graph: KnowledgeGraph, backend: Backend) -> Block:
    """All edges."""
    place = torch.arange(graph.num_nodes, dtype=torch.int32, device=graph.device)
    rows = slice(0, graph.num_nodes)
    return Block(graph, backend, rows, graph.type_offsets, place, rows)


def range_block(graph: KnowledgeGraph, start: int, stop: int, backend: Backend) -> Block:
    """The edges into nodes start:stop, for inference."""
    row_ptr = tuple(min(max(end, start), stop) - start for end in graph.type_offsets)
    return Block(graph, backend, slice(start, stop), row_ptr, None, slice(start, stop))


def row_block(graph: KnowledgeGraph, rows: Tensor, backend: Backend) -> Block:
    """The edges into the given nodes, for training on some rows of the last layer.

    Args:
        graph: on the device of the backend.
        rows: shape (M,), int64, distinct and ascending.
        backend: computes with the block.
    """
    host_rows, rows = rows.cpu(), rows.to(graph.device)
    place = torch.full((graph.num_nodes,), -1, dtype=torch.int32, device=graph.device)
    place[rows] = torch.arange(len(rows), dtype=torch.int32, device=graph.device)
    row_ptr = tuple(torch.searchsorted(host_rows, graph.host.type_ptr).tolist())
    return Block(graph, backend, rows, row_ptr, place, host_rows)
