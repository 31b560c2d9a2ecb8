"""Edges for the loss: sampled facts, and for each a negative of the right type that is no known fact.

All drawing is done on the host with numpy, so a seed gives the same batches on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph import IntArray, KnowledgeGraph

_ROUNDS = 16  # after this many collisions in a row a target has (nearly) no free node to offer


@dataclass(frozen=True)
class EdgeBatch:
    """B facts, each with one corrupted target; node columns index into `rows`."""

    rows: Tensor  #: shape (M,), int64: the distinct nodes of the batch, sorted
    src: Tensor  #: shape (B,), int64
    relation: Tensor  #: shape (B,), int64: index into the graph's `relations`
    dst: Tensor  #: shape (B,), int64
    negative: (
        Tensor  #: shape (B,), int64: same node type as dst, and (src, relation, negative) no fact
    )
    has_negative: Tensor  #: shape (B,), bool: False where no such node was found

    def to(self, device: torch.device) -> EdgeBatch:
        """The same batch on `device`."""
        return EdgeBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def sample_edges(graph: KnowledgeGraph, batch_size: int, rng: np.random.Generator) -> EdgeBatch:
    """Draw distinct edges uniformly, and for each a type-matched negative target.

    Every fact stands in both directions, so corrupting the target alone corrupts either end.

    Args:
        graph: on the CPU.
        batch_size: number of edges; all edges when the graph has fewer.
        rng: the source of randomness.

    Returns:
        The batch, on the CPU.
    """
    edges = rng.choice(graph.num_edges, min(batch_size, graph.num_edges), replace=False)
    src, dst = graph.src.numpy()[edges], graph.dst.numpy()[edges]
    edge_type = graph.edge_type.numpy()[edges]
    negative, has_negative = sample_negatives(graph, src, edge_type, dst, rng)
    rows, position = np.unique(np.concatenate([src, dst, negative]), return_inverse=True)
    at_src, at_dst, at_negative = torch.from_numpy(position).view(3, -1)
    return EdgeBatch(
        rows=torch.from_numpy(rows.astype(np.int64)),
        src=at_src,
        relation=graph.edge_type_relation[edge_type],
        dst=at_dst,
        negative=at_negative,
        has_negative=torch.from_numpy(has_negative),
    )


def sample_negatives(
    graph: KnowledgeGraph,
    src: IntArray,
    edge_type: IntArray,
    dst: IntArray,
    rng: np.random.Generator,
) -> tuple[IntArray, np.ndarray]:
    """Corrupt targets within their node type, redrawing whatever is a known fact or the source itself.

    Args:
        graph: on the CPU.
        src: shape (B,).
        edge_type: shape (B,).
        dst: shape (B,).
        rng: the source of randomness.

    Returns:
        Negative targets, shape (B,), and which of them are valid, shape (B,): a source that is linked
        to (nearly) every node of the type has none.
    """
    first, last = _type_range(graph, dst)
    negative = np.array(dst)
    open_ = np.ones(len(dst), bool)
    for _ in range(_ROUNDS):
        at = np.flatnonzero(open_)
        if not len(at):
            break
        drawn = rng.integers(first[at], last[at]).astype(negative.dtype)
        negative[at] = drawn
        open_[at] = (drawn == src[at]) | graph.has_edges(src[at], edge_type[at], drawn)
    return negative, ~open_


def _type_range(graph: KnowledgeGraph, nodes: IntArray) -> tuple[IntArray, IntArray]:
    kind = graph.node_type.numpy()[nodes]
    bounds = graph.type_ptr.numpy()
    return bounds[kind], bounds[kind + 1]
