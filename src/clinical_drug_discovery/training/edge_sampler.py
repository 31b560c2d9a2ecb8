"""Edge sampling: the positives of a batch, and the candidates that their targets compete with.

All sampling runs on the host with numpy, so a seed gives the same batches on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..ops.fixed_shapes import FixedSizes, needs_fixed_shapes

#: Most candidates of a node type. With fewer, the models learn less.
NUM_CANDIDATES = 512
_PIECE_EDGES = 1 << 16


@dataclass(frozen=True)
class EdgeBatch:
    """B positives, sorted by the type of their target. Node columns are positions in `rows`."""

    rows: Tensor  #: shape (M,), int64: the distinct nodes of the batch, sorted
    edge: Tensor  #: shape (B,), int64: the positives' numbers among the graph's edges
    src: Tensor  #: shape (B,), int64
    relation: Tensor  #: shape (B,), int64: index into the graph's `relations`
    dst: Tensor  #: shape (B,), int64
    fact_ptr: tuple[int, ...]  #: positives with a target of type t are fact_ptr[t]:fact_ptr[t + 1]
    #: shape (T, K), int64: uniformly sampled nodes of each type. They repeat if the type has fewer
    #: than K nodes, and are arbitrary if no positive has a target of the type.
    candidates: Tensor
    #: shape (B, K), bool: True for candidates of the target's type that make a known fact, are the
    #: source, or are repeated
    excluded: Tensor

    def including(self, nodes: Tensor) -> EdgeBatch:
        """Return the same positives with more nodes (int64, any shape) among the rows."""
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


class EdgeSampler:
    """Samples batches of distinct edges, a fixed number of each edge type."""

    def __init__(self, graph: KnowledgeGraph, sizes: IntArray | Sequence[int], seed: int) -> None:
        """Prepare the sampling.

        Args:
            graph: on the CPU.
            sizes: number of edges to sample of each of the R edge types, at most all of them.
            seed: of all sampling.
        """
        self._graph, self._sizes = graph, sizes
        self._rng = np.random.default_rng(seed)
        # Edge types, sorted by the type of their targets.
        self._order = np.argsort([dst for _, dst in graph.endpoint_types], kind="stable")
        self._width = max(min(NUM_CANDIDATES, int(np.diff(graph.type_offsets).max())), 1)

    def sample(self) -> EdgeBatch:
        """Sample distinct edges, and candidates of each node type.

        Every fact is stored in both directions, so both of its ends occur as targets.

        Returns:
            The batch, on the CPU.
        """
        graph, sizes = self._graph, np.asarray(self._sizes)[self._order]
        edges, targets = [], []
        for r, size in zip(self._order.tolist(), sizes, strict=True):
            first = int(graph.edge_type_ptr[r])
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
        """Sample distinct nodes of a type: K, or all if there are fewer."""
        first, last = self._graph.type_offsets[node_type], self._graph.type_offsets[node_type + 1]
        size = min(self._width, last - first)
        return first + self._rng.choice(last - first, size, replace=False)

    def _excluded(
        self, src: IntArray, sizes: IntArray, drawn: list[IntArray]
    ) -> npt.NDArray[np.bool_]:
        """Return the mask of candidates that are not negatives, shape (B, K)."""
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
    """Return the mask of known facts between sources and nodes, shape (n, K).

    Args:
        graph: on the CPU.
        edge_type: of these facts.
        src: shape (n,).
        nodes: shape (K,), of the edge type's target type.
    """
    asked, asked_of = np.unique(src, return_inverse=True)
    indptr = graph.indptr_of(edge_type).numpy()
    local = nodes - graph.type_offsets[graph.endpoint_types[edge_type][1]]
    start, count = indptr[local], indptr[local + 1] - indptr[local]
    known = np.zeros((len(asked), len(nodes)), bool)
    # In pieces: the edges of all candidates at once would take more memory than the batch.
    pieces = np.cumsum(count) // _PIECE_EDGES
    for columns in np.split(np.arange(len(nodes)), np.flatnonzero(np.diff(pieces)) + 1):
        many = count[columns]
        column = np.repeat(columns, many)
        # The edges into the first node, then into the second, and so on.
        edge = np.arange(len(column)) + np.repeat(start[columns] - (np.cumsum(many) - many), many)
        sources = graph.src.numpy()[edge]
        row = np.minimum(np.searchsorted(asked, sources), len(asked) - 1)
        found = asked[row] == sources
        known[row[found], column[found]] = True
    return known[asked_of]


class RowPadding:
    """Pads the rows of batches on GPUs, so that each batch has the same number of each node type.

    The nodes that are added belong to no fact of the batch. They cost their embedding, a tenth more
    rows, and change no loss.
    """

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        """Start with no batch seen.

        Args:
            graph: on the CPU.
            device: where the batches go.
        """
        self._type_offsets = graph.type_offsets
        self._pads = needs_fixed_shapes(device)
        self._sizes = FixedSizes(np.diff(graph.type_offsets))

    def pad(self, batch: EdgeBatch) -> EdgeBatch:
        """Return the same facts with more rows; on the CPU the batch itself."""
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


def divide_equally(counts: IntArray, total: int) -> list[int]:
    """Split `total` equally among edge types, with at most all edges of each.

    With edges sampled uniformly, half of a batch of PrimeKG would be gene expression, and one edge
    in 400 an indication. With sizes in proportion to the square root of the counts, a model finds
    drugs for diseases a quarter less well.

    Args:
        counts: shape (R,), number of edges of each type.
        total: size of the batch.

    Returns:
        R sizes that add up to min(total, sum(counts)).
    """
    sizes = [0] * len(counts)
    left = min(total, int(counts.sum()))
    # Smallest type first: larger types take over the rest of its part.
    for rank, r in enumerate(np.argsort(counts, kind="stable").tolist()):
        sizes[r] = min(int(counts[r]), left // (len(counts) - rank))
        left -= sizes[r]
    return sizes
