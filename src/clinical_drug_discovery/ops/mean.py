"""Mean over neighbours: the aggregator of GraphSAGE.

Some rows of many, with a gradient that costs no more than it must.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import choosing_once, uses_kernels
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.buffers import empty, zeros
from clinical_drug_discovery.ops.cpu import neighbors as cpu
from clinical_drug_discovery.ops.precision import packed
from clinical_drug_discovery.system.errors import check_shape


class TypedGradient(NamedTuple):
    """A gradient by the rows of a node type."""

    nodes: slice  #: of the graph; on GPUs always as many, among them those of the type
    own: slice  #: which of these are of the type
    rows: Tensor  #: the gradient by all of these, shape (n, C), 0 for other types


def mean_neighbors(x: Tensor, block: Block) -> Tensor:
    """Mean of the source rows of each target row; 0 where a row has no edges.

    The aggregator of "Inductive Representation Learning on Large Graphs" (arXiv:1706.02216), Alg.
    1, line 4 with a mean. Nothing of the size of the edges is kept for the backward pass, which is
    the same sum over the mirrored edges.

    Args:
        x: shape (N, C), one row per node of the graph.
        block: M target rows.

    Returns:
        shape (M, C).
    """
    check_shape("x", x, block.graph.num_nodes, None)
    mean: Tensor = _MeanNeighbors.apply(x, block)  # type: ignore[no-untyped-call]  # torch has no types for it
    return mean


def add_mean(messages: Tensor, block: Block, out: Tensor) -> Tensor:
    """Add `mean_neighbors` of `precision.packed` rows to `out`: zeros, shape (M, C)."""
    share = _share(block, out.dtype)
    if uses_kernels(out.device):
        cpu.add_neighbors(messages, block, share, out)
    else:
        reference.add_neighbors(messages, block, out)
        out *= share[:, None]
    return out


def mean_backward_by_type(grad: Tensor, block: Block) -> Iterator[TypedGradient]:
    """Gradient of `mean_neighbors` by x, the nodes of one type after the other.

    Whole it would be of the size of x; this way it is of the size of the largest type.

    Args:
        grad: shape (M, C), by the result.
        block: M target rows.

    Yields:
        What belongs to each type; its rows are used again for the next.
    """
    graph = block.graph
    messages = packed(grad, _share(block, grad.dtype))
    buffer = empty(grad, graph.room, grad.shape[1])
    for node_type, (first, last) in enumerate(pairwise(graph.type_offsets)):
        if uses_kernels(grad.device):
            view, out = slice(first, last), buffer[: last - first].zero_()
            cpu.add_neighbors_backward(messages, block, block.places(), node_type, out)
        else:  # of one shape, as another shape costs another kernel
            view, out = graph.view_of(node_type), buffer.zero_()
            reference.add_neighbors_backward(
                messages, block, block.places(), node_type, out, first_node=view.start
            )
        yield TypedGradient(view, slice(first - view.start, last - view.start), out)


@choosing_once
class _MeanNeighbors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block) -> Tensor:
        ctx.block = block
        return add_mean(packed(x), block, zeros(x, block.num_rows, x.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        block: Block = ctx.block
        grad_x = empty(grad, block.graph.num_nodes, grad.shape[1])
        for nodes, own, by_neighbor in mean_backward_by_type(grad, block):
            grad_x[nodes][own] = by_neighbor[own]
        return grad_x, None


def _share(block: Block, dtype: torch.dtype) -> Tensor:
    """1 / number of edges into each row, shape (M,)."""
    return block.graph.degree[block.rows].clamp(min=1).to(dtype).reciprocal()


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x, with repetition; gradients of the same row are summed in their order on the CPU.

    Args:
        x: shape (N, C).
        rows: shape (K,), int64.

    Returns:
        shape (K, C).
    """
    if not uses_kernels(x.device):
        return functional.embedding(rows, x)
    gathered: Tensor = _Gathered.apply(x, rows)  # type: ignore[no-untyped-call]  # torch has no types for it
    return gathered


def own_rows(x: Tensor, rows: Tensor | slice) -> Tensor:
    """The target rows of x themselves, shape (M, C), distinct ones; x itself if all are meant."""
    if isinstance(rows, Tensor):
        return gather_rows(x, rows)
    # A slice of all would have a gradient of its own: one more buffer, cleared and copied.
    return x if rows.indices(len(x)) == (0, len(x), 1) else x[rows]


class _Gathered(torch.autograd.Function):
    """On the CPU: where `index_add_` adds in order, and buffers are used again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.num_rows = len(x)
        ctx.save_for_backward(rows)
        return torch.index_select(x, 0, rows, out=empty(x, len(rows), x.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return zeros(grad, ctx.num_rows, grad.shape[1]).index_add_(0, rows, grad), None
