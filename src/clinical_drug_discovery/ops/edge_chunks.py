"""The edges of a block, a chunk at a time, for operations in plain torch.

GPUs prepare many operations for each shape that they see, so chunks come in one size, and the last
one is filled up; in two sizes for a range of nodes, of which any type may have few edges. What
decides how many chunks there are is known to the host: it never waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph.chunks import filled_chunks, steady_size
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph

EDGE_CHUNK = 1 << 15  # with 256 float32 columns a chunk of messages is 32 MiB
_CHUNK_COST = 1 << 12  # what the launches of a chunk cost, in edges


class EdgeChunk(NamedTuple):
    """S edges."""

    row: Tensor  #: shape (S,), int64: among the rows that were asked for
    source: Tensor  #: shape (S,), int64: among the nodes that were asked for
    real: Tensor | None  #: shape (S,), bool: False for what fills up, which repeats the last edge


@dataclass(frozen=True)
class EdgeIndex:
    """Where a block's edges are: of each edge type, for each row of its target type, in order."""

    graph: KnowledgeGraph  #: on the device
    row_ptr: tuple[int, ...]  #: of the block
    starts: Tensor  #: int64, ascending: the first place of each pair of edge type and row
    shift: Tensor | None  #: what is added to a pair's places to get edges; None: nothing
    first_pair: list[int]  #: of each edge type
    places: list[tuple[int, int]]  #: of each edge type, those of its edges

    @cached_property
    def joined(self) -> bool:
        """Whether the edges of a type stand where those of the type before it end."""
        return all(end == start for (_, end), (start, _) in pairwise(self.places))

    def size(self, most: int) -> int:
        """How many edges to take at a time, at most so many: the same for all blocks of a graph."""
        return steady_size(self.graph.edge_type_counts.tolist(), most, _CHUNK_COST)

    def chunks(
        self, edge_types: range, chunk_size: int, first_row: int = 0, first_node: int = 0
    ) -> Iterator[EdgeChunk]:
        """The edges of some types, at most `chunk_size` at a time.

        Args:
            edge_types: not empty; several only if they are `joined`.
            chunk_size: edges at a time.
            first_row: from which rows of the block are numbered, if it is one type.
            first_node: from which nodes of the graph are numbered.
        """
        first, end = self.places[edge_types[0]][0], self.places[edge_types[-1]][1]
        dst_type = self.graph.endpoint_types[edge_types[0]][1]
        less = self.first_pair[edge_types[0]] - self.row_ptr[dst_type] + first_row
        sized: Iterable[tuple[int, int]] = filled_chunks(first, end, chunk_size)
        if self.joined:
            size = min(chunk_size, max(self.graph.num_edges, 1))
            sized = ((start, size) for start in range(first, end, size))
        for start, size in sized:
            place = torch.arange(start, start + size, device=self.graph.device)
            real = None
            if start + size > end:
                real = place < end
                place.clamp_(max=end - 1)
            pair = torch.bucketize(place, self.starts, right=True).sub_(1)
            edge = place if self.shift is None else place.add_(self.shift[pair])
            source = self.graph.src[edge].long()
            if first_node:
                source.sub_(first_node)
            if len(edge_types) == 1:
                row = pair.sub_(less)
            else:
                row = self._rows[pair.sub_(self.first_pair[0])]
            yield EdgeChunk(row, source, real)

    @cached_property
    def _rows(self) -> Tensor:
        """The block's row of each pair from its first one on, int64."""
        ends = [*self.first_pair[1:], len(self.starts)]
        rows = [
            np.arange(end - first) + self.row_ptr[dst_type]
            for first, end, (_, dst_type) in zip(
                self.first_pair, ends, self.graph.endpoint_types, strict=True
            )
        ]
        return torch.from_numpy(np.concatenate(rows)).to(self.graph.device)


def index_edges(graph: KnowledgeGraph, rows: Tensor | slice, row_ptr: tuple[int, ...]) -> EdgeIndex:
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
    if isinstance(rows, slice):  # whole ranges: the graph's own order does
        places = [
            (int(indptr[first]), int(indptr[last])) if first < last else (0, 0)
            for first, last in pairs
        ]
        return EdgeIndex(
            graph, row_ptr, graph.indptr, None, [int(first) for first, _ in pairs], places
        )
    pair = np.concatenate(pairs)
    ends = np.cumsum(indptr[pair + 1] - indptr[pair])
    starts = np.concatenate([[0], ends])
    first_pair = np.cumsum([0, *map(len, pairs)])
    return EdgeIndex(
        graph,
        row_ptr,
        torch.from_numpy(starts[:-1]).to(graph.device),
        torch.from_numpy(indptr[pair] - starts[:-1]).to(graph.device),
        first_pair[:-1].tolist(),
        list(pairwise(starts[first_pair].tolist())),
    )
