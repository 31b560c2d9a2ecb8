"""GraphSAGE with a learned vector per node.

Notation: N nodes, M target rows of a block, C and D the widths of a layer's input and output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.models.initialisation import uniform
from clinical_drug_discovery.models.layers import normed, normed_gradient
from clinical_drug_discovery.ops.backend import choosing_once, windows
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.buffers import empty, zeros
from clinical_drug_discovery.ops.mean import add_mean, mean_backward_by_type, own_rows
from clinical_drug_discovery.ops.precision import (
    linear,
    linear_backward,
    linear_into,
    packed,
    padded,
    storage_dtype,
)
from clinical_drug_discovery.ops.rowwise import by_type, differentiable


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
        rows = _MeanAndOwn.apply(x, block)  # type: ignore[no-untyped-call]  # torch has no types for it
        weights = [weight[None] for weight in self.parameters()]  # as of a single node type
        return by_type(_COMBINED, (0, block.num_rows), rows, weights, len(self.bias))


class GraphSage(nn.Module):
    """A stack of `SageLayer` over a learned vector per node, so that no two nodes look alike.

    Hidden layers: h_l = h_{l-1} + norm(relu(layer(h_{l-1}))). Last layer: z = norm(layer(h)).
    `norm` is layer normalisation without parameters, in place of the L2 normalisation of Alg. 1,
    line 7: it also removes the common positive direction that ReLU leaves, along which embeddings
    would collapse. The sum carries a node's own vector past the averages. All embeddings have
    length sqrt(D).
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
        self.node_embedding = nn.Parameter(torch.empty(num_nodes, hidden_dim))
        nn.init.normal_(self.node_embedding, generator=generator)
        dims = [hidden_dim] * (num_layers - 1) + [embedding_dim]
        self.layers = nn.ModuleList(SageLayer(hidden_dim, dim, generator) for dim in dims)
        self.stages = [(f"Layer {i}/{num_layers}", dim) for i, dim in enumerate(dims, start=1)]

    def forward(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: all nodes (`full_block`), for every layer but the last.
            target: the M rows that are wanted, for the last layer.
            vectors: shape (N, C), of the blocks' nodes; `node_embedding` if None.

        Returns:
            shape (M, D). Kept for the backward pass: one (N, C) buffer per hidden layer.
        """
        x: Tensor = self.node_embedding if vectors is None else vectors
        *hidden_layers, last = self._layers()
        if hidden_layers:
            weights = [w for layer in hidden_layers for w in layer.parameters()]
            x = _HiddenLayers.apply(x, hidden, *weights)  # type: ignore[no-untyped-call]  # torch has no types for it
        return by_type(_NORMED, (0, target.num_rows), (last(x, target),), (), last.bias.numel())

    def begin_stage(self, index: int, x: Tensor) -> Tensor:
        """What the blocks of a stage gather: x, mapped in a hidden layer, as kernels read it."""
        layer = self._layers()[index]
        return packed(x) if index == len(self.layers) - 1 else _messages(x, layer.weight_neighbor)

    def apply_stage(self, index: int, x: Tensor, messages: Tensor, block: Block) -> Tensor:
        """Output of one layer for a block's target rows, shape (M, D)."""
        layer, own = self._layers()[index], own_rows(x, block.rows)
        mean = add_mean(messages, block, zeros(x, block.num_rows, x.shape[1]))
        if index == len(self.layers) - 1:
            return normed(_combined(mean, own, *layer.parameters()))
        mean += linear(own, layer.weight_self, layer.bias)
        return normed(mean.relu_()) + own

    def _layers(self) -> list[SageLayer]:
        return [cast(SageLayer, layer) for layer in self.layers]


def _combined(
    mean: Tensor, own: Tensor, weight_self: Tensor, weight_neighbor: Tensor, bias: Tensor
) -> Tensor:
    return linear(mean, weight_neighbor, bias) + linear(own, weight_self)


def _messages(x: Tensor, weight: Tensor) -> Tensor:
    """Rows mapped before they are averaged: then no mean has to be kept for the map's gradient."""
    messages = zeros(x, len(x), padded(len(weight)), dtype=storage_dtype(x))
    linear_into(messages[:, : len(weight)], x, weight)
    return messages


@choosing_once
class _MeanAndOwn(torch.autograd.Function):
    """The mean of a block's source rows, and its target rows, with one (N, C) gradient for both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        ctx.block = block
        mean = add_mean(packed(x), block, zeros(x, block.num_rows, x.shape[1]))
        return mean, own_rows(x, block.rows).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mean: Tensor, by_own: Tensor) -> tuple[Tensor, None]:
        block: Block = ctx.block
        grad_x = zeros(by_own, block.graph.num_nodes, by_own.shape[1])
        grad_x[block.rows] = by_own
        for nodes, _, by_neighbor in mean_backward_by_type(by_mean, block):
            grad_x[nodes] += by_neighbor
        return grad_x, None


@choosing_once
class _HiddenLayers(torch.autograd.Function):
    """All hidden layers of `GraphSage` for all nodes, in less memory than autograd takes.

    Of each layer only relu(layer(x)) is kept, whose place its gradient takes in the backward pass;
    inputs are added up again from these. The result is the only other (N, C) buffer of the forward
    pass; the backward pass changes the incoming gradient in place and adds half of one. Left to
    autograd, a layer takes seven, 0.9 GB on PrimeKG.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block, *weights: Tensor) -> Tensor:
        ctx.block, ctx.kept = block, []
        result = empty(x, *x.shape).copy_(x)
        for weight_self, weight_neighbor, bias in _by_layer(weights):
            out = add_mean(_messages(result, weight_neighbor), block, zeros(x, *x.shape))
            for window in windows(x, 0, len(x)):
                part = out[window.rows]
                part += window.only(linear(result[window.rows], weight_self, bias))
                part.relu_()
                result[window.rows] += window.only(normed(part))
            ctx.kept.append(out)
        ctx.save_for_backward(x, *weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        kept, block = ctx.kept, ctx.block
        del ctx.kept  # overwritten below: a second backward pass must fail, not mislead
        grad = grad.contiguous()
        grads: list[Tensor] = []
        for weight_self, weight_neighbor, _ in reversed(_by_layer(weights)):
            out = kept.pop()
            for window in windows(x, 0, len(x)):
                part = out[window.rows]
                through_norm = normed_gradient(grad[window.rows], part)
                window.put(out, through_norm.masked_fill_(part == 0, 0))
            by_self, by_map = torch.zeros_like(weight_self), torch.zeros_like(weight_neighbor)
            for nodes, of_type, by_neighbor in mean_backward_by_type(out, block):
                for window in windows(by_neighbor, of_type.start, of_type.stop):
                    rows, by_own = window.rows, grad[nodes][window.rows]
                    own = x[nodes][rows] + sum(normed(h[nodes][rows]) for h in kept)
                    part = window.only(out[nodes][rows])
                    linear_backward(part, own, weight_self, by_own, by_self, None)
                    part = window.only(by_neighbor[rows])
                    linear_backward(part, own, weight_neighbor, by_own, by_map, None)
            grads = [by_self, by_map, out.sum(dim=0), *grads]
            del out, part
        return grad, None, *grads


def _by_layer(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(weights[i], weights[i + 1], weights[i + 2]) for i in range(0, len(weights), 3)]


_COMBINED, _NORMED = differentiable(_combined), differentiable(normed)
