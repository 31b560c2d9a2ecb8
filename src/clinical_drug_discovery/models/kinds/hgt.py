"""HGT for a run: settings, maker, size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...ops.backend import padded
from ...ops.cpu import attention, gates, head_maps, norms
from ...ops.cpu.attention import PIECE_EDGES
from ...system.errors import InputError
from ..hgt import Hgt
from .interface import Contrast, ModelKind, Needs, Positives, Sizes, Times, check_common

# bytes for compiled kernels that only HGT has, and for gradients of many small matrices
_FIXED = 32 * 2**20


@dataclass(frozen=True)
class HgtSettings:
    """The settings of HGT; see `lib.gnn_hgt` for meanings and defaults."""

    model: ClassVar[str] = "hgt"
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_epochs: int
    learning_rate: float
    contrastive_weight: float
    edge_sample_size: int
    training: str
    subgraph_size: int | None
    similarity_threshold: float
    temperature: float
    subgraphs_per_step: int | None = None

    @property
    def hidden_unit(self) -> int:
        """All heads have the same width."""
        return self.num_heads

    @property
    def positives(self) -> Positives:
        """The same number for each edge type."""
        return Positives("edge_sample_size", self.edge_sample_size, of_each_type=True)

    @property
    def contrast(self) -> Contrast | None:
        """A pair of diseases for each positive of an edge type."""
        return Contrast(
            self.contrastive_weight, self.edge_sample_size, self.similarity_threshold,
            self.temperature,
        )  # fmt: skip

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: a setting is invalid; the message names the setting.
        """
        check_common(self)
        if self.hidden_dim % self.num_heads:
            raise InputError(
                f"hidden_dim (got {self.hidden_dim}) must be divisible by num_heads "
                f"(got {self.num_heads})"
            )


def make_hgt(
    type_ptr: tuple[int, ...],
    num_edge_types: int,
    settings: HgtSettings,
    generator: torch.Generator,
) -> Hgt:
    """Return a model with random weights; see `ModelKind.make`."""
    return Hgt(
        type_ptr, num_edge_types, settings.hidden_dim, settings.embedding_dim,
        settings.num_layers, settings.num_heads, generator,
    )  # fmt: skip


def hgt_needs(sizes: Sizes, settings: HgtSettings) -> Needs:
    """Return the memory of HGT in bytes; comments name the arrays of each term."""
    hidden, dim, layers = settings.hidden_dim, settings.embedding_dim, settings.num_layers
    width = settings.num_heads * padded(hidden // settings.num_heads)  # number of columns, padded
    rows, most, stored = sizes.step_rows, min(sizes.largest_type, sizes.step_nodes), sizes.stored
    x = 4 * sizes.step_nodes * hidden  # a layer's input in a step, float32, shape (N, C)
    wide = 4 * sizes.step_nodes * width  # the same input, but with padded heads
    gathered = stored * sizes.step_nodes * width  # the copy of `wide` that edges read
    forward = 4 * stored * most * width  # queries, keys and values of the largest node type
    summed = 4 if sizes.edge_chunk else stored  # bytes per number; torch's operations sum float32
    backward = most * width * (4 * stored + 2 * summed + 8)
    largest = min(PIECE_EDGES, sizes.largest_edge_type)  # edges processed at a time
    backward += 2 * stored * settings.num_heads * largest  # attention weights of these edges
    kept = (layers - 1) * (x + gathered)  # the hidden layers' inputs, kept for the backward pass
    loss = kept + x + 4 * rows * (width + hidden + dim) + sizes.loss_bytes
    last = kept + 2 * x + rows * width * (4 + 2 * stored) + backward
    step = max(loss, last, 2 * x)
    if layers > 1:
        before = (layers - 2) * (x + gathered)
        step = max(
            step,
            before + x + wide + max(gathered + forward, x),  # forward pass, a hidden layer
            before + 2 * x + wide + 2 * gathered + backward,  # backward, a hidden layer
        )
    weights = 4 * sizes.num_node_types * hidden * (4 * hidden * layers + hidden + dim)
    weights += 8 * layers * sizes.num_edge_types * hidden * hidden // settings.num_heads
    gathers = 24 * sizes.edge_chunk * width  # rows gathered for a chunk of edges
    reverse = 0 if sizes.is_sampled else 4 * sizes.num_edges  # reverse edges of the whole graph
    # the sums and queries of a layer's chunk, and its result; or the result of the output map
    chunk = sizes.chunk_nodes * max(width * (4 + stored) + 4 * hidden, 4 * dim)
    buffers = 4 * stored * sizes.largest_type * width  # queries, keys and values of a node type
    return Needs(
        weights=weights,
        step=step + gathers + reverse,
        inference=chunk + buffers + 4 * weights + gathers // 2,
        fixed=_FIXED,
    )


KIND = ModelKind(
    HgtSettings,
    make_hgt,
    hgt_needs,
    {"embedding_dim": 32, "hidden_dim": 32, "num_layers": 2, "num_heads": 4},
    (attention, head_maps, gates, norms),
    Times(epoch=7.57 / 8.1, inference=3.95 / 8.1),
    vector_rate=5.0,
)
