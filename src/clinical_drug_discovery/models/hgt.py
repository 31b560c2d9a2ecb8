"""The Heterogeneous Graph Transformer with a learned vector per node.

Notation: N nodes, M target rows of a block, T node types, R edge types, C hidden channels in H
heads of d, D embedding dimensions.

What an HGT layer makes of what its nodes attended to, with gradients that compute little again.

x' = norm(sigmoid(skip) out(gelu(attention)) + (1 - sigmoid(skip)) x), see `hgt.HgtLayer`.

Notation: M rows ordered by node type, C channels in H heads of d, P = H times d padded to whole
vectors of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.models.initialisation import uniform
from clinical_drug_discovery.models.layers import (
    normed,
    normed_and_scale,
    normed_gradient,
    normed_gradient_of,
)
from clinical_drug_discovery.ops.attention import Parameters, attend, attend_backward, head_dots
from clinical_drug_discovery.ops.backend import Window, choosing_once
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.buffers import empty, zeros
from clinical_drug_discovery.ops.mean import own_rows
from clinical_drug_discovery.ops.precision import linear, linear_gradients, storage_dtype
from clinical_drug_discovery.ops.rowwise import (
    RowFunction,
    TakesRows,
    backward_by_type,
    by_type,
    windows_by_type,
    writing,
)


class TypedLinear(nn.Module):
    """The weights of a linear map of its own for each node type."""

    def __init__(
        self, num_types: int, in_dim: int, out_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform((num_types, out_dim, in_dim), in_dim, generator))
        self.bias = nn.Parameter(torch.zeros(num_types, out_dim))


class HgtLayer(nn.Module):
    """One layer of "Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 3 to 5.

    Attention as in `ops.heterogeneous_attention`, then per node type gelu, output map and a gated
    skip: x' = norm(sigmoid(skip) out(gelu(attention)) + (1 - sigmoid(skip)) x), with `norm` layer
    normalisation without parameters, which the paper does not have.
    """

    def __init__(
        self,
        num_types: int,
        num_edge_types: int,
        dim: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        head_dim = dim // num_heads
        heads = (num_edge_types, num_heads, head_dim, head_dim)
        self.kqv = TypedLinear(num_types, dim, 3 * dim, generator)
        self.attention = nn.Parameter(uniform(heads, head_dim, generator))
        self.message = nn.Parameter(uniform(heads, head_dim, generator))
        self.prior = nn.Parameter(torch.ones(num_edge_types, num_heads))
        self.out = TypedLinear(num_types, dim, dim, generator)
        self.skip = nn.Parameter(torch.ones(num_types))

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Compute the block's target rows from all source rows.

        Args:
            x: shape (N, C), the nodes in order of their types.
            block: M target rows.

        Returns:
            shape (M, C).
        """
        updated: Tensor = _Layer.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
            x, self.kqv.weight, self.kqv.bias, self.attention, self.message, self.prior,
            self.out.weight, self.out.bias, self.skip, block,
        )  # fmt: skip
        return updated


@choosing_once
class _Layer(torch.autograd.Function):
    """`HgtLayer` with attention and update in one, so that buffers are used again.

    Kept for the backward pass are x, what was attended to and the result, which whatever comes next
    keeps as well. The place of the incoming gradient is taken by the gradient by what was attended
    to and then by that of the queries: left to autograd, a layer of all nodes takes five more
    (N, C) buffers, 0.6 GiB on PrimeKG.
    So the gradient that arrives must belong to the layer alone: a caller that passes one to
    torch.autograd.grad, or uses the output twice, has to copy it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        *weights, block = given
        parameters = Parameters.padded(*weights[:5])
        attended, ctx.log_total = attend(x, parameters, block)
        own = own_rows(x, block.rows)
        out, ctx.scale = update(attended, own, weights[5:], block.row_ptr, parameters.dim)
        ctx.save_for_backward(x, *weights)
        # Of all nodes it waits for the backward passes of the layers above: as what is gathered.
        whole = isinstance(block.rows, slice)
        if whole and storage_dtype(x) != x.dtype:
            attended = empty(x, *attended.shape, dtype=storage_dtype(x)).copy_(attended)
        ctx.attended = attended
        ctx.block, ctx.out = block, out.detach()  # itself, it would keep its own context alive
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        parameters, block, attended = Parameters.padded(*weights[:5]), ctx.block, ctx.attended
        out = ctx.out
        # Overwritten below: a second backward pass must fail, not mislead.
        del ctx.attended, ctx.out
        fits = attended.shape == grad.shape and grad.is_contiguous()
        by_attended = grad if fits else empty(grad, *attended.shape)
        fits = fits and attended.dtype == grad.dtype
        by_own = attended if fits else empty(grad, *grad.shape)
        dotted = _Dotted(by_attended, attended, parameters.scale.shape[1])
        rows = attended, own_rows(x, block.rows), out, ctx.scale
        take = dotted, writing(by_own)
        by_update = update_backward(grad, rows, weights[5:], block.row_ptr, parameters.dim, take)
        del rows, attended, out, grad
        grad_x = by_own
        if not isinstance(block.rows, slice):
            grad_x = zeros(x, *x.shape)
            grad_x[block.rows] = by_own
        delta = dotted.dots
        del by_own, dotted, take
        grads = attend_backward(x, parameters, block, ctx.log_total, delta, by_attended, grad_x)
        return grad_x, *parameters.cut(grads), *by_update, None


class _Dotted:
    """Takes the gradients of some rows, and keeps their dot products with the rows."""

    def __init__(self, target: Tensor, rows: Tensor, num_heads: int) -> None:
        self._target, self._rows, self._num_heads = target, rows, num_heads
        self.dots = target.new_empty(len(rows), num_heads)

    def __call__(self, window: Window, grad: Tensor) -> None:
        window.put(self.dots, head_dots(self._rows[window.rows], grad, self._num_heads))
        window.put(self._target, grad)


class Hgt(nn.Module):
    """Input maps per node type, a stack of `HgtLayer`, and output maps per node type.

    Every node has a learned vector as input: with one input per type, attention would average equal
    vectors. The output map ends in layer normalisation without parameters, as each layer does: all
    embeddings have length sqrt(D). Kept for the backward pass of a hidden layer are
    its input and what was attended to, (N, C) each.
    """

    def __init__(
        self,
        type_ptr: tuple[int, ...],
        num_edge_types: int,
        hidden_dim: int,
        embedding_dim: int,
        num_layers: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        num_types = len(type_ptr) - 1
        self.node_embedding = nn.Parameter(torch.empty(type_ptr[-1], hidden_dim))
        nn.init.normal_(self.node_embedding, generator=generator)
        self.project = TypedLinear(num_types, hidden_dim, hidden_dim, generator)
        self.layers = nn.ModuleList(
            HgtLayer(num_types, num_edge_types, hidden_dim, num_heads, generator)
            for _ in range(num_layers)
        )
        self.out = TypedLinear(num_types, hidden_dim, embedding_dim, generator)
        self.stages = [
            ("Projecting each node type", hidden_dim),
            *((f"Layer {index}/{num_layers}", hidden_dim) for index in range(1, num_layers + 1)),
            ("Output projection", embedding_dim),
        ]

    def forward(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: all nodes, for every layer but the last.
            target: the M rows that are wanted, for the last layer.
            vectors: shape (N, C), of the blocks' nodes; `node_embedding` if None.

        Returns:
            shape (M, D).
        """
        x: Tensor = self.node_embedding if vectors is None else vectors
        for index in range(len(self.layers)):
            x = self.apply_stage(index, x, None, hidden)
        x = self.apply_stage(len(self.layers), x, None, target)
        return _map(_NORMED_LINEAR, x, self.out, target.row_ptr)

    def begin_stage(self, index: int, x: Tensor) -> None:
        """Nothing is made for all blocks of a stage: keys and values of all types would not fit."""

    def apply_stage(self, index: int, x: Tensor, begun: None, block: Block) -> Tensor:
        """Input maps, one of the layers, or output maps, for a block's target rows."""
        if index == 0:
            return _map(_LINEAR, own_rows(x, block.rows), self.project, block.row_ptr)
        if index > len(self.layers):
            return _map(_NORMED_LINEAR, own_rows(x, block.rows), self.out, block.row_ptr)
        updated: Tensor = self.layers[index - 1](x, block)
        return updated


def _map(function: RowFunction, x: Tensor, maps: TypedLinear, row_ptr: tuple[int, ...]) -> Tensor:
    return by_type(function, row_ptr, (x,), (maps.weight, maps.bias), maps.weight.shape[1])


def _normed_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return normed(linear(x, weight, bias))


def _normed_linear_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    return linear_gradients(normed_gradient(grad, linear(x, weight, bias)), x, weight, bias)


_LINEAR = RowFunction(linear, linear_gradients)
_NORMED_LINEAR = RowFunction(_normed_linear, _normed_linear_gradients)


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
