"""Edges for the loss: sampled facts, each with a negative of the right type that is no fact.

All drawing is done on the host with numpy, so a seed gives the same batches on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.chunks import window_rows
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.ops.backend import uses_kernels

_ROUNDS = 16  # after so many collisions in a row a source has (nearly) no free node to offer


@dataclass(frozen=True)
class EdgeBatch:
    """B facts, each with one corrupted target; node columns index into `rows`."""

    rows: Tensor  #: shape (M,), int64: the distinct nodes of the batch, sorted
    src: Tensor  #: shape (B,), int64
    relation: Tensor  #: shape (B,), int64: index into the graph's `relations`
    dst: Tensor  #: shape (B,), int64
    negative: (
        Tensor  #: shape (B,), int64: of the node type of dst; (src, relation, negative) no fact
    )
    has_negative: Tensor  #: shape (B,), bool: False where no such node was found

    def including(self, nodes: Tensor) -> EdgeBatch:
        """The same facts with more nodes among the rows; shape of `nodes`: any, int64."""
        rows = torch.cat([self.rows, nodes.flatten()]).unique()
        place = torch.searchsorted(rows, self.rows)
        ends = {name: place[getattr(self, name)] for name in ("src", "dst", "negative")}
        return replace(self, rows=rows, **ends)

    def to(self, device: torch.device) -> EdgeBatch:
        """The same batch on `device`."""
        return EdgeBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class EdgeSampler:
    """Draws batches of distinct edges, a given number of each edge type."""

    def __init__(self, graph: KnowledgeGraph, sizes: IntArray | Sequence[int], seed: int) -> None:
        """Prepare to draw.

        Args:
            graph: on the CPU.
            sizes: R numbers of edges to draw, none above what the edge type has.
            seed: of all drawing.
        """
        self._graph, self._sizes = graph, sizes
        self._rng = np.random.default_rng(seed)

    def sample(self) -> EdgeBatch:
        """Draw distinct edges, and for each a type-matched negative target.

        Every fact stands in both directions, so corrupting the target alone corrupts either end.

        Returns:
            The batch, on the CPU.
        """
        graph = self._graph
        edge_type = np.repeat(np.arange(len(graph.edge_types)), self._sizes)
        edges, targets = [], []
        for r, size in enumerate(self._sizes):
            first = int(graph.edge_type_ptr[r])
            count = int(graph.edge_type_counts[r])
            edges.append(first + self._rng.choice(count, size, replace=False))
            at = np.searchsorted(graph.indptr_of(r).numpy(), edges[-1], side="right") - 1
            targets.append(at + graph.bounds[graph.ends[r][1]])
        src, dst = graph.src.numpy()[np.concatenate(edges)], np.concatenate(targets)
        negative, has_negative = sample_negatives(graph, src, edge_type, dst, self._rng)
        rows, position = np.unique(np.concatenate([src, dst, negative]), return_inverse=True)
        at_src, at_dst, at_negative = torch.from_numpy(position).view(3, -1)
        return EdgeBatch(
            rows=torch.from_numpy(rows.astype(np.int64)),
            src=at_src,
            relation=graph.edge_type_relation[torch.from_numpy(edge_type)],
            dst=at_dst,
            negative=at_negative,
            has_negative=torch.from_numpy(has_negative),
        )


class SteadyRows:
    """Fills the rows of batches up, so that there are as many of each node type in every batch.

    GPUs prepare many operations for each shape that they see. The nodes that are added are of no
    fact of the batch: they cost their embedding, a tenth more rows, or as many as one window takes,
    and change no loss. The CPU's kernels take any shape, so that nothing is added there.
    """

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        """Start with no batch seen.

        Args:
            graph: on the CPU.
            device: where the batches go.
        """
        self._bounds, self._wanted = graph.bounds, not uses_kernels(device)
        self._sizes = np.zeros(len(graph.bounds) - 1, np.int64)

    def fill(self, batch: EdgeBatch) -> EdgeBatch:
        """The same facts with more rows; if a type has more than ever, with room for later ones."""
        if not self._wanted:
            return batch
        rows = batch.rows.numpy()
        ptr = np.searchsorted(rows, self._bounds)
        added = []
        self._grow(np.diff(ptr))
        for t, (first, last) in enumerate(pairwise(self._bounds)):
            own = rows[ptr[t] : ptr[t + 1]]
            free = np.setdiff1d(np.arange(first, last), own, assume_unique=True)
            added.append(free[: self._sizes[t] - len(own)])
        return batch.including(torch.from_numpy(np.concatenate(added)))

    def _grow(self, counts: IntArray) -> None:
        """Make room for so many rows of each type, and for as many as windows have in all."""
        present = np.diff(self._bounds)
        room = counts + np.maximum(0.1 * counts, 4 * np.sqrt(counts))  # as many as any batch has
        room = (-(-room // 64) * 64).astype(np.int64)
        self._sizes = np.where(counts > self._sizes, np.minimum(room, present), self._sizes)
        for t in np.argsort(present - self._sizes)[::-1]:
            lacking = window_rows(self._bounds[-1]) - int(self._sizes.sum())
            self._sizes[t] += min(max(lacking, 0), int(present[t] - self._sizes[t]))


def share_out(counts: IntArray, total: int) -> list[int]:
    """Split `total` among edge types in proportion to sqrt(count), none above its count.

    Drawn evenly, half of a batch of PrimeKG would be gene expression and one edge in 400 an
    indication.

    Args:
        counts: shape (R,), how many edges there are of each type.
        total: how many to share out; all of them when there are fewer.

    Returns:
        R sizes that add up to min(total, sum(counts)).
    """
    sizes = [0] * len(counts)
    left = min(total, int(counts.sum()))
    weight = np.sqrt(counts)
    weight_left = weight.sum()
    # Smallest first: what a small group cannot take goes to the larger ones.
    for group in np.argsort(counts, kind="stable").tolist():
        fair = round(left * weight[group] / weight_left)
        sizes[group] = min(int(counts[group]), fair)
        left -= sizes[group]
        weight_left -= weight[group]
    sizes[group] += left  # what rounding left over; the largest group has room for it
    return sizes


def sample_negatives(
    graph: KnowledgeGraph,
    src: IntArray,
    edge_type: IntArray,
    dst: IntArray,
    rng: np.random.Generator,
) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Corrupt targets within their node type, redrawing known facts and the source itself.

    Args:
        graph: on the CPU.
        src: shape (B,).
        edge_type: shape (B,).
        dst: shape (B,).
        rng: the source of randomness.

    Returns:
        Negative targets, shape (B,), and which of them are valid, shape (B,): a source that is
        linked to (nearly) every node of the type has none.
    """
    kind = graph.node_type.numpy()[dst]
    bounds = graph.type_ptr.numpy()
    first, last = bounds[kind], bounds[kind + 1]
    negative = np.array(dst)
    pending = np.arange(len(dst))
    for _ in range(_ROUNDS):
        drawn = rng.integers(first[pending], last[pending]).astype(negative.dtype)
        negative[pending] = drawn
        known = graph.has_edges(src[pending], edge_type[pending], drawn)
        pending = pending[known | (drawn == src[pending])]
    valid = np.ones(len(dst), bool)
    valid[pending] = False
    return negative, valid
