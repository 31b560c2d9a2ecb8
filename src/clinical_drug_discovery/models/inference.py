"""Layer-wise inference: exact embeddings of all nodes, for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from ..ops.backend import Backend
from ..ops.blocks import Block, range_block
from ..ops.buffers import empty, release_buffers
from ..system.errors import InputError
from ..system.machine import empty_cache
from ..system.progress import Run
from .collapse import Collapse, collapse_by_type, collapse_warnings

_FINITE_ROWS = 8_192  # rows tested at a time: all at once would copy the embeddings

Begun = TypeVar("Begun")


class LayeredModel(Protocol[Begun]):
    """The part of a model that inference uses: stages that compute any block of rows."""

    @property
    def node_embedding(self) -> Tensor:
        """The input of the first stage, shape (N, C)."""

    @property
    def stages(self) -> Sequence[tuple[str, int]]:
        """Name and output width of each stage, in order."""

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> Begun:
        """Compute what all blocks of a stage need, once."""

    def apply_stage(self, index: int, x: Tensor, begun: Begun, block: Block) -> Tensor:
        """Return the output of a stage for a block's target rows, shape (M, D)."""


@torch.no_grad()
def embed_all(
    model: LayeredModel[Begun],
    graph: KnowledgeGraph,
    chunk_size: int,
    backend: Backend,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Tensor:
    """Compute one stage for all nodes, then the next, a chunk of nodes at a time.

    The result equals the model's full forward pass, whatever the chunk size. All chunks have the
    same size, because GPUs prepare operations for each shape, and may cross node types: HGT
    computes the keys and values of all sources again for each chunk, so fewer chunks are faster.
    At any moment only the input and the output of one stage exist, (N, C) and (N, D), and a few
    buffers of (chunk_size, max(C, D)). HGT also needs 6 buffers of (n, C), for the n nodes of the
    largest type, whatever the chunk size.

    Args:
        model: on the backend's device.
        graph: on the same device.
        chunk_size: nodes at a time.
        backend: computes.
        on_stage: is called with each stage's name before it.

    Returns:
        shape (N, D), on the CPU.
    """
    x: Tensor = model.node_embedding.detach()
    for index, (name, dim) in enumerate(model.stages):
        on_stage(name)
        begun = model.begin_stage(index, x, backend)
        out = empty(x, len(x), dim)
        for start, stop in _even_chunks(len(x), chunk_size):
            block = range_block(graph, start, stop, backend)
            out[start:stop] = model.apply_stage(index, x, begun, block)
            empty_cache(x.device)
        x = out
    return x.cpu()


def _even_chunks(num_nodes: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Yield starts and stops of ranges of one size that cover all nodes; the last may overlap."""
    count = -(-num_nodes // chunk_size)
    size = -(-num_nodes // count)
    for i in range(count):
        stop = min((i + 1) * size, num_nodes)
        yield stop - size, stop


def embed_nodes(
    run: Run, model: LayeredModel[Any], graph: KnowledgeGraph, chunk_size: int, backend: Backend
) -> tuple[Tensor, Collapse]:
    """Embed all nodes, and warn about node types that have collapsed.

    Args:
        run: collects times, memory and warnings.
        model: on the backend's device.
        graph: on the CPU.
        chunk_size: nodes at a time.
        backend: computes.

    Returns:
        The embeddings, shape (N, D), on the CPU, and the collapse check of each node type.

    Raises:
        InputError: the embeddings hold NaN or infinity.
    """
    run.progress.milestone("Layer-wise inference for memory efficiency")
    run.progress.milestone("Generating final embeddings with layer-wise computation...")

    def begin(stage: str) -> None:
        run.peak.sample()  # what the stage before holds
        run.progress.detail(f"{stage}...")

    with run.timed("inference"):
        embeddings = embed_all(model, graph.to(backend.device), chunk_size, backend, begin)
        if not all(torch.isfinite(rows).all() for rows in embeddings.split(_FINITE_ROWS)):
            raise InputError(
                f"learning_rate (got {run.learning_rate}) is too high: "
                "the embeddings hold NaN or infinity"
            )
    release_buffers()
    with run.timed("collapse"):
        collapse = collapse_by_type(embeddings, graph.type_ptr.tolist(), graph.node_type_names)
    run.progress.milestone(f"Generated embeddings: {embeddings.shape}")
    for text in collapse_warnings(collapse, graph, embeddings.shape[1]):
        run.warn(text)
    return embeddings, collapse
