"""What a step of training sees of the graph: all of it, or a part drawn for its facts.

A part of the graph that a step of training sees in place of all of it.

Sampled by nodes with all edges among them, as "GraphSAINT: Graph Sampling Based Inductive Learning
Method" (arXiv:1907.04931) does: of neighbourhoods drawn for each node apart, three layers would
soon reach all nodes. All drawing is done on the host with numpy, so a seed gives the same parts on
every device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph.edge_kernels import kept_edges
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.ops.blocks import Block, full_block, row_block
from clinical_drug_discovery.system.errors import InputError, check_at_least
from clinical_drug_discovery.training.edge_sampler import EdgeBatch, SteadyRows

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
        hidden = torch.cat([batch.edge, self._graph.reverse_edges[batch.edge].long()])
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


def induced_subgraph(graph: KnowledgeGraph, nodes: IntArray, hidden: IntArray) -> KnowledgeGraph:
    """Some nodes, with all edges among them but those that are hidden.

    Args:
        graph: on the CPU.
        nodes: shape (n,), distinct and ascending.
        hidden: shape (K,), numbers of edges to leave out; each with its mirror.

    Returns:
        A graph of n nodes of the same types and edge types, of which some may be empty.
    """
    place = np.full(graph.num_nodes, -1, np.int32)
    place[nodes] = np.arange(len(nodes), dtype=np.int32)
    gone = np.zeros(graph.num_edges, bool)
    gone[hidden] = True
    type_ptr = np.searchsorted(nodes, graph.type_offsets)
    runs = [
        nodes[type_ptr[dst] : type_ptr[dst + 1]] + (graph.indptr_ptr[r] - graph.type_offsets[dst])
        for r, (_, dst) in enumerate(graph.endpoint_types)
    ]
    first, indptr = np.cumsum([0, *map(len, runs)]), graph.indptr.numpy()
    run = np.concatenate(runs)
    src, ptr = kept_edges(indptr[run], indptr[run + 1], graph.src.numpy(), place, gone)
    return replace(
        graph,
        node_type=graph.node_type[torch.from_numpy(nodes)],
        src=torch.from_numpy(src),
        indptr=torch.from_numpy(
            np.concatenate([ptr[start : stop + 1] for start, stop in pairwise(first)])
        ),
        edge_type_ptr=torch.from_numpy(ptr[first]),
        type_ptr=torch.from_numpy(type_ptr),
        nodes=graph.nodes[nodes],
    )


class SubgraphSampler:
    """Draws nodes around those of a batch: as many of each node type, while batches allow it."""

    def __init__(self, graph: KnowledgeGraph, size: int, seed: int) -> None:
        """Prepare to draw.

        Args:
            graph: on the CPU.
            size: number of nodes to draw, those of a batch included.
            seed: of all drawing.
        """
        self._graph, self._size = graph, min(size, graph.num_nodes)
        self._rng = np.random.default_rng((seed, 3))
        self._sizes: IntArray | None = None  # of each node type; what the first batch leads to

    def sample(self, rows: IntArray) -> IntArray:
        """Draw neighbours of the nodes of a batch.

        Args:
            rows: shape (M,), distinct and ascending.

        Returns:
            The rows and others, shape (n,), distinct and ascending.

        Raises:
            InputError: the rows alone are more than the size.
        """
        bounds = self._graph.type_offsets
        near = np.setdiff1d(self._neighbors(rows), rows)
        near_ptr, row_ptr = np.searchsorted(near, bounds), np.searchsorted(rows, bounds)
        if len(rows) > self._size:
            raise InputError(
                f"subgraph_size (got {self._size:,}) must be at least the number of nodes of a "
                f"step's facts and candidates, {len(rows):,} here"
            )
        own_counts = np.diff(row_ptr)
        if self._sizes is None:
            self._sizes = self._share_out(own_counts, np.diff(near_ptr))
        rooms = np.maximum(self._sizes - own_counts, 0)
        while (over := int(rooms.sum()) + len(rows) - self._size) > 0:  # a type outgrows its share
            rooms[rooms.argmax()] -= min(over, int(rooms.max()))
        parts = [rows]
        for t, (first, last) in enumerate(pairwise(bounds)):
            own = rows[row_ptr[t] : row_ptr[t + 1]]
            room = int(rooms[t])
            found = near[near_ptr[t] : near_ptr[t + 1]]
            if len(found) > room:
                found = self._rng.choice(found, room, replace=False)
            elif len(found) < room:
                others = np.setdiff1d(np.arange(first, last), np.concatenate([own, found]))
                drawn = self._rng.choice(others, room - len(found), replace=False)
                found = np.concatenate([found, drawn])
            parts.append(found)
        return np.sort(np.concatenate(parts))

    def _neighbors(self, rows: IntArray) -> IntArray:
        """For each row and edge type one of its sources, drawn evenly."""
        graph, found = self._graph, []
        row_ptr, src = np.searchsorted(rows, graph.type_offsets), graph.src.numpy()
        for r, (_, dst) in enumerate(graph.endpoint_types):
            at = rows[row_ptr[dst] : row_ptr[dst + 1]] - graph.type_offsets[dst]
            indptr = graph.indptr_of(r).numpy()
            start, degree = indptr[at], indptr[at + 1] - indptr[at]
            start, degree = start[degree > 0], degree[degree > 0]
            found.append(src[start + (self._rng.random(len(start)) * degree).astype(np.int64)])
        return np.concatenate(found)

    def _share_out(self, own: IntArray, near: IntArray) -> IntArray:
        """How many nodes of each type to take: the batch's, and of the rest as many as are near."""
        most = np.diff(self._graph.type_offsets)
        lacking = self._size - int(own.sum())
        sizes: IntArray = np.minimum(own + lacking * near // max(int(near.sum()), 1), most)
        for t in np.argsort(sizes - most, kind="stable"):  # what rounding left over, and full types
            more = min(self._size - int(sizes.sum()), int(most[t] - sizes[t]))
            sizes[t] += more
        return sizes
