"""The Heterogeneous Graph Transformer with a learned vector per node.

Notation: N nodes, M target rows of a block, T node types, R edge types, C hidden channels in H
heads of d, D embedding dimensions.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clinical_drug_discovery.blocks import own_rows
from clinical_drug_discovery.ops import heterogeneous_attention
from clinical_drug_discovery.typed_blocks import TypedBlock

_NORM_EPS = 1e-5


class TypedLinear(nn.Module):
    """A linear map of its own for each node type."""

    def __init__(
        self, num_types: int, in_dim: int, out_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform((num_types, out_dim, in_dim), in_dim, generator))
        self.bias = nn.Parameter(torch.zeros(num_types, out_dim))

    def forward(self, x: Tensor, row_ptr: tuple[int, ...]) -> Tensor:
        """Map rows that are ordered by type.

        Args:
            x: shape (M, in_dim).
            row_ptr: the rows of type t are row_ptr[t]:row_ptr[t + 1].

        Returns:
            shape (M, out_dim).
        """
        sizes = [stop - start for start, stop in pairwise(row_ptr)]
        # split and not slices: the gradient of a slice is a zero tensor as large as all of x.
        parts = zip(x.split(sizes), self.weight, self.bias, strict=True)
        return torch.cat([functional.linear(part, weight, bias) for part, weight, bias in parts])


class HgtLayer(nn.Module):
    """One layer of "Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 3 to 5.

    Attention as in `ops.heterogeneous_attention`, then per node type gelu, output map and a gated
    skip: x' = sigmoid(skip) out(gelu(attention)) + (1 - sigmoid(skip)) x.
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
        self.attention = nn.Parameter(_uniform(heads, head_dim, generator))
        self.message = nn.Parameter(_uniform(heads, head_dim, generator))
        self.prior = nn.Parameter(torch.ones(num_edge_types, num_heads))
        self.out = TypedLinear(num_types, dim, dim, generator)
        self.skip = nn.Parameter(torch.ones(num_types))

    def forward(self, x: Tensor, block: TypedBlock) -> Tensor:
        """Compute the block's target rows from all source rows.

        Args:
            x: shape (N, C), the nodes in order of their types.
            block: M target rows.

        Returns:
            shape (M, C). Kept for the backward pass: x, the attention's result, and for M < N the
            target rows of x; the rest, (M, C) each, is computed again.
        """
        attended = heterogeneous_attention(
            x, self.kqv.weight, self.kqv.bias, self.attention, self.message, self.prior, block
        )
        own = own_rows(x, block.rows)
        updated: Tensor = checkpoint(
            self._update,
            attended,
            own,
            block.row_ptr,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return updated

    def _update(self, attended: Tensor, own: Tensor, row_ptr: tuple[int, ...]) -> Tensor:
        mapped = self.out(functional.gelu(attended), row_ptr)
        sizes = [stop - start for start, stop in pairwise(row_ptr)]
        parts = zip(self.skip.sigmoid(), mapped.split(sizes), own.split(sizes), strict=True)
        return torch.cat([torch.lerp(before, after, gate) for gate, after, before in parts])


class Hgt(nn.Module):
    """Input maps per node type, a stack of `HgtLayer`, and output maps per node type.

    Every node has a learned vector as input: with one input per type, attention would average equal
    vectors. After each layer comes layer normalisation without parameters, and after the output map
    as well: all embeddings have length sqrt(D).
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
        self.type_ptr = type_ptr
        self.node_embedding = nn.Parameter(torch.empty(type_ptr[-1], hidden_dim))
        nn.init.normal_(self.node_embedding, generator=generator)
        self.layer_dims = [hidden_dim] * (num_layers - 1) + [embedding_dim]
        self.project = TypedLinear(num_types, hidden_dim, hidden_dim, generator)
        self.layers = nn.ModuleList(
            HgtLayer(num_types, num_edge_types, hidden_dim, num_heads, generator)
            for _ in range(num_layers)
        )
        self.out = TypedLinear(num_types, hidden_dim, embedding_dim, generator)

    def forward(self, hidden: TypedBlock, target: TypedBlock) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: all nodes, for every layer but the last.
            target: the M rows that are wanted, for the last layer.

        Returns:
            shape (M, D).
        """
        x = self.input_features()
        for index in range(len(self.layers) - 1):
            x = self.apply_layer(index, x, hidden)
        return self.apply_layer(len(self.layers) - 1, x, target)

    def input_features(self) -> Tensor:
        """Input of the first layer, shape (N, C): the learned vectors, mapped per node type."""
        mapped: Tensor = self.project(self.node_embedding, self.type_ptr)
        return mapped

    def apply_layer(self, index: int, x: Tensor, block: TypedBlock) -> Tensor:
        """Output of one layer for a block's target rows; the last one includes the output map."""
        out: Tensor = self.layers[index](x, block)
        out = functional.layer_norm(out, out.shape[1:], eps=_NORM_EPS)
        if index == len(self.layers) - 1:
            out = self.out(out, block.row_ptr)
            out = functional.layer_norm(out, out.shape[1:], eps=_NORM_EPS)
        return out


def _uniform(shape: tuple[int, ...], in_dim: int, generator: torch.Generator) -> Tensor:
    """Weights that keep the variance of what they map."""
    bound = (3.0 / in_dim) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
