"""Layer-wise inference: exact embeddings of all nodes, for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from ..ops import backend as backends
from ..ops.backend import Backend
from ..ops.blocks import Block, range_block
from ..ops.buffers import empty, release_buffers, used_again
from ..ops.fixed_shapes import needs_fixed_shapes
from ..system.errors import InputError
from ..system.group.interface import ALONE, Group
from ..system.group.rows import Rows
from ..system.machine import empty_cache
from ..system.progress import Run
from .collapse import Collapse, collapse_by_type, collapse_warnings

Begun = TypeVar("Begun")


class LayeredModel(Protocol[Begun]):
    """The interface that inference needs: a model as a sequence of stages."""

    @property
    def node_embedding(self) -> Tensor:
        """The input of the first stage, shape (N, C)."""

    @property
    def stages(self) -> Sequence[tuple[str, int]]:
        """Name and output width of each stage, in order."""

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> Begun:
        """Return data that all blocks of a stage share. Called once per stage."""

    def apply_stage(self, index: int, x: Tensor, begun: Begun, block: Block) -> Tensor:
        """Return the output of a stage for a block's target rows, shape (M, D)."""


@torch.no_grad()
def embed_all(
    model: LayeredModel[Begun],
    graph: KnowledgeGraph,
    chunk_size: int,
    backend: Backend,
    on_stage: Callable[[str], None] = lambda name: None,
    group: Group = ALONE,
) -> Tensor:
    """Compute one stage for all nodes, then the next. Each stage runs a chunk of nodes at a time.

    Several processes divide the nodes of each stage, and then exchange its output.

    The result equals the model's full forward pass; on the CPU, its bits do not depend on the chunk
    size. On a GPU all chunks have the same size, because GPUs prepare operations for each shape. A
    chunk may contain several node types.
    HGT computes the keys and values of all sources again for each chunk, so fewer chunks are
    faster. Memory: the input (N, C) and output (N, D) of one stage, and a few buffers of shape
    (chunk_size, max(C, D)), one of which is the output if a chunk holds all nodes. For any chunk
    size, HGT also needs 6 buffers of shape (n, C), where n is the number of nodes of the largest
    type.

    Args:
        model: on the backend's device.
        graph: on the same device.
        chunk_size: nodes at a time; on the CPU, rounded up to a multiple of `BLOCK_ROWS`.
        backend: backend of the run.
        on_stage: called with the name of each stage before the stage starts.
        group: the processes that divide the nodes.

    Returns:
        shape (N, D), on the CPU.
    """
    x: Tensor = model.node_embedding.detach()
    with used_again():
        for index, (name, _) in enumerate(model.stages):
            on_stage(name)
            x = _run_stage(model, index, x, graph, chunk_size, backend, group)
    return x.cpu()


def _run_stage(
    model: LayeredModel[Begun],
    index: int,
    x: Tensor,
    graph: KnowledgeGraph,
    chunk_size: int,
    backend: Backend,
    group: Group,
) -> Tensor:
    """Return the output of one stage for all nodes, shape (N, D)."""
    rows = Rows(group, len(x), backends.BLOCK_ROWS)
    even = needs_fixed_shapes(x.device)
    chunks = [*(_even_chunks if even else _whole_blocks)(rows.own, chunk_size)]
    begun = model.begin_stage(index, x, backend)

    def compute(start: int, stop: int) -> Tensor:
        result = model.apply_stage(index, x, begun, range_block(graph, start, stop, backend))
        empty_cache(x.device)
        return result

    if chunks == [(0, len(x))]:
        return compute(0, len(x))  # a copy would take time, and as much memory again
    out = empty(x, len(x), model.stages[index][1])
    for start, stop in chunks:
        out[start:stop] = compute(start, stop)
    return rows.share(out)


def _even_chunks(nodes: slice, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of equal ranges that cover the nodes; the last two may overlap."""
    num_nodes = nodes.stop - nodes.start
    count = -(-num_nodes // chunk_size)
    for i in range(count):
        size = -(-num_nodes // count)
        stop = min(nodes.start + (i + 1) * size, nodes.stop)
        yield stop - size, stop


def _whole_blocks(nodes: slice, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of ranges that start at multiples of `BLOCK_ROWS` and cover the nodes."""
    size = -(-chunk_size // backends.BLOCK_ROWS) * backends.BLOCK_ROWS
    for start in range(nodes.start, nodes.stop, size):
        yield start, min(start + size, nodes.stop)


def embed_nodes(
    run: Run, model: LayeredModel[Any], graph: KnowledgeGraph, chunk_size: int, backend: Backend
) -> tuple[Tensor, Collapse]:
    """Embed all nodes, and warn about node types that have collapsed.

    Args:
        run: collects times, memory and warnings.
        model: on the backend's device.
        graph: on the CPU.
        chunk_size: nodes at a time.
        backend: backend of the run.

    Returns:
        The embeddings, shape (N, D), on the CPU, and the collapse check of each node type.

    Raises:
        InputError: an embedding contains NaN or infinity.
    """
    run.progress.milestone("Layer-wise inference for memory efficiency")
    run.progress.milestone("Generating final embeddings with layer-wise computation...")

    def begin(stage: str) -> None:
        run.peak.sample()  # memory in use at the end of the stage before
        run.progress.detail(f"{stage}...")

    with run.timed("inference"):
        embeddings = embed_all(
            model, graph.to(backend.device), chunk_size, backend, begin, run.group
        )
        release_buffers()  # which the caller may keep for inference, but not beyond it
        if not torch.stack(embeddings.aminmax()).isfinite().all():  # NaN is both, if there is one
            raise InputError(
                f"learning_rate (got {run.learning_rate}) is too high: "
                "the embeddings hold NaN or infinity"
            )
    if run.group.rank:  # the first process checks and writes
        return embeddings, {}
    with run.timed("collapse"):
        collapse = collapse_by_type(embeddings, graph.type_ptr.tolist(), graph.node_type_names)
    run.progress.milestone(f"Generated embeddings: {embeddings.shape}")
    for text in collapse_warnings(collapse, graph, embeddings.shape[1]):
        run.warn(text)
    return embeddings, collapse
