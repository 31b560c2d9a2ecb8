"""GraphSAGE with a learned vector per node.

Notation: N nodes, M target rows of a block, C and D the widths of a layer's input and output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.blocks import Block, own_rows
from clinical_drug_discovery.initial import uniform
from clinical_drug_discovery.ops import mean_neighbors, mean_neighbors_backward, mean_of_packed
from clinical_drug_discovery.ops.precision import (
    linear,
    linear_backward,
    linear_into,
    packed,
    padded,
    row_chunks,
    storage_dtype,
)

_NORM_EPS = 1e-5


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
            shape (M, D). Kept for the backward pass: x itself and two (M, C) buffers.
        """
        return self.combine(mean_neighbors(x, block), own_rows(x, block.rows))

    def combine(self, mean: Tensor, own: Tensor) -> Tensor:
        """The sum of the two maps, shape (M, D)."""
        return linear(mean, self.weight_neighbor, self.bias) + linear(own, self.weight_self)


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

    def forward(self, hidden: Block, target: Block) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: all nodes (`full_block`), for every layer but the last.
            target: the M rows that are wanted, for the last layer.

        Returns:
            shape (M, D). Kept for the backward pass: two (N, C) buffers per hidden layer.
        """
        x: Tensor = self.node_embedding
        for layer in self.layers[:-1]:
            x = _HiddenLayer.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
                x, layer.weight_self, layer.weight_neighbor, layer.bias, hidden
            )
        return _normed(self.layers[-1](x, target))

    def begin_stage(self, index: int, x: Tensor) -> Tensor:
        """What the blocks of a stage gather: x, mapped in a hidden layer, as kernels read it."""
        layer = self.layers[index]
        return packed(x) if index == len(self.layers) - 1 else _messages(x, layer.weight_neighbor)

    def apply_stage(self, index: int, x: Tensor, messages: Tensor, block: Block) -> Tensor:
        """Output of one layer for a block's target rows, shape (M, D)."""
        layer, own = self.layers[index], own_rows(x, block.rows)
        mean = mean_of_packed(messages, block, x.new_zeros(block.num_rows, x.shape[1]))
        if index == len(self.layers) - 1:
            return _normed(layer.combine(mean, own))
        mean += linear(own, layer.weight_self, layer.bias)
        return _normed(mean.relu_()) + own


def _messages(x: Tensor, weight: Tensor) -> Tensor:
    """Rows mapped before they are averaged: then no mean has to be kept for the map's gradient."""
    messages = x.new_zeros(len(x), padded(len(weight)), dtype=storage_dtype(x))
    linear_into(messages[:, : len(weight)], x, weight)
    return messages


def _normed(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[1:], eps=_NORM_EPS)


class _HiddenLayer(torch.autograd.Function):
    """`GraphSage.apply_stage` of a hidden layer for all nodes, in less memory than autograd takes.

    Kept are x and relu(layer(x)); the backward pass overwrites the latter with its gradient and
    adds two (N, C) buffers. Left to autograd, a layer takes five more of them, 0.7 GB on PrimeKG.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_self: Tensor,
        weight_neighbor: Tensor,
        bias: Tensor,
        block: Block,
    ) -> Tensor:
        out = torch.zeros_like(x)
        mean_of_packed(_messages(x, weight_neighbor), block, out)
        result = torch.empty_like(x)
        for rows in row_chunks(len(x)):
            part = out[rows]
            part += linear(x[rows], weight_self, bias)
            torch.add(_normed(part.relu_()), x[rows], out=result[rows])
        ctx.save_for_backward(x, weight_self, weight_neighbor)
        ctx.block, ctx.activation = block, out
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_self, weight_neighbor = ctx.saved_tensors
        out = ctx.activation
        del ctx.activation  # overwritten below: a second backward pass must fail, not mislead
        for rows in row_chunks(len(out)):
            part = out[rows]
            _, mean, scale = torch.native_layer_norm(part, part.shape[1:], None, None, _NORM_EPS)
            through_norm, _, _ = torch.ops.aten.native_layer_norm_backward(
                grad[rows], part, part.shape[1:], mean, scale, None, None, [True, False, False]
            )
            out[rows] = through_norm.masked_fill_(part == 0, 0)
        by_neighbor = mean_neighbors_backward(out, ctx.block)
        grads = [torch.zeros_like(w) for w in (weight_self, weight_neighbor)]
        grad_bias = out.sum(dim=0)
        grad_x = grad.clone()
        linear_backward(out, x, weight_self, grad_x, grads[0], None)
        linear_backward(by_neighbor, x, weight_neighbor, grad_x, grads[1], None)
        return grad_x, *grads, grad_bias, None
