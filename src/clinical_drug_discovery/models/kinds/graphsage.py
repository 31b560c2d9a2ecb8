"""GraphSAGE for a run: settings, maker, size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...ops.backend import MOST_ROWS
from ...ops.cpu import neighbors, norms
from ..sage import GraphSage
from .interface import Contrast, ModelKind, Needs, Positives, Sizes, Times, check_common


@dataclass(frozen=True)
class SageSettings:
    """The settings of GraphSAGE; see `lib.gnn_embeddings` for meanings and defaults."""

    model: ClassVar[str] = "graphsage"
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    learning_rate: float
    edge_batch_size: int
    training: str
    subgraph_size: int | None
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
        """GraphSAGE is trained without a contrastive loss."""
        return None

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: a setting is invalid; the message names the setting.
        """
        check_common(self)


def make_sage(
    type_ptr: tuple[int, ...],
    num_edge_types: int,
    settings: SageSettings,
    generator: torch.Generator,
) -> GraphSage:
    """Return a model with random weights; see `ModelKind.make`."""
    return GraphSage(
        type_ptr[-1], settings.hidden_dim, settings.embedding_dim, settings.num_layers, generator
    )


def sage_needs(sizes: Sizes, settings: SageSettings) -> Needs:
    """Return the memory of GraphSAGE in bytes; comments name the arrays of each term."""
    hidden, dim = settings.hidden_dim, settings.embedding_dim
    layers = settings.num_layers - 1  # number of hidden layers
    rows, stored = sizes.step_rows, sizes.stored
    x = 4 * sizes.step_nodes * hidden  # a layer's input in a step, float32, shape (N, C)
    gathered = stored * x // 4  # the copy of a layer's input that edges read
    one_type = 4 * min(sizes.largest_type, sizes.step_nodes) * hidden  # gradients, shape (n, C)
    kept = x * layers  # the hidden layers' inputs, kept for the backward pass
    out = x if layers else 0  # the output of the last hidden layer, until the loss
    step = max(
        kept + x + gathered if layers else 0,  # forward pass, hidden layers
        kept + out + max(gathered, 4 * rows * hidden) + 4 * rows * hidden,  # last layer: the mean
        kept + rows * 8 * (hidden + dim) + sizes.loss_bytes,  # its map, and the loss
        kept + rows * 8 * (2 * hidden + dim),  # backward pass of the map
        kept + x + rows * (8 + stored) * hidden,  # of the mean
        kept + x + gathered + one_type if layers else 0,  # of the hidden layers
    )
    chunk = 4 * sizes.chunk_nodes * (hidden + dim)  # means and results of one chunk
    chunk += 4 * min(MOST_ROWS, sizes.chunk_nodes) * (hidden + 4 * dim)  # rows multiplied at a time
    gathers = 8 * sizes.edge_chunk * hidden  # rows gathered for a chunk of edges
    if not sizes.edge_chunk:  # the kernels list the rows that a part of an edge type gathers
        gathers = 4 * sizes.largest_edge_type
    return Needs(
        weights=4 * (2 * hidden * (hidden * layers + dim)),
        step=step + gathers,
        inference=stored * sizes.num_nodes * hidden + chunk + gathers,
    )


KIND = ModelKind(
    SageSettings,
    make_sage,
    sage_needs,
    {"embedding_dim": 32, "hidden_dim": 32, "num_layers": 2},
    (neighbors, norms),
    Times(epoch=2.44 / 8.1, inference=2.13 / 8.1),
)
