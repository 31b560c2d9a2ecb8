"""Some rows of many, with a gradient that costs no more than it must."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.ops.buffers import empty, zeros


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
