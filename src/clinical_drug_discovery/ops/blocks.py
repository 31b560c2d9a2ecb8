"""Blocks: the edges into the target nodes of one layer (all nodes, some nodes, or a range).

A target row is the position of a target node in the block. Target rows are ordered by node type.
Source nodes are numbered as in the graph. A block does not copy edges. It holds the node of each
target row and, for the backward pass, the target row of each node.

Notation: N nodes, M target rows, R edge types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from . import backend as backends
from .backend import Backend
from .fixed_shapes import filled_size

Degrees = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """The edges into M target rows."""

    graph: KnowledgeGraph  #: on the device of the backend
    backend: Backend
    rows: Tensor | slice  #: node of each target row: shape (M,), int64, or a range of nodes
    row_ptr: tuple[int, ...]  #: target rows of type t: row_ptr[t]:row_ptr[t + 1]
    row_of_node: Tensor | None  #: target row of each node or -1: (N,), int32; None in inference
    host_rows: Tensor | slice  #: `rows` on the CPU

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.row_ptr[-1]

    @property
    def typed_rows(self) -> list[tuple[int, slice]]:
        """Pairs of a node type and its range of target rows, for types that have target rows."""
        ends = enumerate(pairwise(self.row_ptr))
        return [(t, slice(start, stop)) for t, (start, stop) in ends if stop > start]

    def typed_chunks(self) -> Iterator[tuple[int, slice]]:
        """Yield pairs of a node type and a chunk of its target rows, from `chunks`."""
        for node_type, rows in self.typed_rows:
            for chunk in self.chunks(rows):
                yield node_type, chunk

    def chunks(self, rows: slice) -> Iterator[slice]:
        """Cut target rows into chunks whose rows are multiplied together.

        In inference, chunks end where the number of the node is a multiple of `BLOCK_ROWS`, so the
        rows of a product, and with them the bits of its result, do not depend on the block.
        """
        ends = [rows.stop]
        if self.row_of_node is None and isinstance(self.rows, slice):
            first, size = self.rows.start, backends.BLOCK_ROWS
            next_block = (first + rows.start) // size * size + size - first
            ends = [*range(next_block, rows.stop, size), rows.stop]
        for start, end in pairwise([rows.start, *ends]):
            yield from self.backend.row_chunks(start, end)

    def typical_degree(self, degree: Degrees, indptr: Degrees) -> Degrees:
        """Return the degrees that decide about the order of sums: in inference, of a whole type.

        Otherwise the order, and with it the bits of the sums, would depend on the block.

        Args:
            degree: number of edges of each target row.
            indptr: of all nodes of the target type.
        """
        return np.diff(indptr) if self.row_of_node is None else degree

    def rows_into(self, edge_type: int) -> slice:
        """Return the target rows of an edge type's target type."""
        dst_type = self.graph.endpoint_types[edge_type][1]
        return slice(*self.row_ptr[dst_type : dst_type + 2])

    def nodes_of(self, node_type: int) -> Tensor:
        """Return the target nodes of a type, numbered within the type: shape (m,), ascending."""
        start, stop = self.row_ptr[node_type], self.row_ptr[node_type + 1]
        first = self.graph.type_offsets[node_type]
        if isinstance(self.rows, slice):
            begin = self.rows.start - first
            return torch.arange(begin + start, begin + stop, device=self.graph.device)
        return self.rows[start:stop] - first

    def rows_of_nodes(self) -> Tensor:
        """Return `row_of_node`.

        Raises:
            RuntimeError: the block is a `range_block`, which is for inference only.
        """
        if self.row_of_node is None:
            raise RuntimeError("a range_block is for inference only: use it under torch.no_grad()")
        return self.row_of_node

    @cached_property
    def edges(self) -> EdgeIndex:
        """The index of the block's edges for the torch backend, made on first use."""
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

    row: Tensor  #: shape (S,), int64: target rows, counted from the first of their type
    source: Tensor  #: shape (S,), int64: source nodes, counted from the first of their type
    real: Tensor | None  #: shape (S,), bool: False for padding, which repeats the last edge


@dataclass(frozen=True)
class EdgeIndex:
    """The block's edges, ordered by edge type and target row. A place is a position in this order.

    The host can compute the number of chunks, so it never waits for the device.
    """

    graph: KnowledgeGraph  #: on the device
    starts: Tensor  #: int64, ascending: first place of each pair (edge type, target row)
    shift: Tensor | None  #: edge number - place, for each pair; None: they are equal
    first_pair: list[int]  #: first pair of each edge type, an index into `starts`
    edge_ranges: list[tuple[int, int]]  #: range of places of each edge type
    #: the edges of each edge type of a graph whose edges all fit into a chunk; others keep none
    kept: dict[int, list[EdgeChunk]] = field(default_factory=dict)

    def chunks(self, edge_type: int, chunk_size: int) -> Iterable[EdgeChunk]:
        """Return the edges of a type, `chunk_size` at a time.

        Those of a small graph are kept, for all layers and both passes: 16 bytes per edge.
        """
        if self.graph.num_edges > chunk_size:
            return self._chunks(edge_type, chunk_size)
        if edge_type not in self.kept:
            self.kept[edge_type] = list(self._chunks(edge_type, chunk_size))
        return self.kept[edge_type]

    def _chunks(self, edge_type: int, chunk_size: int) -> Iterator[EdgeChunk]:
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
    """Return the index of a block's edges, computed on the host.

    Args:
        graph: on the device.
        rows: `Block.host_rows`.
        row_ptr: `Block.row_ptr`.
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
    if isinstance(rows, slice):  # the edges of one type into a range of nodes are contiguous
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
