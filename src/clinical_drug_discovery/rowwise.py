"""Functions of single rows, a chunk of rows of one node type at a time, forward and backward.

Notation: M rows ordered by node type, T node types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ROWS = 4096  # with 256 float32 columns 4 MiB: a few of them stay in the last cache


def by_type(
    function: Callable[..., Tensor],
    row_ptr: tuple[int, ...],
    rows: Sequence[Tensor],
    weights: Sequence[Tensor],
    dim: int,
) -> Tensor:
    """Apply a function to all rows, with weights of their node type.

    What lies between the arguments and the result exists for one chunk of rows at a time, in the
    backward pass as well, where it is computed again; kept, it would be several times the size of
    the rows.

    Args:
        function: takes, of each of `rows`, some rows of one type, shape (m, C), then that type's
            entry of each of `weights`; gives shape (m, dim). It must not depend on other rows.
        row_ptr: the rows of type t are row_ptr[t]:row_ptr[t + 1].
        rows: each of shape (M, C).
        weights: each of shape (T, ...).
        dim: of the result.

    Returns:
        shape (M, dim). Kept for the backward pass: `rows` and `weights`.
    """
    result: Tensor = _ByType.apply(function, row_ptr, dim, len(rows), *rows, *weights)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


class _ByType(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        row_ptr: tuple[int, ...],
        dim: int,
        num_rows: int,
        *tensors: Tensor,
    ) -> Tensor:
        rows, weights = tensors[:num_rows], tensors[num_rows:]
        out = rows[0].new_empty(row_ptr[-1], dim)
        for t, chunk in _chunks(row_ptr):
            out[chunk] = function(*(x[chunk] for x in rows), *(w[t] for w in weights))
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.row_ptr, ctx.num_rows = function, row_ptr, num_rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grads = [torch.empty_like(tensor) for tensor in tensors[: ctx.num_rows]]
        grads += [torch.zeros_like(tensor) for tensor in tensors[ctx.num_rows :]]
        for t, chunk in _chunks(ctx.row_ptr):
            places = [chunk] * ctx.num_rows + [t] * (len(tensors) - ctx.num_rows)
            given = [x[at].detach().requires_grad_() for x, at in zip(tensors, places, strict=True)]
            with torch.enable_grad():
                result = ctx.function(*given)
            parts = torch.autograd.grad(result, given, grad[chunk])
            for i, part in enumerate(parts):
                if i < ctx.num_rows:
                    grads[i][chunk] = part
                else:
                    grads[i][t] += part
        return None, None, None, None, *grads


def _chunks(row_ptr: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    for t, (first, last) in enumerate(pairwise(row_ptr)):
        for start in range(first, last, _CHUNK_ROWS):
            yield t, slice(start, min(start + _CHUNK_ROWS, last))
