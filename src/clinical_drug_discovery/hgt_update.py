"""What an HGT layer makes of what its nodes attended to, with gradients that compute little again.

x' = norm(sigmoid(skip) out(gelu(attention)) + (1 - sigmoid(skip)) x), see `hgt.HgtLayer`.

Notation: M rows ordered by node type, C channels in H heads of d, P = H times d padded to whole
vectors of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.norm import normed_and_scale, normed_gradient_of
from clinical_drug_discovery.ops.buffers import empty
from clinical_drug_discovery.ops.precision import linear, linear_gradients
from clinical_drug_discovery.ops.rowwise import TakesRows, backward_by_type, windows_by_type


def update(
    attended: Tensor,
    own: Tensor,
    weights: Sequence[Tensor],
    row_ptr: tuple[int, ...],
    head_dim: int,
) -> tuple[Tensor, Tensor]:
    """Update all rows.

    Args:
        attended: shape (M, P).
        own: shape (M, C), the rows of x.
        weights: output map, its bias and skip of each node type, shapes (T, C, C), (T, C), (T,).
        row_ptr: the rows of type t are row_ptr[t]:row_ptr[t + 1].
        head_dim: d.

    Returns:
        The new rows, shape (M, C), and by what they were multiplied to normalise them, (M, 1).
    """
    out = empty(own, *own.shape)
    scale = own.new_empty(len(own), 1)
    for t, window in windows_by_type(out, row_ptr):
        weight, bias, skip = (w[t] for w in weights)
        active = functional.gelu(_cut(attended[window.rows], own.shape[1], head_dim))
        mixed = torch.lerp(own[window.rows], linear(active, weight, bias), skip.sigmoid())
        for target, rows in zip((out, scale), normed_and_scale(mixed), strict=True):
            window.put(target, rows)
    return out, scale


def update_backward(
    grad: Tensor,
    rows: tuple[Tensor, Tensor, Tensor, Tensor],
    weights: Sequence[Tensor],
    row_ptr: tuple[int, ...],
    head_dim: int,
    take: tuple[TakesRows, TakesRows],
) -> list[Tensor]:
    """Gradients of `update`. What was mapped follows from the result: no product is made again.

    Args:
        grad: shape (M, C), by the new rows.
        rows: attended, own, the new rows and their scale.
        weights: as in `update`.
        row_ptr: as in `update`.
        head_dim: as in `update`.
        take: take the gradients by attended, shape (M, P), and by own, a window at a time.

    Returns:
        The gradients by the weights.
    """

    def gradients(
        grad: Tensor, attended: Tensor, own: Tensor, out: Tensor, scale: Tensor,
        weight: Tensor, bias: Tensor, skip: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        width = attended.shape[1]
        attended = _cut(attended, own.shape[1], head_dim)
        share = skip.sigmoid()
        by_mixed = normed_gradient_of(grad, out, scale)
        # Of rows that are orthogonal to 1 the mean of the mixed rows is no matter:
        # by_mixed . (mapped - own) = by_mixed . (mixed - own) / share.
        apart = torch.div(out, scale).sub_(own)
        by_skip = by_mixed.flatten().dot(apart.flatten()) * (1 - share)
        by_mapped = by_mixed * share
        by_active, by_weight, by_bias = linear_gradients(
            by_mapped, functional.gelu(attended), weight, bias
        )
        by_attended = torch.ops.aten.gelu_backward(by_active, attended)
        by_own = by_mixed.sub_(by_mapped)
        return _pad(by_attended, width, head_dim), by_own, by_weight, by_bias, by_skip

    return backward_by_type(gradients, row_ptr, rows, weights, grad, take)


def _cut(rows: Tensor, dim: int, head_dim: int) -> Tensor:
    """The channels of padded heads that are none of the padding, shape (m, C)."""
    if rows.shape[1] == dim:
        return rows
    heads: Tensor = rows.unflatten(1, (dim // head_dim, -1))
    return heads[..., :head_dim].flatten(1)


def _pad(rows: Tensor, width: int, head_dim: int) -> Tensor:
    """The reverse of `_cut`, with zeros, shape (m, P)."""
    if rows.shape[1] == width:
        return rows
    heads = rows.unflatten(1, (-1, head_dim))
    return functional.pad(heads, (0, width // heads.shape[1] - head_dim)).flatten(1)
