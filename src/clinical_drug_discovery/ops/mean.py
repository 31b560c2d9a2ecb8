"""Mean over neighbors (the aggregator of GraphSAGE), and selection of rows.

Notation: N nodes, M target rows of a block, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import reference
from .backend import Backend
from .blocks import Block
from .buffers import empty, zeros
from .cpu import neighbors as cpu_neighbors


def packed(x: Tensor, backend: Backend, scale: Tensor | None = None) -> Tensor:
    """Return a copy of x in the storage dtype, with padded columns, for edges to gather.

    Args:
        x: shape (N, C).
        backend: determines dtype and padding.
        scale: shape (N,), a factor for each row; None for ones.

    Returns:
        shape (N, padded C), in the storage dtype.
    """
    num_rows, width = x.shape
    result = empty_packed(x, num_rows, width, backend)
    for rows in backend.row_chunks(0, num_rows):
        part = x[rows] if scale is None else x[rows] * scale[rows, None]
        result[rows, :width] = part
    return result


def empty_packed(like: Tensor, num_rows: int, width: int, backend: Backend) -> Tensor:
    """Return rows like those of `packed`, of which only the padding is initialized."""
    shape = num_rows, backend.padded(width)
    result = empty(like, *shape, dtype=backend.storage_dtype(like.dtype))
    result[:, width:] = 0
    return result


def add_mean(messages: Tensor, block: Block, out: Tensor) -> Tensor:
    """Add to each target row of `out` the mean of the messages of its source nodes.

    This is the mean aggregator of "Inductive Representation Learning on Large Graphs"
    (arXiv:1706.02216), Alg. 1, line 4. A row without edges stays 0.

    Args:
        messages: shape (N, at least C), `packed` rows of the graph's nodes.
        block: M target rows.
        out: shape (M, C), zeros; changed in place.
    """
    block.backend.implementation(cpu_neighbors, reference).add_neighbors(
        messages, block, inverse_degree(block, out), out
    )
    return out


def mean_backward_by_type(
    messages: Tensor, block: Block, like: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the gradient of `add_mean` with respect to the messages, one node type at a time.

    One buffer for the largest type is enough; the gradient of all nodes would be as large as x.

    Args:
        messages: `packed` gradient with respect to the result, scaled by `inverse_degree`.
        block: M target rows.
        like: shape (M, C), has the columns and the dtype of the gradient.

    Yields:
        The range of a type's nodes, and the gradient with respect to the messages of these nodes,
        shape (n, C). The next type overwrites this gradient.
    """
    ranges = list(pairwise(block.graph.type_offsets))
    buffer = empty(like, max(last - first for first, last in ranges), like.shape[1])
    computing = block.backend.implementation(cpu_neighbors, reference)
    for node_type, (first, last) in enumerate(ranges):
        out = buffer[: last - first].zero_()
        computing.add_neighbors_backward(messages, block, node_type, out)
        yield slice(first, last), out


def add_mean_backward(grad: Tensor, block: Block, grad_messages: Tensor) -> None:
    """Add the gradient of `add_mean` with respect to the messages.

    Args:
        grad: shape (M, C), the gradient with respect to the result.
        block: M target rows.
        grad_messages: shape (N, C), changed in place.
    """
    messages = packed(grad, block.backend, inverse_degree(block, grad))
    computing = block.backend.implementation(cpu_neighbors, reference)
    for node_type, (first, last) in enumerate(pairwise(block.graph.type_offsets)):
        out = grad_messages[first:last]
        computing.add_neighbors_backward(messages, block, node_type, out)


def inverse_degree(block: Block, like: Tensor) -> Tensor:
    """Return 1 / number of edges into each target row, shape (M,)."""
    return block.graph.degree[block.rows].clamp(min=1).to(like.dtype).reciprocal()


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Return x[rows], where rows may repeat.

    On the CPU, the backward pass adds gradients in the order of `rows`, for any number of threads.

    Args:
        x: shape (N, C).
        rows: shape (K,), int64.

    Returns:
        shape (K, C).
    """
    gathered: Tensor = _Gathered.apply(x, rows)  # type: ignore[no-untyped-call]  # torch has no types for it
    return gathered


def own_rows(x: Tensor, rows: Tensor | slice) -> Tensor:
    """Return x[rows] for distinct rows, shape (M, C); x itself if `rows` is a slice of all rows."""
    if isinstance(rows, Tensor):
        return gather_rows(x, rows)
    # For a slice of all rows, autograd would clear and copy one more buffer.
    return x if rows.indices(len(x)) == (0, len(x), 1) else x[rows]


class _Gathered(torch.autograd.Function):
    """`gather_rows` with reused buffers. On the CPU, `index_add_` adds rows in order."""

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
