"""Nearness of rows: exp((cosine - 1) / temperature) for all pairs of two sets of rows.

The losses that compare nodes of one type need only sums of this matrix and some of its entries.
Autograd would keep several copies of the matrix, and clear fresh memory for each: on PrimeKG that
took as long as the products.

Notation: K rows of D columns; n left rows, m right rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import has_bfloat16_products
from .buffers import empty, zeros
from .linear import same_bits

_ROWS = 128  # rows of the matrix per product: 1 MiB with 2,048 columns
_MULTIPLE = 256  # bfloat16 products have sizes of multiples of it, see `_in_halves`
_MANY = 1 << 20  # entries of a matrix whose gradient is computed in bfloat16
_MOST_SUMMED = 2048  # terms of a sum in bfloat16: it is the same with 2 to 32 threads
_EPS = 1e-12  # of `functional.normalize`


class Nearness(NamedTuple):
    """Sums and entries of the matrix E of shape (n, m)."""

    of_left: Tensor  #: shape (n,), sums of the rows
    of_right: Tensor  #: shape (m,), sums of the columns
    picked: Tensor  #: the entries that were asked for


def nearness(
    units: Tensor,
    left: slice,
    right: Tensor | slice,
    picked: Tensor,
    temperature: float,
    numbers: tuple[Tensor, Tensor] | None = None,
) -> Nearness:
    """Compute E[i, j] = exp((left_i . right_j - 1) / temperature), and return its sums.

    The logarithm of a sum of exp(cosine / temperature) is that of the sum here plus
    1 / temperature: no entry is too large, so a largest entry need not be subtracted first.

    On CPUs with products of bfloat16, the gradient of a large matrix is computed in bfloat16: four
    times as fast. The matrix itself is always computed in the dtype of `units`.

    Args:
        units: shape (K, D), from `unit`. Its gradient lacks parts along a row's own vector, which
            `unit` would remove.
        left: the n left rows.
        right: the m right rows: a range without left rows, or distinct left rows.
        picked: shape of any kind, int64: distinct places of entries, i m + j.
        temperature: divisor of the cosines.
        numbers: the nodes of the left and of the right rows, shape (n,) each, if row i of the left
            and row i of the right are a pair. Then entry (i, j) with i != j is 0 if the pairs i and
            j have the same left node or the same right node, or left node i is right node j.

    Returns:
        The sums of rows and columns, and the entries at `picked`.
    """
    found = _Nearness.apply(units, left, right, picked, temperature, numbers)  # type: ignore[no-untyped-call]  # torch has no types for it
    return Nearness(*found)


class _Nearness(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        left: slice,
        right: Tensor | slice,
        picked: Tensor,
        temperature: float,
        numbers: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = units[left], units[right]
        near = empty(units, len(rows), len(columns))
        for at in _chunks(len(rows)):
            part = near[at]
            with same_bits(len(part), len(columns)):
                torch.mm(rows[at], columns.t(), out=part)
            part.sub_(1).div_(temperature).exp_()
            if numbers is not None:
                part.mul_(_differ(*numbers, at))
        ctx.save_for_backward(units, picked)
        ctx.near, ctx.left, ctx.right, ctx.temperature = near, left, right, temperature
        return near.sum(dim=1), near.sum(dim=0), near.view(-1)[picked]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_left: Tensor, of_right: Tensor, of_picked: Tensor
    ) -> tuple[Tensor | None, ...]:
        units, picked = ctx.saved_tensors
        left, right = ctx.left, ctx.right
        weights = ctx.near
        del ctx.near  # overwritten below: a second backward pass must fail
        of_left, of_right, of_picked = (
            part / ctx.temperature for part in (of_left, of_right, of_picked)
        )
        # Entries first: their numbers are lost below.
        of_entries = weights.view(-1)[picked] * of_picked
        for at in _chunks(len(weights)):
            weights[at].mul_(of_left[at, None] + of_right)
        weights.view(-1)[picked] += of_entries
        if isinstance(right, Tensor):
            # The cosine of a row and itself does not change. Its weight is by far the largest, and
            # would leave only rounding errors after the projection in `unit`.
            weights[right - (left.start or 0), torch.arange(len(right), device=right.device)] = 0
        if _takes_halves(weights):
            totals = weights.sum(dim=1), weights.sum(dim=0)
            halves = _in_halves(weights)
            del weights  # its memory is that of the gradient
            grad = zeros(units, *units.shape)
            _add_in_halves(halves, totals, units, grad, left, right)
        else:
            grad = zeros(units, *units.shape)
            _add_products(weights, units, grad, left, right)
        return grad, None, None, None, None, None


def _differ(left: Tensor, right: Tensor, at: slice) -> Tensor:
    """Return a mask of the rows `at` of E: False where an entry is 0; see `nearness`."""
    a, b = left[at, None], right[at, None]
    same = (b == right) | (a == left) | (a == right)
    same.diagonal(at.start).fill_(False)
    return same.logical_not_()


def _takes_halves(weights: Tensor) -> bool:
    """Return whether the products with weights are computed in bfloat16."""
    many = weights.numel() >= _MANY and weights.dtype == torch.float32
    return many and weights.device.type == "cpu" and has_bfloat16_products()


def _add_products(
    weights: Tensor, units: Tensor, out: Tensor, left: slice, right: Tensor | slice
) -> None:
    """Add weights @ units[right] to out[left], and weights^T @ units[left] to out[right]."""
    rows, columns = units[left], units[right]
    with same_bits(len(rows)):
        out[left] += weights @ columns
    with same_bits(len(columns)):
        by_columns = weights.t() @ rows
    _add_rows(by_columns, out, right)


def _add_in_halves(
    weights: Tensor,
    totals: tuple[Tensor, Tensor],
    units: Tensor,
    out: Tensor,
    left: slice,
    right: Tensor | slice,
) -> None:
    """Do what `_add_products` does, with weights in bfloat16, given their sums in float32.

    The mean of the vectors is left out of the products and added with the sums. If all vectors are
    alike, the products nearly cancel, and the rounding of the mean would be the largest part.
    """
    rows, columns = units[left], units[right]
    of_rows, of_columns = rows.mean(dim=0), columns.mean(dim=0)
    to_left = out[left]
    to_left += (weights @ _in_halves(columns, of_columns))[: len(rows), : rows.shape[1]]
    to_left.addcmul_(totals[0][:, None], of_columns)
    by_columns = totals[1][:, None] * of_rows
    # A longer sum would be divided among threads, so its bits would depend on their number.
    for part, some in zip(weights.split(_MOST_SUMMED), rows.split(_MOST_SUMMED), strict=True):
        by_columns += (part.t() @ _in_halves(some, of_rows))[: len(columns), : rows.shape[1]]
    _add_rows(by_columns, out, right)


def _add_rows(rows: Tensor, out: Tensor, at: Tensor | slice) -> None:
    if isinstance(at, slice):
        out[at] += rows
    else:
        out.index_add_(0, at, rows)


def _in_halves(x: Tensor, center: Tensor | None = None) -> Tensor:
    """Return x in bfloat16, without a center, padded to multiples of `_MULTIPLE` with zeros.

    So few shapes occur: oneDNN keeps a compiled product for each.
    """
    num_rows, width = (-(-size // _MULTIPLE) * _MULTIPLE for size in x.shape)
    result = empty(x, num_rows, width, dtype=torch.bfloat16)
    inside = result[: len(x), : x.shape[1]]
    if center is None:
        inside.copy_(x)
    else:
        torch.sub(x, center, out=inside)
    result[len(x) :] = 0
    result[:, x.shape[1] :] = 0
    return result


def unit(x: Tensor, *, centered: bool = False) -> Tensor:
    """Return the rows with length 1, as `functional.normalize`.

    Args:
        x: shape (K, D).
        centered: subtract the mean of all rows first.
    """
    result: Tensor = _Unit.apply(x, centered)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


class _Unit(torch.autograd.Function):
    """`functional.normalize`, of which autograd would make five copies in the backward pass.

    For centered rows it would make five more, each in fresh memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centered: bool) -> Tensor:
        result, length = empty(x, *x.shape), x.new_empty(len(x), 1)
        mean = x.mean(dim=0) if centered else x.new_zeros(())
        for at in _chunks(len(x)):
            part = torch.sub(x[at], mean, out=result[at])
            length[at] = torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp_(min=_EPS)
            part.div_(length[at])
        ctx.save_for_backward(result, length)
        ctx.centered = centered
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        units, length = ctx.saved_tensors
        result = empty(grad, *grad.shape)
        for at in _chunks(len(grad)):
            own, by_rows = units[at], grad[at]
            along = (own * by_rows).sum(dim=1, keepdim=True)
            torch.addcmul(by_rows, own, along, value=-1, out=result[at]).div_(length[at])
        if ctx.centered:
            result -= result.mean(dim=0)
        return result, None


def _chunks(num_rows: int) -> Iterator[slice]:
    """Cut rows into chunks of `_ROWS`."""
    return (slice(start, min(start + _ROWS, num_rows)) for start in range(0, num_rows, _ROWS))
