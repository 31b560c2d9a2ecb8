"""Functions of single rows, a chunk of rows of one node type at a time, forward and backward.

What lies between the arguments and the result exists for one chunk of rows at a time, in the
backward pass as well, where it is computed again; kept, it would be several times the size of the
rows.

Notation: M rows ordered by node type, T node types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.ops.backend import Window, choosing_once, windows
from clinical_drug_discovery.ops.buffers import empty, zeros_like

TakesRows = Callable[[Window, Tensor], None]  #: is given some rows, to be kept where they are meant


@dataclass(frozen=True)
class RowFunction:
    """A function of some rows of one node type and of that type's weights, with its gradients.

    It takes rows of shape (m, C) each, then weights, and gives rows of shape (m, dim). It must not
    depend on other rows.
    """

    value: Callable[..., Tensor]
    #: Takes the gradient by the value, then all that the value takes; one gradient for each of it.
    gradients: Callable[..., tuple[Tensor, ...]]


def differentiable(value: Callable[..., Tensor]) -> RowFunction:
    """A function whose gradients are left to autograd, which computes it again."""

    def gradients(grad: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in given]
        with torch.enable_grad():
            result = value(*leaves)
        return torch.autograd.grad(result, leaves, grad)

    return RowFunction(value, gradients)


def by_type(
    function: RowFunction,
    row_ptr: tuple[int, ...],
    rows: Sequence[Tensor],
    weights: Sequence[Tensor],
    dim: int,
) -> Tensor:
    """Apply a function to all rows, with weights of their node type; differentiable.

    Args:
        function: of some rows of each of `rows` and the type's entry of each of `weights`.
        row_ptr: the rows of type t are row_ptr[t]:row_ptr[t + 1].
        rows: each of shape (M, C).
        weights: each of shape (T, ...).
        dim: of the result.

    Returns:
        shape (M, dim). Kept for the backward pass: `rows` and `weights`.
    """
    result: Tensor = _ByType.apply(function, row_ptr, dim, len(rows), *rows, *weights)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


def apply_by_type(
    value: Callable[..., Tensor],
    row_ptr: tuple[int, ...],
    rows: Sequence[Tensor],
    weights: Sequence[Tensor],
    out: Tensor,
) -> None:
    """Write the function of each row to `out`, which may be one of `rows`.

    Args:
        value: of a `RowFunction`.
        row_ptr: as in `by_type`.
        rows: as in `by_type`.
        weights: as in `by_type`.
        out: shape (M, dim).
    """
    for t, window in windows_by_type(out, row_ptr):
        given = [x[window.rows] for x in rows]
        window.put(out, value(*given, *(w[t] for w in weights)))


def backward_by_type(
    gradients: Callable[..., tuple[Tensor, ...]],
    row_ptr: tuple[int, ...],
    rows: Sequence[Tensor],
    weights: Sequence[Tensor],
    grad: Tensor,
    grad_rows: Sequence[TakesRows],
) -> list[Tensor]:
    """Gradients of `apply_by_type`.

    Args:
        gradients: of a `RowFunction`; of rows that nothing takes the gradient of it gives none.
        row_ptr: as in `apply_by_type`.
        rows: as in `apply_by_type`.
        weights: as in `apply_by_type`.
        grad: shape (M, dim), by the result.
        grad_rows: take the gradients by the first of `rows`, a window at a time; they may be
            written over `rows` or `grad`.

    Returns:
        The gradients by `weights`.
    """
    grads = zeros_like(weights) if weights else []
    for t, window in windows_by_type(grad, row_ptr):
        given = [x[window.rows].to(grad.dtype) for x in rows]
        given += [weight[t] for weight in weights]
        parts = gradients(window.only(grad[window.rows]), *given)
        for take, part in zip(grad_rows, parts[: len(grad_rows)], strict=True):
            take(window, part)
        for target, part in zip(grads, parts[len(grad_rows) :], strict=True):
            target[t].add_(part)
    return grads


def writing(target: Tensor) -> TakesRows:
    """Write what is taken to its place in target."""
    return partial(_write, target)


def _write(target: Tensor, window: Window, rows: Tensor) -> None:
    window.put(target, rows)


def windows_by_type(x: Tensor, row_ptr: tuple[int, ...]) -> Iterator[tuple[int, Window]]:
    """Each node type with the windows of its rows of x, in order."""
    for t, (first, last) in enumerate(pairwise(row_ptr)):
        for window in windows(x, first, last):
            yield t, window


@choosing_once
class _ByType(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: RowFunction,
        row_ptr: tuple[int, ...],
        dim: int,
        num_rows: int,
        *tensors: Tensor,
    ) -> Tensor:
        rows, weights = tensors[:num_rows], tensors[num_rows:]
        out = empty(rows[0], row_ptr[-1], dim)
        apply_by_type(function.value, row_ptr, rows, weights, out)
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.row_ptr, ctx.num_rows = function, row_ptr, num_rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights = ctx.saved_tensors[: ctx.num_rows], ctx.saved_tensors[ctx.num_rows :]
        grad_rows = [empty(x, *x.shape) for x in rows]
        takers = [writing(target) for target in grad_rows]
        gradients = ctx.function.gradients
        by_weights = backward_by_type(gradients, ctx.row_ptr, rows, weights, grad, takers)
        return None, None, None, None, *grad_rows, *by_weights
