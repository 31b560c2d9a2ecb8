"""Blocks: the edges that one layer looks at, into all nodes, into some, or into a range of them.

The target rows of a block are numbered from 0 and ordered by node type. Its source rows are the
graph's nodes. No edge is copied: a block holds which nodes the rows are and, for the gradients, the
row of each node.

Notation: N nodes, M target rows, R edge types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from .backend import Backend
from .fixed_shapes import filled_size


@dataclass(frozen=True)
class Block:
    """The edges into M target rows."""

    graph: KnowledgeGraph  #: on the device of the backend
    backend: Backend
    rows: Tensor | slice  #: the nodes that are target rows: shape (M,), int64, or a range
    row_ptr: tuple[int, ...]  #: the rows of type t are row_ptr[t]:row_ptr[t + 1]
    row_of_node: Tensor | None  #: shape (N,), int32: a node's row or -1; None: no backward pass
    host_rows: Tensor | slice  #: `rows` on the CPU

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.row_ptr[-1]

    @property
    def typed_rows(self) -> list[tuple[int, slice]]:
        """The node types that have target rows, with these rows."""
        ends = enumerate(pairwise(self.row_ptr))
        return [(t, slice(start, stop)) for t, (start, stop) in ends if stop > start]

    def typed_chunks(self) -> Iterator[tuple[int, slice]]:
        """Yield each node type with its target rows, a few thousand at a time."""
        for node_type, rows in self.typed_rows:
            for chunk in self.backend.row_chunks(rows.start, rows.stop):
                yield node_type, chunk

    def rows_into(self, edge_type: int) -> slice:
        """Return the target rows of an edge type."""
        dst_type = self.graph.endpoint_types[edge_type][1]
        return slice(*self.row_ptr[dst_type : dst_type + 2])

    def nodes_of(self, node_type: int) -> Tensor:
        """Return the target rows' nodes of a type, numbered within it: shape (m,), ascending."""
        start, stop = self.row_ptr[node_type], self.row_ptr[node_type + 1]
        first = self.graph.type_offsets[node_type]
        if isinstance(self.rows, slice):
            begin = self.rows.start - first
            return torch.arange(begin + start, begin + stop, device=self.graph.device)
        return self.rows[start:stop] - first

    def rows_of_nodes(self) -> Tensor:
        """Return `row_of_node`.

        Raises:
            RuntimeError: the block has no backward pass.
        """
        if self.row_of_node is None:
            raise RuntimeError("a range_block has no backward pass: use it under torch.no_grad()")
        return self.row_of_node

    @cached_property
    def edges(self) -> EdgeIndex:
        """Where the edges are, for operations of the torch backend; made on first use."""
        return _index_edges(self.graph, self.host_rows, self.row_ptr)


def full_block(graph: KnowledgeGraph, backend: Backend) -> Block:
    """Return the block of all nodes.

    Args:
        graph: on the device of the backend.
        backend: computes with the block.
    """
    row_of_node = torch.arange(graph.num_nodes, dtype=torch.int32, device=graph.device)
    rows = slice(0, graph.num_nodes)
    return Block(graph, backend, rows, graph.type_offsets, row_of_node, rows)


def range_block(graph: KnowledgeGraph, start: int, stop: int, backend: Backend) -> Block:
    """Return the block of nodes start:stop, for inference."""
    row_ptr = tuple(min(max(end, start), stop) - start for end in graph.type_offsets)
    return Block(graph, backend, slice(start, stop), row_ptr, None, slice(start, stop))


def row_block(graph: KnowledgeGraph, rows: Tensor, backend: Backend) -> Block:
    """Return the block of some nodes, for the last layer in training.

    Args:
        graph: on the device of the backend.
        rows: shape (M,), int64, distinct and ascending.
        backend: computes with the block.
    """
    host_rows, rows = rows.cpu(), rows.to(graph.device)
    row_of_node = torch.full((graph.num_nodes,), -1, dtype=torch.int32, device=graph.device)
    row_of_node[rows] = torch.arange(len(rows), dtype=torch.int32, device=graph.device)
    row_ptr = tuple(torch.searchsorted(host_rows, graph.host.type_ptr).tolist())
    return Block(graph, backend, rows, row_ptr, row_of_node, host_rows)


class EdgeChunk(NamedTuple):
    """S edges of one type."""

    row: Tensor  #: shape (S,), int64: among the block's rows of the target type
    source: Tensor  #: shape (S,), int64: among the nodes of the source type
    real: Tensor | None  #: shape (S,), bool: False for filling, which repeats the last edge


@dataclass(frozen=True)
class EdgeIndex:
    """The places of a block's edges: of each edge type, for each row of its target type, in order.

    The host knows how many chunks there are, so it never waits for the device.
    """

    graph: KnowledgeGraph  #: on the device
    starts: Tensor  #: int64, ascending: the first place of each pair of edge type and row
    shift: Tensor | None  #: for each pair, edge - place; None: a place is an edge's number
    first_pair: list[int]  #: R indices into `starts`
    edge_ranges: list[tuple[int, int]]  #: of each edge type, the range of its edges' places

    def chunks(self, edge_type: int, chunk_size: int) -> Iterator[EdgeChunk]:
        """Yield the edges of a type, `chunk_size` at a time."""
        first_node = self.graph.type_offsets[self.graph.endpoint_types[edge_type][0]]
        first, end = self.edge_ranges[edge_type]
        for start in range(first, end, chunk_size):
            count = min(chunk_size, end - start)
            size = filled_size(count, chunk_size, self.graph.device)
            place = torch.arange(start, start + size, device=self.graph.device)
            real = None
            if size > count:
                real = place < end
                place.clamp_(max=end - 1)
            pair = torch.bucketize(place, self.starts, right=True).sub_(1)
            edge = place if self.shift is None else place.add_(self.shift[pair])
            source = self.graph.src[edge].long().sub_(first_node)
            yield EdgeChunk(pair.sub_(self.first_pair[edge_type]), source, real)


def _index_edges(
    graph: KnowledgeGraph, rows: Tensor | slice, row_ptr: tuple[int, ...]
) -> EdgeIndex:
    """Find a block's edges, on the host.

    Args:
        graph: on the device.
        rows: of the block, on the CPU.
        row_ptr: of the block.
    """
    indptr, pointers = graph.host.indptr.numpy(), graph.indptr_ptr
    pairs = []
    for r, (_, dst_type) in enumerate(graph.endpoint_types):
        first, last = row_ptr[dst_type], row_ptr[dst_type + 1]
        shift = pointers[r] - graph.type_offsets[dst_type]
        if isinstance(rows, slice):
            pairs.append(np.array([rows.start + first + shift, rows.start + last + shift]))
        else:
            pairs.append(rows[first:last].numpy() + shift)
    if isinstance(rows, slice):  # the edges of a range stand in the graph's own order
        edge_ranges = [
            (int(indptr[first]), int(indptr[last])) if first < last else (0, 0)
            for first, last in pairs
        ]
        return EdgeIndex(graph, graph.indptr, None, [int(first) for first, _ in pairs], edge_ranges)
    pair = np.concatenate(pairs)
    ends = np.cumsum(indptr[pair + 1] - indptr[pair])
    starts = np.concatenate([[0], ends])
    first_pair = np.cumsum([0, *map(len, pairs)])
    return EdgeIndex(
        graph,
        torch.from_numpy(starts[:-1]).to(graph.device),
        torch.from_numpy(indptr[pair] - starts[:-1]).to(graph.device),
        first_pair[:-1].tolist(),
        list(pairwise(starts[first_pair].tolist())),
    )
