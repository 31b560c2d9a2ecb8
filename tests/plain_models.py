"""Both models in ordinary PyTorch: read these first.

They compute what `models.sage` and `models.hgt` compute, with the same parameter names, but with no
thought to speed or memory: here every edge holds its message. The tests copy the weights of one to
the other and compare embeddings and gradients.

Notation: N nodes, E edges, T node types, R edge types, C hidden channels in H heads of d channels,
D embedding dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Edges = list[tuple[Tensor, Tensor]]  #: of each edge type: sources and targets, shape (E_r,) each


def norm(x: Tensor) -> Tensor:
    """Layer normalization without parameters: each row gets mean 0 and length sqrt(width)."""
    return functional.layer_norm(x, x.shape[1:])


class PlainGraphSage(nn.Module):
    """GraphSAGE ("Inductive Representation Learning on Large Graphs", arXiv:1706.02216, Alg. 1)."""

    def __init__(self, num_nodes: int, hidden_dim: int, dim: int, num_layers: int) -> None:
        super().__init__()
        self.node_embedding = nn.Parameter(torch.randn(num_nodes, hidden_dim))
        widths = [hidden_dim] * (num_layers - 1) + [dim]
        self.layers = nn.ModuleList(PlainSageLayer(hidden_dim, width) for width in widths)

    def forward(self, src: Tensor, dst: Tensor) -> Tensor:  # the edges of all types, (E,) each
        x: Tensor = self.node_embedding  # (N, C): every node has a learned vector
        for layer in list(self.layers)[:-1]:
            x = x + norm(layer(x, src, dst).relu())
        return norm(self.layers[-1](x, src, dst))  # (N, D)


class PlainSageLayer(nn.Module):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight_self = nn.Parameter(torch.randn(out_dim, in_dim) / in_dim**0.5)
        self.weight_neighbor = nn.Parameter(torch.randn(out_dim, in_dim) / in_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, src: Tensor, dst: Tensor) -> Tensor:
        total = torch.zeros_like(x).index_add(0, dst, x[src])  # line 4: the mean over neighbors
        mean = total / torch.bincount(dst, minlength=len(x)).clamp(min=1)[:, None]
        # Line 5, where W . concat(x, mean) is written as a sum of two products.
        return x @ self.weight_self.T + mean @ self.weight_neighbor.T + self.bias


class PlainHgt(nn.Module):
    """HGT ("Heterogeneous Graph Transformer", arXiv:2003.01332), with a learned vector per node."""

    def __init__(
        self, node_type: Tensor, num_edge_types: int, hidden_dim: int, dim: int, num_layers: int,
        num_heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.node_type, num_types = node_type.long(), int(node_type.max()) + 1  # (N,)
        self.node_embedding = nn.Parameter(torch.randn(len(node_type), hidden_dim))
        self.project = PlainTypedLinear(num_types, hidden_dim, hidden_dim)
        self.layers = nn.ModuleList(
            PlainHgtLayer(num_types, num_edge_types, hidden_dim, num_heads)
            for _ in range(num_layers)
        )
        self.out = PlainTypedLinear(num_types, hidden_dim, dim)

    def forward(self, edges: Edges) -> Tensor:
        x = self.project(self.node_embedding, self.node_type)  # (N, C)
        for layer in self.layers:
            x = layer(x, self.node_type, edges)
        return norm(self.out(x, self.node_type))  # (N, D)


class PlainTypedLinear(nn.Module):
    """A linear map of its own for each node type."""

    def __init__(self, num_types: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_types, out_dim, in_dim) / in_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(num_types, out_dim))

    def forward(self, x: Tensor, node_type: Tensor) -> Tensor:
        return torch.einsum("ni,noi->no", x, self.weight[node_type]) + self.bias[node_type]


class PlainHgtLayer(nn.Module):
    def __init__(self, num_types: int, num_edge_types: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.heads = num_heads, dim // num_heads  # H, d
        matrices = num_edge_types, num_heads, dim // num_heads, dim // num_heads
        self.kqv = PlainTypedLinear(num_types, dim, 3 * dim)
        self.attention = nn.Parameter(torch.randn(matrices) / matrices[-1] ** 0.5)
        self.message = nn.Parameter(torch.randn(matrices) / matrices[-1] ** 0.5)
        self.prior = nn.Parameter(torch.ones(num_edge_types, num_heads))
        self.out = PlainTypedLinear(num_types, dim, dim)
        self.skip = nn.Parameter(torch.ones(num_types))

    def forward(self, x: Tensor, node_type: Tensor, edges: Edges) -> Tensor:
        key, query, value = self.kqv(x, node_type).view(len(x), 3, *self.heads).unbind(dim=1)
        logits, messages = [], []
        for r, (src, dst) in enumerate(edges):
            # Eq. 3: the logit of an edge of type r is (k A_r) . q prior_r / sqrt(d).
            mapped = torch.einsum("ehd,hdf->ehf", key[src], self.attention[r])
            logits.append((mapped * query[dst]).sum(dim=-1) * self.prior[r] / self.heads[1] ** 0.5)
            # Eq. 4: its message is v M_r.
            messages.append(torch.einsum("ehd,hdf->ehf", value[src], self.message[r]))
        target = torch.cat([dst for _, dst in edges])
        # Eq. 3: the softmax is over all edges into a node, across edge types.
        weight = torch.cat(logits).exp()  # (E, H)
        total = weight.new_zeros(len(x), self.heads[0]).index_add(0, target, weight)
        weight = weight / total[target]
        # Eq. 2: a node's result is the sum of its weighted messages.
        weighted = (weight[..., None] * torch.cat(messages)).flatten(1)  # (E, C)
        attended = torch.zeros_like(x).index_add(0, target, weighted)
        # Eq. 5, with a gate between the update and x, and layer normalization after it.
        gate = self.skip.sigmoid()[node_type][:, None]
        return norm(gate * self.out(functional.gelu(attended), node_type) + (1 - gate) * x)
