"""Which edges one layer has to look at: those into all nodes, into some, or into a range of them.

A block is what a layer sees of the graph. The target rows of a block are numbered from 0; its
source rows are the graph's nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr
from clinical_drug_discovery.graph import KnowledgeGraph


@dataclass(frozen=True)
class Block:
    """The edges into M target rows."""

    rows: Tensor | slice  #: the graph's nodes that are targets: shape (M,), int64, or a range
    by_target: Csr  #: rows: the block's rows; entries: nodes of the graph
    by_source: Csr | None  #: the transpose, for the gradient; None: no backward pass
    inverse_degree: Tensor  #: shape (M,), float32: 1 / number of edges into the row, 0 for none

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.by_target.num_rows


def full_block(graph: KnowledgeGraph) -> Block:
    """All edges. The graph is its own transpose, so the same arrays serve both directions."""
    edges = Csr(graph.indptr, graph.src)
    return _block(slice(0, graph.num_nodes), edges, edges)


def range_block(graph: KnowledgeGraph, start: int, stop: int) -> Block:
    """The edges into nodes start:stop, for inference."""
    return _block(slice(start, stop), Csr(graph.indptr, graph.src).range(start, stop), None)


def row_block(graph: KnowledgeGraph, rows: Tensor, device: torch.device) -> Block:
    """The edges into the given nodes, for training on some rows of the last layer.

    Args:
        graph: on the CPU.
        rows: shape (M,), int64, distinct.
        device: where the block is to live.

    Returns:
        A block of M target rows, in the order of `rows`.
    """
    edges, picked = Csr(graph.indptr, graph.src), rows.numpy()
    by_target, by_source = edges.pick(picked), edges.keep(picked, graph.num_nodes)
    return _block(rows.to(device), by_target.to(device), by_source.to(device))


def own_rows(x: Tensor, rows: Tensor | slice) -> Tensor:
    """The target rows of x themselves, shape (M, C)."""
    if isinstance(rows, slice):
        return x[rows]
    return torch.nn.functional.embedding(rows, x)  # its gradient is summed in a fixed order


def _block(rows: Tensor | slice, by_target: Csr, by_source: Csr | None) -> Block:
    degree = by_target.indptr.diff()
    inverse_degree = torch.where(degree > 0, 1.0 / degree.clamp(min=1), 0.0)
    return Block(rows, by_target, by_source, inverse_degree)
