"""R-GCN as a third model, by the page "Add a model": one file, and one entry in the table.

    python examples/rgcn.py embed rgcn --edges kg.csv --output rgcn.parquet
    python examples/rgcn.py evaluate --edges kg.csv --model rgcn --split disease --output results

All commands of `cdd` work with the new model. From Python, import this file and call
`embed_model("rgcn", "kg.csv", "rgcn.parquet")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from clinical_drug_discovery.models.initialisation import node_vectors, uniform
from clinical_drug_discovery.models.kinds.interface import (
    Contrast,
    ModelKind,
    Needs,
    Positives,
    Sizes,
    check_common,
)
from clinical_drug_discovery.models.kinds.table import MODELS, Entry
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.mean import gather_rows, own_rows
from clinical_drug_discovery.ops.norm import layer_norm
from clinical_drug_discovery.ops.reference import EDGE_CHUNK
from clinical_drug_discovery.system.errors import check_at_least


@dataclass(frozen=True)
class RgcnSettings:
    """The settings of R-GCN. The names of common settings and their ranges are those of GraphSAGE.

    Attributes:
        embedding_dim: number of dimensions of an embedding.
        hidden_dim: width of the hidden layers and of each node's learned input vector.
        num_layers: number of layers.
        num_bases: number of matrices of which the matrix of each edge type is a mixture.
        num_epochs: number of epochs.
        learning_rate: learning rate of Adam in the first step.
        edge_batch_size: number of positives in the loss of an epoch.
        training: full or sampled.
        subgraph_size: only for training sampled: number of nodes in each subgraph.
        subgraphs_per_step: only for training sampled: number of subgraphs in a step.
    """

    model: ClassVar[str] = "rgcn"
    embedding_dim: int = 512
    hidden_dim: int = 256
    num_layers: int = 2
    num_bases: int = 8
    num_epochs: int = 100
    learning_rate: float = 0.01
    edge_batch_size: int = 10_000
    training: str = "full"
    subgraph_size: int | None = None
    subgraphs_per_step: int | None = None

    @property
    def hidden_unit(self) -> int:
        """Any width is allowed."""
        return 1

    @property
    def positives(self) -> Positives:
        """The same number for all edge types together."""
        return Positives("edge_batch_size", self.edge_batch_size, of_each_type=False)

    @property
    def contrast(self) -> Contrast | None:
        """R-GCN is trained without a contrastive loss."""
        return None

    def check(self) -> None:
        """Check every setting; raise `InputError` if one is invalid."""
        check_common(self)
        check_at_least("num_bases", self.num_bases, 1)


class Rgcn(nn.Module):
    """A stack of `RgcnLayer` over a learned vector per node; hidden layers end in ReLU."""

    def __init__(
        self,
        num_nodes: int,
        num_edge_types: int,
        settings: RgcnSettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        hidden, number = settings.hidden_dim, settings.num_layers
        self.node_embedding = node_vectors(num_nodes, hidden, generator)
        dims = [hidden] * (number - 1) + [settings.embedding_dim]
        self.layers = nn.ModuleList(
            RgcnLayer(hidden, dim, num_edge_types, settings.num_bases, generator) for dim in dims
        )
        self.stages = [(f"Layer {i}/{number}", dim) for i, dim in enumerate(dims, start=1)]

    def forward(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block; see `TrainableModel`."""
        x = self.node_embedding if vectors is None else vectors
        for index in range(len(self.layers)):
            x = self.apply_stage(index, x, None, target if self._is_last(index) else hidden)
        return x

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> None:
        """Do nothing: the blocks of a stage share nothing."""

    def apply_stage(self, index: int, x: Tensor, begun: None, block: Block) -> Tensor:
        """Return the output of one layer for a block's target rows."""
        out = cast(RgcnLayer, self.layers[index])(x, block)
        # As in GraphSAGE: the sum keeps each node's own vector, and embeddings have one length.
        return layer_norm(out if self._is_last(index) else own_rows(x, block.rows) + out.relu())

    def _is_last(self, index: int) -> bool:
        return index == len(self.layers) - 1


class RgcnLayer(nn.Module):
    """x'_i = W_0 x_i + sum over edge types r of W_r mean_j(x_j) + b, with W_r = sum_b a_rb V_b.

    "Modeling Relational Data with Graph Convolutional Networks" (arXiv:1703.06103), eq. 2 and 3.
    """

    def __init__(
        self, in_dim: int, out_dim: int, num_types: int, bases: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.own = nn.Parameter(uniform((out_dim, in_dim), in_dim, generator))
        self.bases = nn.Parameter(uniform((bases, out_dim, in_dim), in_dim, generator))
        self.mixture = nn.Parameter(uniform((num_types, bases), bases, generator))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Compute the block's target rows, shape (M, D), from all source rows, shape (N, C)."""
        out = linear(own_rows(x, block.rows), self.own, self.bias)
        sizes = [last - first for first, last in pairwise(block.row_ptr)]  # of each node type
        parts = list(out.split(sizes))
        for r, (_, dst_type) in enumerate(block.graph.endpoint_types):
            if len(parts[dst_type]):
                weight = torch.einsum("b,bij->ij", self.mixture[r], self.bases)
                mean = _mean_of_type(x, block, r)
                parts[dst_type] = parts[dst_type] + linear(mean, weight)
        return torch.cat(parts)


def _mean_of_type(x: Tensor, block: Block, edge_type: int) -> Tensor:
    """Return the mean over the sources of one edge type, for each target row of its target type."""
    graph, rows = block.graph, block.rows_into(edge_type)
    first, last = graph.node_range(graph.endpoint_types[edge_type][0])
    total = x.new_zeros(rows.stop - rows.start, x.shape[1])
    count = x.new_zeros(len(total), 1)
    for row, source, real in block.edges.chunks(edge_type, EDGE_CHUNK):
        found = gather_rows(x[first:last], source)
        one = torch.ones_like(found[:, :1]) if real is None else real[:, None].to(x.dtype)
        total = total.index_add(0, row, found * one)
        count = count.index_add(0, row, one)
    return total / count.clamp(min=1)


def make_rgcn(
    type_ptr: tuple[int, ...],
    num_edge_types: int,
    settings: RgcnSettings,
    generator: torch.Generator,
) -> Rgcn:
    """Return a model with random weights; see `ModelKind.make`."""
    return Rgcn(type_ptr[-1], num_edge_types, settings, generator)


def rgcn_needs(sizes: Sizes, settings: RgcnSettings) -> Needs:
    """Return the memory of R-GCN in bytes, an upper bound: autograd keeps inputs of products."""
    wide = 4 * max(settings.hidden_dim, settings.embedding_dim)  # bytes of a row
    matrices = settings.num_layers * (settings.num_bases + 1 + sizes.num_edge_types)
    # For each layer and edge type: the sums, the means, and the sum of parts of the largest type.
    kept = 3 * sizes.num_edge_types * min(sizes.largest_type, sizes.step_nodes) * wide
    edges = 4 * EDGE_CHUNK * wide + 32 * sizes.num_edges  # a chunk's rows; the index of all edges
    loss = sizes.step_rows * 3 * wide + sizes.loss_bytes
    return Needs(
        weights=matrices * settings.hidden_dim * wide,
        step=settings.num_layers * (kept + 4 * sizes.step_nodes * wide) + edges + loss,
        inference=3 * sizes.chunk_nodes * wide * sizes.num_edge_types + edges,
    )


KIND = ModelKind(RgcnSettings, make_rgcn, rgcn_needs)
MODELS["rgcn"] = Entry("R-GCN", "rgcn", "RgcnSettings")

if __name__ == "__main__":
    from clinical_drug_discovery.__main__ import main

    main()
