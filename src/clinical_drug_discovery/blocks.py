"""Which edges one layer has to look at: those into all nodes, into some, or into a range of them.

A block is what a layer sees of the graph. The target rows of a block are numbered from 0; its
source rows are the graph's nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph import KnowledgeGraph


@dataclass(frozen=True)
class Block:
    """The edges into M target rows, in CSR by target and, for the gradient, by source."""

    rows: (
        Tensor | slice
    )  #: the graph's nodes that are targets: shape (M,), int64, or a range of them
    indptr: Tensor  #: shape (M + 1,), int64
    indices: Tensor  #: shape (E,), int32: source node of each edge, by target row
    indptr_by_source: Tensor | None  #: shape (N + 1,), int64; None: the block has no backward pass
    indices_by_source: Tensor | None  #: shape (E,), int32: target row of each edge, by source node
    inverse_degree: Tensor  #: shape (M,), float32: 1 / number of edges into the row, 0 for none

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.indptr.numel() - 1


def full_block(graph: KnowledgeGraph) -> Block:
    """All edges. The graph is its own transpose, so the same arrays serve both directions."""
    return Block(
        rows=slice(0, graph.num_nodes),
        indptr=graph.indptr,
        indices=graph.src,
        indptr_by_source=graph.indptr,
        indices_by_source=graph.src,
        inverse_degree=_inverse_degree(graph.indptr),
    )


def range_block(graph: KnowledgeGraph, start: int, stop: int) -> Block:
    """The edges into nodes start:stop, for inference; only `indptr` is new memory."""
    first, last = int(graph.indptr[start]), int(graph.indptr[stop])
    indptr = graph.indptr[start : stop + 1] - first
    return Block(
        rows=slice(start, stop),
        indptr=indptr,
        indices=graph.src[first:last],
        indptr_by_source=None,
        indices_by_source=None,
        inverse_degree=_inverse_degree(indptr),
    )


def row_block(graph: KnowledgeGraph, rows: Tensor, device: torch.device) -> Block:
    """The edges into the given nodes, for training on some rows of the last layer.

    Built on the host from a graph on the CPU, 13 bytes per edge of the graph while it is built.

    Args:
        graph: on the CPU.
        rows: shape (M,), int64, distinct.
        device: where the block is to live.

    Returns:
        A block of M target rows, in the order of `rows`.
    """
    indptr, src = graph.indptr.numpy(), graph.src.numpy()
    picked = rows.numpy()
    start, degree = indptr[picked], indptr[picked + 1] - indptr[picked]
    ends = np.concatenate([[0], np.cumsum(degree)])
    edges = np.arange(ends[-1]) + np.repeat(start - ends[:-1], degree)
    # By source: of each node's edges those that lead to a picked row. An edge and its mirror stand
    # in the same CSR, so filtering the list of neighbours is all the transposing there is to do.
    position = np.full(graph.num_nodes, -1, np.int32)
    position[picked] = np.arange(len(picked), dtype=np.int32)
    target = position[src]
    leads = target >= 0
    before = np.concatenate([[0], np.cumsum(leads, dtype=np.int32)])
    block_indptr = torch.from_numpy(ends)
    return Block(
        rows=rows.to(device),
        indptr=block_indptr.to(device),
        indices=torch.from_numpy(src[edges]).to(device),
        indptr_by_source=torch.from_numpy(before[indptr].astype(np.int64)).to(device),
        indices_by_source=torch.from_numpy(target[leads]).to(device),
        inverse_degree=_inverse_degree(block_indptr).to(device),
    )


def _inverse_degree(indptr: Tensor) -> Tensor:
    degree = indptr.diff()
    return torch.where(degree > 0, 1.0 / degree.clamp(min=1), 0.0)
