"""Exact embeddings of all nodes, layer by layer; one function for every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from clinical_drug_discovery.runtime import empty_cache

Rows = TypeVar("Rows", contravariant=True)


class LayeredModel(Protocol[Rows]):
    """What inference needs of a model: stages that work on any block of rows."""

    @property
    def node_embedding(self) -> Tensor:
        """Input of the first stage, shape (N, C)."""

    @property
    def stages(self) -> Sequence[tuple[str, int]]:
        """What is said of each stage, and the width of its output, in order."""

    def apply_stage(self, index: int, x: Tensor, block: Rows) -> Tensor:
        """Output of a stage for a block's target rows, activation included, shape (M, D)."""


@torch.no_grad()
def embed_all(
    model: LayeredModel[Rows],
    type_ptr: Sequence[int],
    range_block: Callable[[int, int], Rows],
    chunk_size: int,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Tensor:
    """Run one stage for all nodes, then the next, a chunk of nodes of one type at a time.

    Equal to the model's full forward pass for every chunk size. At any moment only the input and
    the output of one stage exist, (N, C) and (N, D), and a few buffers of (chunk_size, max(C, D));
    with HGT also 6 of (n, C) for the n nodes of the largest type, whatever the chunk size, since a
    chunk needs the keys and values of all its sources.

    Args:
        model: on the device that it is to run on.
        type_ptr: the nodes of type t are type_ptr[t]:type_ptr[t + 1].
        range_block: gives the edges into nodes start:stop, on the model's device.
        chunk_size: nodes at a time.
        on_stage: called with each stage's name before it.

    Returns:
        shape (N, D), on the CPU.
    """
    x: Tensor = model.node_embedding.detach()
    for index, (name, dim) in enumerate(model.stages):
        on_stage(name)
        out = x.new_empty(len(x), dim)
        for first, last in pairwise(type_ptr):
            for start in range(first, last, chunk_size):
                stop = min(start + chunk_size, last)
                out[start:stop] = model.apply_stage(index, x, range_block(start, stop))
            empty_cache(x.device)
        x = out
    return x.cpu()
