"""Edge sampling: the positives of a batch, and candidates that could replace their targets.

All sampling runs on the CPU with numpy, so a seed gives the same batches on every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..ops.backend import MIN_KERNEL_EDGES
from ..ops.fixed_shapes import FixedSizes, needs_fixed_shapes

#: largest number of candidates of each node type; with fewer candidates, the models learn less
NUM_CANDIDATES = 512
# Fewer positives on small graphs: one in four directed edges, or this many. With all edges of the
# sample graph, an epoch of GraphSAGE took half as long again. The mean MRR of held-out drugs over
# four seeds was 0.236 with all edges and 0.238 with these (HGT: 0.238 and 0.229); one seed differs
# from the next by 0.03 and more.
_EDGES_PER_POSITIVE, _ALWAYS_ALLOWED = 4, 1024
_PIECE_EDGES = 1 << 16  # number of edges that `_known` processes at a time


@dataclass(frozen=True)
class EdgeBatch:
    """B positives, sorted by the type of the target, and K candidates of each node type."""

    rows: Tensor  #: shape (M,), int64: the distinct nodes of the batch, ascending
    edge: Tensor  #: shape (B,), int64: edge number of each positive in the graph
    src: Tensor  #: shape (B,), int64: index into `rows` of each source
    relation: Tensor  #: shape (B,), int64: index into the graph's `relations`
    dst: Tensor  #: shape (B,), int64: index into `rows` of each target
    fact_ptr: tuple[int, ...]  #: positives with a target of type t are fact_ptr[t]:fact_ptr[t + 1]
    #: shape (T, K), int64: index into `rows` of uniformly sampled nodes of each type. Nodes repeat
    #: if a type has fewer than K nodes. Arbitrary for a type without targets in the batch.
    candidates: Tensor
    #: shape (B, K), bool: True where a candidate of the target's type is not a negative: it forms a
    #: known fact with the source, is the source, or is a repeated node
    excluded: Tensor

    def including(self, nodes: Tensor) -> EdgeBatch:
        """Return the same positives with additional `nodes` (int64, any shape) in `rows`."""
        rows = torch.cat([self.rows, nodes.flatten()]).unique()
        new_row = torch.searchsorted(rows, self.rows)
        return replace(
            self,
            rows=rows,
            src=new_row[self.src],
            dst=new_row[self.dst],
            candidates=new_row[self.candidates],
        )

    def to(self, device: torch.device) -> EdgeBatch:
        """Return the batch on `device`."""
        names = [f.name for f in fields(self) if f.name != "fact_ptr"]
        return EdgeBatch(
            fact_ptr=self.fact_ptr, **{name: getattr(self, name).to(device) for name in names}
        )


class RandomSampler:
    """A sampler of which only the random generator changes from sample to sample."""

    _seed: tuple[int, ...]
    _rng: np.random.Generator

    def begin(self, part: int) -> None:
        """Sample for a part of the training, whatever was sampled before.

        Args:
            part: number of the part, from 0.
        """
        self._rng = np.random.default_rng((*self._seed, part))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator, for a checkpoint."""
        return {"rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of a sampler that was made with the same arguments."""
        self._rng.bit_generator.state = state["rng"]


class EdgeSampler(RandomSampler):
    """Samples batches of distinct edges, a fixed number of each edge type."""

    def __init__(self, graph: KnowledgeGraph, sizes: IntArray | Sequence[int], seed: int) -> None:
        """Prepare the sampling.

        Args:
            graph: on the CPU.
            sizes: R numbers: the edges to sample from each edge type, at most all of its edges.
            seed: seed of the sampling.
        """
        self._graph, self._sizes = graph, sizes
        self._seed, self._rng = (seed, 0), np.random.default_rng(seed)
        # edge types, sorted by target type
        self._order = np.argsort([dst for _, dst in graph.endpoint_types], kind="stable")
        self._width = max(min(NUM_CANDIDATES, int(np.diff(graph.type_offsets).max())), 1)

    def sample(self) -> EdgeBatch:
        """Sample distinct edges, and candidates of each node type.

        The graph has each fact as two edges, one per direction. So both nodes of a fact can be the
        target of a positive.

        Returns:
            The batch, on the CPU.
        """
        graph, sizes = self._graph, np.asarray(self._sizes)[self._order]
        edges, targets = [], []
        for r, size in zip(self._order.tolist(), sizes, strict=True):
            first = int(graph.arrays.edge_type_ptr[r])
            count = int(graph.edge_type_counts[r])
            edges.append(first + self._rng.choice(count, size, replace=False))
            at = np.searchsorted(graph.indptr_of(r).numpy(), edges[-1], side="right") - 1
            targets.append(at + graph.type_offsets[graph.endpoint_types[r][1]])
        edge, dst = np.concatenate(edges), np.concatenate(targets)
        src = graph.src.numpy()[edge]
        num_types = len(graph.type_offsets) - 1
        counts = np.zeros(num_types, np.int64)
        np.add.at(counts, [graph.endpoint_types[r][1] for r in self._order], sizes)
        fact_ptr = tuple(np.cumsum([0, *counts]).tolist())
        drawn = [self._draw(t) if counts[t] else np.zeros(0, np.int64) for t in range(num_types)]
        excluded = self._excluded(src, sizes, drawn)
        candidates = np.full((num_types, self._width), src[0] if len(src) else 0)
        for row, nodes in zip(candidates, drawn, strict=True):
            if len(nodes):
                row[:] = np.resize(nodes, len(row))
        ends = [src, dst, candidates.ravel()]
        rows, place = np.unique(np.concatenate(ends), return_inverse=True)
        at_src, at_dst, at_candidates = np.split(place, np.cumsum([len(src), len(dst)]))
        edge_type = torch.from_numpy(np.repeat(self._order, sizes))
        return EdgeBatch(
            rows=torch.from_numpy(rows.astype(np.int64)),
            edge=torch.from_numpy(edge),
            src=torch.from_numpy(at_src),
            relation=graph.edge_type_relation[edge_type],
            dst=torch.from_numpy(at_dst),
            fact_ptr=fact_ptr,
            candidates=torch.from_numpy(at_candidates.reshape(candidates.shape)),
            excluded=torch.from_numpy(excluded),
        )

    def _draw(self, node_type: int) -> IntArray:
        """Sample K distinct nodes of a type, or return all nodes if the type has fewer than K."""
        first, last = self._graph.type_offsets[node_type], self._graph.type_offsets[node_type + 1]
        size = min(self._width, last - first)
        return first + self._rng.choice(last - first, size, replace=False)

    def _excluded(
        self, src: IntArray, sizes: IntArray, drawn: list[IntArray]
    ) -> npt.NDArray[np.bool_]:
        """Return a mask of shape (B, K): True for candidates that are not negatives."""
        excluded = np.ones((len(src), self._width), bool)
        ptr = np.cumsum([0, *sizes])
        for r, first, last in zip(self._order.tolist(), ptr[:-1], ptr[1:], strict=True):
            if first < last:
                nodes, sources = drawn[self._graph.endpoint_types[r][1]], src[first:last]
                own = excluded[first:last, : len(nodes)]
                np.equal(sources[:, None], nodes, out=own)
                own |= _known(self._graph, r, sources, nodes)
        return excluded


def _known(
    graph: KnowledgeGraph, edge_type: int, src: IntArray, nodes: IntArray
) -> npt.NDArray[np.bool_]:
    """Return a mask of shape (n, K): True where the graph has an edge from a source to a node.

    Args:
        graph: on the CPU.
        edge_type: number of the type of the edges.
        src: shape (n,), the sources.
        nodes: shape (K,), nodes of the target type of `edge_type`.
    """
    asked, asked_of = np.unique(src, return_inverse=True)
    indptr = graph.indptr_of(edge_type).numpy()
    local = nodes - graph.type_offsets[graph.endpoint_types[edge_type][1]]
    start, count = indptr[local], indptr[local + 1] - indptr[local]
    known = np.zeros((len(asked), len(nodes)), bool)
    # Process some edges at a time. All edges at once would take more memory than the batch.
    pieces = np.cumsum(count) // _PIECE_EDGES
    for columns in np.split(np.arange(len(nodes)), np.flatnonzero(np.diff(pieces)) + 1):
        many = count[columns]
        column = np.repeat(columns, many)
        # Numbers of all edges into the nodes of this piece, ordered by node.
        edge = np.arange(len(column)) + np.repeat(start[columns] - (np.cumsum(many) - many), many)
        sources = graph.src.numpy()[edge]
        row = np.minimum(np.searchsorted(asked, sources), len(asked) - 1)
        found = asked[row] == sources
        known[row[found], column[found]] = True
    return known[asked_of]


class RowPadding:
    """Adds nodes to batches on GPUs, so that each batch has the same number of nodes of each type.

    About a tenth more nodes is embedded. The added nodes do not change the loss.
    """

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        """Prepare the padding.

        Args:
            graph: on the CPU.
            device: device of the training.
        """
        self._type_offsets = graph.type_offsets
        self._pads = needs_fixed_shapes(device)
        self._sizes = FixedSizes(np.diff(graph.type_offsets))

    def pad(self, batch: EdgeBatch) -> EdgeBatch:
        """Return the batch with additional nodes in `rows`; on the CPU, return it unchanged."""
        if not self._pads:
            return batch
        rows, added = batch.rows.numpy(), []
        ptr = np.searchsorted(rows, self._type_offsets)
        sizes = self._sizes.fit(np.diff(ptr))
        for t, (first, last) in enumerate(pairwise(self._type_offsets)):
            own = rows[ptr[t] : ptr[t + 1]]
            free = np.setdiff1d(np.arange(first, last), own, assume_unique=True)
            added.append(free[: sizes[t] - len(own)])
        return batch.including(torch.from_numpy(np.concatenate(added)))


def enough_positives(asked: int, num_edges: int, parts: int) -> int:
    """Return the number of positives of an epoch in each part: those asked for, if not too many.

    Args:
        asked: positives in each part.
        num_edges: directed edges of the graph; with `MIN_KERNEL_EDGES` or more, nothing changes.
        parts: number of edge types that have positives of their own; 1: all types share them.
    """
    if num_edges >= MIN_KERNEL_EDGES:
        return asked
    most = max(num_edges // _EDGES_PER_POSITIVE, _ALWAYS_ALLOWED)
    return min(asked, -(-most // parts))


def divide_equally(counts: IntArray, total: int) -> list[int]:
    """Divide `total` positives equally among the edge types, up to the number of edges of each.

    If edges of PrimeKG were sampled uniformly, half of a batch would be gene expression, and one
    edge in 400 would be an indication. If sizes were proportional to the square root of `counts`,
    the ranking of drugs for diseases would be about a quarter worse.

    Args:
        counts: shape (R,), number of edges of each type.
        total: number of positives in a batch.

    Returns:
        R numbers of positives, which add up to min(total, sum(counts)).
    """
    sizes = [0] * len(counts)
    left = min(total, int(counts.sum()))
    # Small types first: larger types share the positives for which a small type lacks edges.
    for rank, r in enumerate(np.argsort(counts, kind="stable").tolist()):
        sizes[r] = min(int(counts[r]), left // (len(counts) - rank))
        left -= sizes[r]
    return sizes
