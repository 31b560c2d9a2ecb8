"""Exact embeddings of all nodes, layer by layer; one function for every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from clinical_drug_discovery.blocks import Block, range_block
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.runtime import empty_cache


class LayeredModel(Protocol):
    """What inference needs of a model: an input, and layers that work on any block of rows."""

    @property
    def layer_dims(self) -> list[int]:
        """Width of each layer's output, in order."""

    def input_features(self) -> Tensor:
        """Input of the first layer, shape (N, C)."""

    def apply_layer(self, index: int, x: Tensor, block: Block) -> Tensor:
        """Output of a layer for a block's target rows, activation included, shape (M, D)."""


@torch.no_grad()
def embed_all(
    model: LayeredModel,
    graph: KnowledgeGraph,
    chunk_size: int,
    on_layer: Callable[[int], None] = lambda index: None,
) -> Tensor:
    """Run one layer for all nodes, then the next, a chunk of target rows at a time.

    Equal to the model's full forward pass for every chunk size. At any moment only the input and
    the output of one layer exist, (N, C) and (N, D), and a few buffers of (chunk_size, max(C, D)).

    Args:
        model: on the graph's device.
        graph: the whole graph.
        chunk_size: target rows at a time.
        on_layer: called with the layer's index before each layer.

    Returns:
        shape (N, D), on the CPU.
    """
    x = model.input_features()
    for index, dim in enumerate(model.layer_dims):
        on_layer(index)
        out = x.new_empty(graph.num_nodes, dim)
        for start in range(0, graph.num_nodes, chunk_size):
            stop = min(start + chunk_size, graph.num_nodes)
            out[start:stop] = model.apply_layer(index, x, range_block(graph, start, stop))
        x = out
        empty_cache(x.device)
    return x.cpu()
