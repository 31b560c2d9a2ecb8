"""What a step of training sees of the graph: all of it, or a part drawn for its facts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.ops.blocks import Block, full_block, row_block
from clinical_drug_discovery.sampling import EdgeBatch, SteadyRows
from clinical_drug_discovery.subgraph import SubgraphSampler, induced_subgraph
from clinical_drug_discovery.system.errors import InputError, check_at_least

FULL, SAMPLED = "full", "sampled"  #: kinds of training
SUBGRAPH_SIZE = 20_000  #: nodes of a part, if nothing else is said
# Of an edge type's edges a step asks for, and hides, at most one in so many: what is hidden whole,
# in both directions, would never be seen, and its weights would stay what they were.
_ONE_IN = 4


@dataclass(frozen=True)
class Part:
    """What the host has drawn for a step."""

    graph: KnowledgeGraph  #: what is seen
    nodes: Tensor | None  #: shape (n,), int64: its nodes in the whole graph; None: it is that
    rows: Tensor  #: shape (M,), int64: the batch's nodes in it
    batch: EdgeBatch
    hidden: Block | None  #: all nodes of it on the device, where it is always the same


@dataclass(frozen=True)
class View:
    """The same as a model takes it, all on the device but `rows`."""

    hidden: Block  #: all nodes that are seen, for every layer but the last
    target: Block  #: those of the batch
    nodes: Tensor | None  #: as in `Part`
    batch: EdgeBatch
    rows: Tensor  #: shape (M,), int64: the batch's nodes in the whole graph


def see(part: Part, device: torch.device) -> View:
    """Move what a step sees to the device."""
    graph, nodes = part.graph.to(device), part.nodes
    return View(
        part.hidden or full_block(graph),
        row_block(graph, part.rows),
        None if nodes is None else nodes.to(device),
        part.batch.to(device),
        part.batch.rows,
    )


class WholeGraph:
    """Every step sees all nodes and edges: `training="full"`."""

    num_steps = 1  #: of an epoch
    described = "Full-batch training with edge sampling"

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        """Move the graph to the device.

        Args:
            graph: on the CPU.
            device: where to train.
        """
        self._graph, self._steady = graph.to(device), SteadyRows(graph, device)
        self._hidden = full_block(self._graph)

    def draw(self, batch: EdgeBatch) -> Part:
        """What is seen while the targets of a batch are asked for."""
        batch = self._steady.fill(batch)
        return Part(self._graph, None, batch.rows, batch, self._hidden)


class Subgraphs:
    """Every step sees a part, without the facts whose targets it asks for: `training="sampled"`.

    An epoch has as many steps as it takes for as many nodes as the graph has.
    """

    def __init__(self, graph: KnowledgeGraph, device: torch.device, size: int, seed: int) -> None:
        """Prepare to draw.

        Args:
            graph: on the CPU.
            device: where to train.
            size: number of nodes of each part.
            seed: of all drawing.
        """
        self._graph, self._steady = graph, SteadyRows(graph, device)
        self._sampler = SubgraphSampler(graph, size, seed)
        self._fills, self._room = not uses_kernels(device), 0
        self.num_steps = steps_of_epoch(graph.num_nodes, SAMPLED, size)
        self.described = (
            f"Training on parts of {min(size, graph.num_nodes):,} nodes, {self.num_steps} an epoch"
        )

    def draw(self, batch: EdgeBatch) -> Part:
        """What is seen while the targets of a batch are asked for.

        Raises:
            InputError: the batch has more nodes than a part.
        """
        batch = self._steady.fill(batch)
        rows = batch.rows.numpy()
        nodes = self._sampler.sample(rows)
        hidden = torch.cat([batch.edge, self._graph.mirrored_edges[batch.edge].long()])
        graph = self._filled(induced_subgraph(self._graph, nodes, hidden.numpy()))
        at = torch.from_numpy(np.searchsorted(nodes, rows))
        return Part(graph, torch.from_numpy(nodes), at, batch, None)

    def _filled(self, graph: KnowledgeGraph) -> KnowledgeGraph:
        """For GPUs, which prepare operations for each shape, sources that no edge type has."""
        if not self._fills:
            return graph
        if graph.num_edges > self._room:
            self._room = graph.num_edges * 9 // 8  # room for later ones
        src = torch.cat([graph.src, graph.src.new_zeros(self._room - graph.num_edges)])
        return replace(graph, src=src)


def views_of(
    graph: KnowledgeGraph, device: torch.device, training: str, subgraph_size: int | None, seed: int
) -> WholeGraph | Subgraphs:
    """What the steps of a kind of training see.

    Args:
        graph: on the CPU.
        device: where to train.
        training: full or sampled.
        subgraph_size: sampled: nodes that a step sees; `SUBGRAPH_SIZE` if None.
        seed: of all drawing.
    """
    if training == FULL:
        return WholeGraph(graph, device)
    return Subgraphs(graph, device, subgraph_size or SUBGRAPH_SIZE, seed)


def check_training(training: str, subgraph_size: int | None) -> None:
    """Refuse what is no kind of training, and a size that is of no use.

    Raises:
        InputError: it names the parameter.
    """
    if training not in (FULL, SAMPLED):
        raise InputError(f"training (got {training!r}) must be {FULL} or {SAMPLED}")
    if subgraph_size is not None:
        check_at_least("subgraph_size", subgraph_size, 1)
        if training == FULL:
            raise InputError(
                f"subgraph_size (got {subgraph_size}) is of no use with training {FULL!r}"
            )


def steps_of_epoch(num_nodes: int, training: str, subgraph_size: int | None) -> int:
    """How many steps see as many nodes as the graph has."""
    return 1 if training == FULL else -(-num_nodes // (subgraph_size or SUBGRAPH_SIZE))


def askable(edge_type_counts: IntArray, training: str) -> IntArray:
    """How many facts of each edge type a step may ask for, shape (R,).

    Raises:
        InputError: none of any.
    """
    if training == FULL:
        return edge_type_counts
    most = edge_type_counts // _ONE_IN
    if not most.any():
        raise InputError(
            f"training (got {SAMPLED!r}) asks for one in {_ONE_IN} edges of a type at most, "
            f"and the graph has no type of {_ONE_IN} edges"
        )
    return most
