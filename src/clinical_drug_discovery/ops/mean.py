"""Mean over neighbors, the aggregator of GraphSAGE, and the selection of rows.

Notation: N nodes, M target rows of a block, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
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
    """Return the rows of x in the layout that edges gather them in.

    Args:
        x: shape (N, C).
        backend: decides on dtype and padding.
        scale: shape (N,), factors of the rows; None for ones.

    Returns:
        shape (N, padded C), in the storage dtype.
    """
    num_rows, width = x.shape
    result = empty(x, num_rows, backend.padded(width), dtype=backend.storage_dtype(x.dtype))
    for rows in backend.row_chunks(0, num_rows):
        part = x[rows] if scale is None else x[rows] * scale[rows, None]
        result[rows, :width] = part
    result[:, width:] = 0
    return result


def add_mean(messages: Tensor, block: Block, out: Tensor) -> Tensor:
    """Add the mean of the messages of each target row's sources to `out`.

    The aggregator of "Inductive Representation Learning on Large Graphs" (arXiv:1706.02216), Alg.
    1, line 4, with a mean. A row without edges gets 0.

    Args:
        messages: shape (N, at least C), `packed` rows of the graph's nodes.
        block: M target rows.
        out: shape (M, C), zeros; changed in place.
    """
    _operations(block.backend).add_neighbors(messages, block, _inverse_degree(block, out), out)
    return out


def mean_backward_by_type(grad: Tensor, block: Block) -> Iterator[tuple[slice, Tensor]]:
    """Compute the gradient of `add_mean` by the messages, one node type after the other.

    The gradient of all nodes would be as large as x. This way it is as large as the largest type.

    Args:
        grad: shape (M, C), the gradient by the result.
        block: M target rows.

    Yields:
        The nodes of a type and the gradient by their messages, shape (n, C), in a buffer that the
        next type uses again.
    """
    graph, operations = block.graph, _operations(block.backend)
    messages = packed(grad, block.backend, _inverse_degree(block, grad))
    ranges = list(pairwise(graph.type_offsets))
    buffer = empty(grad, max(last - first for first, last in ranges), grad.shape[1])
    for node_type, (first, last) in enumerate(ranges):
        out = buffer[: last - first].zero_()
        operations.add_neighbors_backward(messages, block, node_type, out)
        yield slice(first, last), out


def _operations(backend: Backend) -> ModuleType:
    return cpu_neighbors if backend.kernels else reference


def _inverse_degree(block: Block, like: Tensor) -> Tensor:
    """Return 1 / number of edges into each target row, shape (M,)."""
    return block.graph.degree[block.rows].clamp(min=1).to(like.dtype).reciprocal()


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Select rows of x, with repetition.

    On the CPU the gradients of one row are summed in their order, whatever the number of threads.

    Args:
        x: shape (N, C).
        rows: shape (K,), int64.

    Returns:
        shape (K, C).
    """
    gathered: Tensor = _Gathered.apply(x, rows)  # type: ignore[no-untyped-call]  # torch has no types for it
    return gathered


def own_rows(x: Tensor, rows: Tensor | slice) -> Tensor:
    """Select the target rows of x, distinct ones, shape (M, C); x itself if they are all rows."""
    if isinstance(rows, Tensor):
        return gather_rows(x, rows)
    # A slice of all rows would have a gradient of its own: one more buffer to clear and copy.
    return x if rows.indices(len(x)) == (0, len(x), 1) else x[rows]


class _Gathered(torch.autograd.Function):
    """Row selection with reused buffers; on the CPU `index_add_` adds in order."""

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
