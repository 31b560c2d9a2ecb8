"""GraphSAGE with a learned vector per node.

Notation: N nodes, M target rows of a block, C and D the widths of a layer's input and output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.blocks import Block
from clinical_drug_discovery.ops import mean_neighbors


class SageLayer(nn.Module):
    """x'_i = W_self x_i + W_neighbor mean_j(x_j) + b, with mean aggregator.

    "Inductive Representation Learning on Large Graphs" (arXiv:1706.02216), Alg. 1, lines 4 and 5,
    with the concatenation written as a sum of two maps.
    """

    def __init__(self, in_dim: int, out_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = (3.0 / in_dim) ** 0.5  # keeps the variance of each of the two terms
        self.weight_self = nn.Parameter(_uniform((out_dim, in_dim), bound, generator))
        self.weight_neighbor = nn.Parameter(_uniform((out_dim, in_dim), bound, generator))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Compute the block's target rows from all source rows.

        Args:
            x: shape (N, C).
            block: M target rows.

        Returns:
            shape (M, D). For the backward pass x itself is kept, and for M < N the (M, C) means.
        """
        if block.num_rows == x.shape[0]:
            # Mapped before it is averaged: then no mean has to be kept for the gradient of its map.
            mean = mean_neighbors(functional.linear(x, self.weight_neighbor), block)
            return mean.add_(self.bias).addmm_(own_rows(x, block), self.weight_self.t())
        mean = mean_neighbors(x, block)
        out = functional.linear(mean, self.weight_neighbor, self.bias)
        return out.addmm_(own_rows(x, block), self.weight_self.t())


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
        self.layer_dims = [hidden_dim] * (num_layers - 1) + [embedding_dim]
        self.layers = nn.ModuleList(
            SageLayer(hidden_dim, dim, generator) for dim in self.layer_dims
        )

    def forward(self, hidden: Block, target: Block) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: all nodes (`full_block`), for every layer but the last.
            target: the M rows that are wanted, for the last layer.

        Returns:
            shape (M, D). Kept for the backward pass: two (N, C) buffers per hidden layer.
        """
        x = self.input_features()
        for index in range(len(self.layers) - 1):
            x = self.apply_layer(index, x, hidden)
        return self.apply_layer(len(self.layers) - 1, x, target)

    def input_features(self) -> Tensor:
        """Input of the first layer, shape (N, C): the learned vectors."""
        return self.node_embedding

    def apply_layer(self, index: int, x: Tensor, block: Block) -> Tensor:
        """Output of one layer for a block's target rows, shape (M, D)."""
        out: Tensor = self.layers[index](x, block)
        if index == len(self.layers) - 1:
            return functional.layer_norm(out, out.shape[1:])
        # In place: neither the map's nor the norm's gradient needs what is overwritten.
        out = functional.layer_norm(out.relu_(), out.shape[1:])
        return out.add_(own_rows(x, block))


def own_rows(x: Tensor, block: Block) -> Tensor:
    """The target rows of x themselves, shape (M, C)."""
    if isinstance(block.rows, slice):
        return x[block.rows]
    return functional.embedding(block.rows, x)  # its gradient is summed in a fixed order


def _uniform(shape: tuple[int, int], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
