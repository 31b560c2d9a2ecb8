"""GraphSAGE with a learned vector per node.

Notation: N nodes, M target rows of a block, C and D the widths of a layer's input and output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..ops.backend import Backend
from ..ops.blocks import Block
from ..ops.buffers import empty, zeros
from ..ops.linear import linear_into, multiply, product_of, side_by_side
from ..ops.mean import (
    add_mean,
    add_mean_backward,
    empty_packed,
    inverse_degree,
    mean_backward_by_type,
    own_rows,
    packed,
)
from ..ops.norm import layer_norm, normalize, normalize_backward
from .initialisation import node_vectors, uniform


class GraphSage(nn.Module):
    """A stack of `SageLayer` over a learned vector per node.

    Hidden layers: h_l = h_{l-1} + norm(relu(layer(h_{l-1}))). Last layer: z = norm(layer(h)).
    `norm` is layer normalization without parameters. It replaces the L2 normalization of the paper
    (arXiv:1706.02216, Alg. 1, line 7), because it also removes the positive direction that ReLU
    leaves in all rows. Otherwise embeddings would collapse to this direction. The residual sum
    preserves each node's own vector. All embeddings have length sqrt(D).
    """

    def __init__(
        self,
        num_nodes: int,
        hidden_dim: int,
        embedding_dim: int,
        num_layers: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.node_embedding = node_vectors(num_nodes, hidden_dim, generator)
        dims = [hidden_dim] * (num_layers - 1) + [embedding_dim]
        self.layers = nn.ModuleList(SageLayer(hidden_dim, dim, generator) for dim in dims)
        self.stages = [(f"Layer {i}/{num_layers}", dim) for i, dim in enumerate(dims, start=1)]

    def forward(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: block of all nodes (`full_block`), for all layers except the last.
            target: block of the M rows to embed, for the last layer.
            vectors: shape (N, C), input vectors of the graph's nodes; None: `node_embedding`.

        Returns:
            shape (M, D). Kept for the backward pass: one (N, C) buffer per hidden layer.
        """
        x: Tensor = self.node_embedding if vectors is None else vectors
        *hidden_layers, last = self._layers()
        if hidden_layers:
            weights = [w for layer in hidden_layers for w in layer.parameters()]
            x = _HiddenLayers.apply(x, hidden, *weights)  # type: ignore[no-untyped-call]  # torch has no types for it
        mean, own = mean_and_own(x, target)
        del x  # free the last hidden layer's output before the embeddings are made
        return last.map(mean, own, target.backend, norm=True)

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> Tensor:
        """Return the rows that edges gather: x in the last layer, W_neighbor x in hidden layers."""
        if index == len(self.layers) - 1:
            return packed(x, backend)
        return _messages(x, self._layers()[index].weight_neighbor, backend)

    def apply_stage(self, index: int, x: Tensor, messages: Tensor, block: Block) -> Tensor:
        """Return the output of one layer for a block's target rows, shape (M, D)."""
        layer, own = self._layers()[index], own_rows(x, block.rows)
        mean = add_mean(messages, block, zeros(x, block.num_rows, x.shape[1]))
        weight_self, weight_neighbor, bias = layer.parameters()
        result = empty(x, block.num_rows, len(bias))
        for rows in block.chunks(slice(0, block.num_rows)):
            part = result[rows]
            if index == len(self.layers) - 1:
                inputs, weights = (mean[rows], own[rows]), (weight_neighbor, weight_self)
                product = product_of(inputs, weights, block.backend)
                normalize(product, bias, torch.empty_like(part), part, block.backend)
            else:
                product = product_of([own[rows]], [weight_self], block.backend)
                normalize(product, bias, mean[rows], part, block.backend, before=own[rows])
        return result

    def _layers(self) -> list[SageLayer]:
        return [cast(SageLayer, layer) for layer in self.layers]


class SageLayer(nn.Module):
    """x'_i = W_self x_i + W_neighbor mean_j(x_j) + b, with mean aggregator.

    "Inductive Representation Learning on Large Graphs" (arXiv:1706.02216), Alg. 1, lines 4 and 5,
    with the concatenation written as a sum of two maps.
    """

    def __init__(self, in_dim: int, out_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight_self = nn.Parameter(uniform((out_dim, in_dim), in_dim, generator))
        self.weight_neighbor = nn.Parameter(uniform((out_dim, in_dim), in_dim, generator))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Compute the block's target rows from all source rows.

        Args:
            x: shape (N, C).
            block: M target rows.

        Returns:
            shape (M, D). Kept for the backward pass: two (M, C) buffers.
        """
        return self.map(*mean_and_own(x, block), block.backend)

    def map(self, mean: Tensor, own: Tensor, backend: Backend, *, norm: bool = False) -> Tensor:
        """Map the two results of `mean_and_own`.

        Args:
            mean: shape (M, C).
            own: shape (M, C).
            backend: computes the products.
            norm: apply layer normalization to the result.

        Returns:
            shape (M, D). Kept for the backward pass: `mean` and `own`, and with `norm` the rows
            before it.
        """
        out: Tensor = _Map.apply(mean, own, backend, norm, *self.parameters())  # type: ignore[no-untyped-call]  # torch has no types for it
        return out


def mean_and_own(x: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Return what a layer maps: the mean of each target row's neighbors, and the row itself.

    Args:
        x: shape (N, C); it is not kept for the backward pass.
        block: M target rows.

    Returns:
        Two arrays of shape (M, C).
    """
    mean, own = _MeanAndOwn.apply(x, block)  # type: ignore[no-untyped-call]  # torch has no types for it
    return mean, own


class _MeanAndOwn(torch.autograd.Function):
    """`mean_and_own` with one (N, C) gradient buffer, shared by target rows and neighbors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        ctx.block = block
        mean = add_mean(packed(x, block.backend), block, zeros(x, block.num_rows, x.shape[1]))
        return mean, own_rows(x, block.rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_own: Tensor) -> tuple[Tensor, None]:
        block: Block = ctx.block
        grad_x = zeros(grad_own, block.graph.num_nodes, grad_own.shape[1])
        grad_x[block.rows] = grad_own
        add_mean_backward(grad_mean, block, grad_x)
        return grad_x, None


class _Map(torch.autograd.Function):
    """`SageLayer.map`, a few thousand rows at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        own: Tensor,
        backend: Backend,
        norm: bool,
        weight_self: Tensor,
        weight_neighbor: Tensor,
        bias: Tensor,
    ) -> Tensor:
        mapped = empty(mean, len(mean), len(bias))
        out = empty(mean, *mapped.shape) if norm else mapped
        weights = weight_neighbor, weight_self
        for rows in backend.row_chunks(0, len(mean)):
            product = product_of((mean[rows], own[rows]), weights, backend)
            if norm:
                normalize(product, bias, mapped[rows], out[rows], backend)
            else:
                torch.add(product, bias, out=out[rows])
        ctx.save_for_backward(mean, own, *weights)
        ctx.backend, ctx.mapped = backend, mapped if norm else None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mean, own, *weights = ctx.saved_tensors
        mapped, backend = ctx.mapped, ctx.backend
        del ctx.mapped  # overwritten below: a second backward pass must fail
        dtype, width = backend.product_dtype(grad.dtype), mean.shape[1]
        grad_mean, grad_own = empty(grad, *mean.shape), empty(grad, *own.shape)
        matrix = side_by_side(weights, dtype)  # (D, 2 C)
        grad_matrix, grad_bias = grad.new_zeros(matrix.shape), grad.new_zeros(grad.shape[1])
        for rows in backend.row_chunks(0, len(mean)):
            part = grad[rows]
            if mapped is None:
                packed = part.to(dtype)
            else:  # not in place: autograd may give the same gradient to another function
                packed = torch.empty_like(part, dtype=dtype, memory_format=torch.contiguous_format)
                part = mapped[rows]
                normalize_backward(grad[rows], part, packed, backend, relu=False)
            by_inputs = multiply(packed, matrix)
            grad_mean[rows], grad_own[rows] = by_inputs[:, :width], by_inputs[:, width:]
            grad_matrix += multiply(packed.t(), side_by_side((mean[rows], own[rows]), dtype))
            grad_bias += part.sum(dim=0)
        grad_neighbor, grad_self = grad_matrix.split(width, dim=1)
        return grad_mean, grad_own, None, None, grad_self, grad_neighbor, grad_bias


class _HiddenLayers(torch.autograd.Function):
    """All hidden layers of `GraphSage` for all nodes, in less memory than autograd takes.

    The forward pass keeps relu(layer(x)) of each layer, one (N, C) buffer each. The backward
    pass computes each layer's input again from these buffers, and overwrites each buffer with a
    gradient. It changes the incoming gradient in place, and needs half an (N, C) buffer more. Plain
    autograd takes seven (N, C) buffers per layer, 0.9 GB on PrimeKG.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block, *weights: Tensor) -> Tensor:
        ctx.block, ctx.kept, backend = block, [], block.backend
        before = x
        for weight_self, weight_neighbor, bias in _by_layer(weights):
            messages = _messages(before, weight_neighbor, backend)
            out = add_mean(messages, block, zeros(x, *x.shape))
            del messages
            result = empty(x, *x.shape) if before is x else before
            for rows in backend.row_chunks(0, len(x)):
                product = product_of([before[rows]], [weight_self], backend)
                normalize(product, bias, out[rows], result[rows], backend, before=before[rows])
            before = result
            ctx.kept.append(out)
        ctx.save_for_backward(x, *weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        kept, block, backend = ctx.kept, ctx.block, ctx.block.backend
        del ctx.kept  # overwritten below: a second backward pass must fail, not return wrong values
        grad = grad.contiguous()
        backend.trim_heap()  # of chunks of the last layer
        grads: list[Tensor] = []
        scale = inverse_degree(block, grad)
        for weight_self, weight_neighbor, bias in reversed(_by_layer(weights)):
            out = kept.pop()
            messages = empty_packed(out, len(out), out.shape[1], backend)
            grad_bias = torch.zeros_like(bias)
            for rows in backend.row_chunks(0, len(x)):
                part = out[rows]
                normalize_backward(
                    grad[rows], part, messages[rows], backend, relu=True, scale=scale[rows]
                )
                grad_bias += part.sum(dim=0)
            dtype = backend.product_dtype(grad.dtype)
            matrix = torch.cat([weight_self, weight_neighbor]).to(dtype)
            grad_matrix = grad.new_zeros(matrix.shape)
            for nodes, by_messages in mean_backward_by_type(messages, block, out):
                for rows in backend.row_chunks(0, len(by_messages)):
                    own = x[nodes][rows]
                    for h in kept:
                        own = own + layer_norm(h[nodes][rows])
                    both = side_by_side((out[nodes][rows], by_messages[rows]), dtype)
                    grad_matrix += multiply(both.t(), own.to(dtype))
                    grad[nodes][rows] += multiply(both, matrix)
            grads = [*grad_matrix.split(len(bias)), grad_bias, *grads]
            del out, part, messages
        return grad, None, *grads


def _messages(x: Tensor, weight: Tensor, backend: Backend) -> Tensor:
    """Map rows before the mean, so that the mean need not be kept for the map's gradient."""
    width = len(weight)
    messages = empty_packed(x, len(x), width, backend)
    linear_into(messages[:, :width], x, weight, None, backend)
    return messages


def _by_layer(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(weights[i], weights[i + 1], weights[i + 2]) for i in range(0, len(weights), 3)]
