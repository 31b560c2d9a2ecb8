"""The edges of a block, a chunk at a time, for operations of the torch backend.

The host knows how many chunks there are: it never waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ops.fixed_shapes import filled_size

EDGE_CHUNK = 1 << 15  # with 256 float32 columns a chunk of messages is 32 MiB


class EdgeChunk(NamedTuple):
    """S edges."""

    row: Tensor  #: shape (S,), int64: among the rows that were asked for
    source: Tensor  #: shape (S,), int64: among the nodes that were asked for
    real: Tensor | None  #: shape (S,), bool: False for what fills up, which repeats the last edge


@dataclass(frozen=True)
class EdgeIndex:
    """Where a block's edges are: of each edge type, for each row of its target type, in order."""

    graph: KnowledgeGraph  #: on the device
    starts: Tensor  #: int64, ascending: the first place of each pair of edge type and row
    shift: Tensor | None  #: what is added to a pair's places to get edges; None: nothing
    first_pair: list[int]  #: of each edge type
    places: list[tuple[int, int]]  #: of each edge type, those of its edges

    def chunks(self, edge_type: int, chunk_size: int) -> Iterator[EdgeChunk]:
        """Yield the edges of a type, `chunk_size` at a time.

        Rows are numbered within the block's rows of the target type, sources within their type.
        """
        first_node = self.graph.type_offsets[self.graph.endpoint_types[edge_type][0]]
        first, end = self.places[edge_type]
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
            source = self.graph.src[edge].long()
            row = pair.sub_(self.first_pair[edge_type])
            yield EdgeChunk(row, source.sub_(first_node), real)


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
        return EdgeIndex(graph, graph.indptr, None, [int(first) for first, _ in pairs], places)
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
