"""The edges of a block, a chunk at a time, for operations in plain torch.

GPUs prepare many operations for each shape that they see, so chunks come in four sizes and the last
one is filled up. What decides how many chunks there are is known to the host: it never waits for
the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.chunks import filled_chunks
from clinical_drug_discovery.graph import KnowledgeGraph

EDGE_CHUNK = 1 << 15  # with 256 float32 columns a chunk of messages is 32 MiB


class EdgeChunk(NamedTuple):
    """S edges of one type."""

    row: Tensor  #: shape (S,), int64: among the rows of the target type that the block has
    source: Tensor  #: shape (S,), int64: among the nodes of the source type
    real: Tensor  #: shape (S,), bool: False for what fills up, which repeats the last edge


@dataclass(frozen=True)
class EdgeIndex:
    """Where a block's edges are: of each edge type, for each row of its target type, in order."""

    graph: KnowledgeGraph  #: on the device
    starts: Tensor  #: int64, ascending: the first place of each pair of edge type and row
    shift: Tensor | None  #: what is added to a pair's places to get edges; None: nothing
    first_pair: list[int]  #: of each edge type
    places: list[tuple[int, int]]  #: of each edge type, those of its edges

    def chunks(self, edge_type: int, chunk_size: int) -> Iterator[EdgeChunk]:
        """The edges of a type, at most `chunk_size` at a time."""
        first, end = self.places[edge_type]
        node = self.graph.bounds[self.graph.ends[edge_type][0]]
        for start, size in filled_chunks(first, end, chunk_size):
            place = torch.arange(start, start + size, device=self.graph.device)
            real = place < end
            place = place.clamp_(max=end - 1)
            pair = torch.bucketize(place, self.starts, right=True).sub_(1)
            edge = place if self.shift is None else place + self.shift[pair]
            source = self.graph.src[edge].long().sub_(node)
            yield EdgeChunk(pair.sub_(self.first_pair[edge_type]), source, real)


def index_edges(graph: KnowledgeGraph, rows: Tensor | slice, row_ptr: tuple[int, ...]) -> EdgeIndex:
    """Find a block's edges, on the host.

    Args:
        graph: on the device.
        rows: of the block, on the CPU.
        row_ptr: of the block.
    """
    indptr, pointers = graph.host.indptr.numpy(), graph.indptr_ptr
    pairs = []
    for r, (_, dst_type) in enumerate(graph.ends):
        first, last = row_ptr[dst_type], row_ptr[dst_type + 1]
        shift = pointers[r] - graph.bounds[dst_type]
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
        first_pair.tolist(),
        list(pairwise(starts[first_pair].tolist())),
    )
