"""Batches: the input of one training step, with the whole graph or a sampled subgraph.

A subgraph consists of the nodes of the batch's positives and candidates, some neighbors of these
nodes, and all edges among the chosen nodes, as in "GraphSAINT: Graph Sampling Based Inductive
Learning Method" (arXiv:1907.04931). If neighbors were sampled for each node and layer instead,
three layers would reach almost all nodes of the graph. All sampling runs on the CPU with numpy, so
a seed gives the same batches on every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.knowledge_graph import GraphArrays, IntArray, KnowledgeGraph
from ..models.kinds.interface import FULL, SAMPLED, SUBGRAPH_SIZE
from ..ops.backend import Backend
from ..ops.blocks import Block, full_block, row_block
from ..ops.fixed_shapes import FixedSizes, needs_fixed_shapes
from ..system.errors import InputError
from .edge_sampler import EdgeBatch, RowPadding

# A subgraph hides the positives, at most one in four edges of an edge type. If all edges of a small
# edge type were hidden, the weights of that type would never be trained.
_EDGES_PER_POSITIVE = 4
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HostBatch:
    """A batch on the CPU, before it is moved to the device."""

    backend: Backend  #: the backend that the training uses
    graph: KnowledgeGraph  #: the whole graph, already on the device, or a subgraph on the CPU
    nodes: Tensor | None  #: shape (n,), int64: the subgraph's nodes in the whole graph, or None
    rows: Tensor  #: shape (M,), int64: number in `graph` of each of the nodes of `facts`
    facts: EdgeBatch  #: positives and candidates
    all_nodes: Block | None  #: edges into all nodes of the whole graph; None for a subgraph

    def to_device(self) -> DeviceBatch:
        """Move the batch to the backend's device."""
        device = self.backend.device
        graph = self.graph.to(device)
        return DeviceBatch(
            self.all_nodes or full_block(graph, self.backend),
            row_block(graph, self.rows, self.backend),
            None if self.nodes is None else self.nodes.to(device),
            self.facts.to(device),
            self.facts.rows,
        )


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device: the input of the models and losses."""

    all_nodes: Block  #: edges into all nodes, for every layer except the last
    targets: Block  #: edges into the nodes of `facts`, for the last layer
    nodes: Tensor | None  #: see `HostBatch.nodes`
    facts: EdgeBatch  #: positives and candidates
    rows: Tensor  #: shape (M,), int64, on the CPU: numbers in the whole graph


class FullBatch:
    """Makes batches with the whole graph, for `training="full"`."""

    num_steps = per_step = 1  #: steps in an epoch, and batches in a step
    description = "Full-batch training with edge sampling"

    def __init__(self, graph: KnowledgeGraph, backend: Backend) -> None:
        """Move the graph to the device.

        Args:
            graph: on the CPU.
            backend: the backend that the training uses.
        """
        # A copy with the same tensors: the reverse edges that steps compute are freed with it.
        self._graph, self._backend = replace(graph).to(backend.device), backend
        self._padding = RowPadding(graph, backend.device)
        self._all_nodes = full_block(self._graph, backend)

    def next(self, facts: EdgeBatch) -> HostBatch:
        """Return a batch with the whole graph and these positives and candidates."""
        facts = self._padding.pad(facts)
        return HostBatch(self._backend, self._graph, None, facts.rows, facts, self._all_nodes)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: on the CPU, nothing changes from batch to batch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class SubgraphBatches:
    """Makes batches with a subgraph that lacks the positives' edges, for `training="sampled"`.

    An epoch has num_nodes / (size * per_step) steps, rounded up.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        backend: Backend,
        size: int,
        seed: int,
        hidden: Mask | None = None,
        per_step: int = 1,
    ) -> None:
        """Prepare the sampling.

        Args:
            graph: on the CPU.
            backend: the backend that the training uses.
            size: number of nodes in each subgraph.
            seed: seed of the sampling.
            hidden: shape (E,), True for edges that no subgraph has, in both directions.
            per_step: number of subgraphs whose gradients a step averages.
        """
        self._graph, self._backend = replace(graph), backend  # see `FullBatch`
        self._marks = Marks.of(graph, hidden)
        self._padding = RowPadding(graph, backend.device)
        self._sampler = SubgraphSampler(graph, size, seed)
        self._num_edges = FixedSizes(np.array([graph.num_edges]))
        size = min(size, graph.num_nodes)
        self.per_step = per_step
        self.num_steps = num_steps_of(graph.num_nodes, size, per_step)
        several = f" times {per_step}" if per_step > 1 else ""
        self.description = (
            f"Training on subgraphs of {size:,} nodes, {self.num_steps}{several} an epoch"
        )

    def begin(self, part: int) -> None:
        """Sample for a part of the training; see `RandomSampler.begin`."""
        self._sampler.begin(part)

    def next(self, facts: EdgeBatch) -> HostBatch:
        """Return a batch with these positives and candidates and a subgraph around them.

        Raises:
            InputError: the positives and candidates have more nodes than a subgraph.
        """
        facts = self._padding.pad(facts)
        rows = facts.rows.numpy()
        nodes = self._sampler.sample(rows)
        hidden = torch.cat([facts.edge, self._graph.reverse_edges[facts.edge].long()])
        part = induced_subgraph(self._graph, nodes, hidden.numpy(), self._marks)
        graph = self._padded(part)
        local_rows = torch.from_numpy(np.searchsorted(nodes, rows))
        return HostBatch(self._backend, graph, torch.from_numpy(nodes), local_rows, facts, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the sampling; the padded sizes on a GPU are found again."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of batches of the same graph and size."""
        self._sampler.load_state_dict(state)

    def _padded(self, graph: KnowledgeGraph) -> KnowledgeGraph:
        """On a GPU, append sources that belong to no edge type; on the CPU, change nothing."""
        if not needs_fixed_shapes(self._backend.device):
            return graph
        (size,) = self._num_edges.fit(np.array([graph.num_edges])).tolist()
        src = np.concatenate([graph.arrays.src, np.zeros(size - graph.num_edges, np.int32)])
        return replace(graph, arrays=graph.arrays._replace(src=src))


def make_batches(
    graph: KnowledgeGraph,
    backend: Backend,
    training: str,
    subgraph_size: int | None,
    seed: int,
    *,
    read: KnowledgeGraph | None = None,
    hidden: Mask | None = None,
    per_step: int = 1,
) -> FullBatch | SubgraphBatches:
    """Return the object that makes the batches of "full" or "sampled" training.

    Args:
        graph: on the CPU; its edges have the numbers of positives.
        backend: the backend that the training uses.
        training: "full" or "sampled".
        subgraph_size: number of nodes in each subgraph; None means `SUBGRAPH_SIZE`.
        seed: seed of the sampling.
        read: the same graph without the hidden edges; None: the same graph.
        hidden: shape (E,), True for edges of `graph` that the model does not read.
        per_step: number of subgraphs in a step.
    """
    if training == FULL:
        return FullBatch(graph if read is None else read, backend)
    size = subgraph_size or SUBGRAPH_SIZE
    return SubgraphBatches(graph, backend, size, seed, hidden, per_step)


def num_steps_of(num_nodes: int, size: int, per_step: int) -> int:
    """Return the number of steps of an epoch with some subgraphs of `size` nodes each."""
    return math.ceil(math.ceil(num_nodes / size) / per_step)


def max_positives(edge_type_counts: IntArray, training: str) -> IntArray:
    """Return the largest allowed number of positives of each edge type in a step, shape (R,).

    Raises:
        InputError: this number is 0 for every edge type.
    """
    if training == FULL:
        return edge_type_counts
    most = edge_type_counts // _EDGES_PER_POSITIVE
    if not most.any():
        raise InputError(
            f"training (got {SAMPLED!r}) takes at most one in {_EDGES_PER_POSITIVE} edges of a "
            f"type as positives, and no edge type has {_EDGES_PER_POSITIVE} edges"
        )
    return most


class Marks(NamedTuple):
    """Arrays for `induced_subgraph`. To make them for each subgraph would take longer than it."""

    number: npt.NDArray[np.int32]  #: shape (N,), -1: later the number of a node in the subgraph
    gone: Mask  #: shape (E,), True for edges that no subgraph has

    @staticmethod
    def of(graph: KnowledgeGraph, hidden: Mask | None = None) -> Marks:
        """Return the marks of a graph, with the mask `hidden` as `gone`."""
        gone = np.zeros(graph.num_edges, bool) if hidden is None else hidden
        return Marks(np.full(graph.num_nodes, -1, np.int32), gone)


def induced_subgraph(
    graph: KnowledgeGraph, nodes: IntArray, hidden: IntArray, marks: Marks | None = None
) -> KnowledgeGraph:
    """Return the subgraph of some nodes, with all edges among these nodes except the hidden edges.

    Args:
        graph: on the CPU.
        nodes: shape (n,), node numbers, distinct and ascending.
        hidden: shape (K,), numbers of the hidden edges; must contain the reverse of each edge.
        marks: of the graph; the edges that they mark are hidden, too. They are the same afterwards.

    Returns:
        A graph of n nodes with the node types and edge types of `graph`. A type may be empty.
    """
    new_number, gone = marks or Marks.of(graph)
    marked = gone[hidden]
    gone[hidden] = True
    new_number[nodes] = np.arange(len(nodes), dtype=np.int32)
    type_ptr = np.searchsorted(nodes, graph.type_offsets)
    runs = [  # positions in graph.indptr of the chosen target nodes of each edge type
        nodes[type_ptr[dst] : type_ptr[dst + 1]] + (graph.indptr_ptr[r] - graph.type_offsets[dst])
        for r, (_, dst) in enumerate(graph.endpoint_types)
    ]
    first, run = np.cumsum([0, *map(len, runs)]), np.concatenate(runs)
    begin, end = graph.arrays.indptr[run], graph.arrays.indptr[run + 1]
    # Numbers of all edges into the chosen nodes, ordered by edge type and target.
    count = end - begin
    edge_ptr = np.cumsum(count)
    edge = np.repeat(begin - (edge_ptr - count), count) + np.arange(count.sum())
    src = new_number[graph.arrays.src[edge]]
    kept = (src >= 0) & ~gone[edge]
    new_number[nodes] = -1
    gone[hidden] = marked
    num_kept = np.concatenate([[0], np.cumsum(kept)])
    ptr = np.concatenate([[0], num_kept[edge_ptr]])
    arrays = GraphArrays(
        node_type=graph.arrays.node_type[nodes],
        src=src[kept],
        indptr=np.concatenate([ptr[start : stop + 1] for start, stop in pairwise(first)]),
        edge_type_ptr=ptr[first],
        type_ptr=type_ptr,
    )
    return replace(graph, arrays=arrays, nodes=graph.nodes[nodes])


def _unused(places: IntArray, first: int, used: IntArray) -> IntArray:
    """Return the numbers at some places, from 0, among the numbers from `first` on without `used`.

    `used` is distinct and ascending.
    """
    before = used - first - np.arange(len(used))  # number of unused numbers below each used one
    found: IntArray = first + places + np.searchsorted(before, places, side="right")
    return found


class SubgraphSampler:
    """Samples the nodes of subgraphs. If possible, each has the same number of nodes of a type."""

    def __init__(self, graph: KnowledgeGraph, size: int, seed: int) -> None:
        """Prepare the sampling.

        Args:
            graph: on the CPU.
            size: number of nodes in each subgraph, including the nodes of the batch.
            seed: seed of the sampling.
        """
        self._graph, self._size = graph, min(size, graph.num_nodes)
        self._seed = (seed, 3)
        self._rng = np.random.default_rng(self._seed)
        self._sizes: IntArray | None = None  # number of each node type; set at the first batch

    def sample(self, rows: IntArray) -> IntArray:
        """Sample the nodes of a subgraph: those of a batch, neighbors, and random nodes if needed.

        Args:
            rows: shape (M,), nodes of the batch, distinct and ascending.

        Returns:
            `rows` and the sampled nodes, shape (n,), distinct and ascending.

        Raises:
            InputError: the batch has more nodes than a subgraph.
        """
        bounds = self._graph.type_offsets
        near = np.setdiff1d(self._neighbors(rows), rows)
        near_ptr, row_ptr = np.searchsorted(near, bounds), np.searchsorted(rows, bounds)
        if len(rows) > self._size:
            raise InputError(
                f"subgraph_size (got {self._size:,}) must be at least {len(rows):,}, the number of "
                "nodes of this step's positives and candidates"
            )
        own_counts = np.diff(row_ptr)
        if self._sizes is None:
            self._sizes = self._divide(own_counts, np.diff(near_ptr))
        free = np.maximum(self._sizes - own_counts, 0)
        # If `rows` has more nodes of a type than planned, other types get fewer nodes.
        while (excess := int(free.sum()) + len(rows) - self._size) > 0:
            free[free.argmax()] -= min(excess, int(free.max()))
        parts = [rows]
        for t, (first, last) in enumerate(pairwise(bounds)):
            own = rows[row_ptr[t] : row_ptr[t + 1]]
            wanted = int(free[t])
            found = near[near_ptr[t] : near_ptr[t + 1]]
            if len(found) > wanted:
                found = self._rng.choice(found, wanted, replace=False)
            elif len(found) < wanted:
                used = np.sort(np.concatenate([own, found]))
                drawn = self._rng.choice(
                    last - first - len(used), wanted - len(found), replace=False
                )
                found = np.concatenate([found, _unused(drawn, first, used)])
            parts.append(found)
        return np.sort(np.concatenate(parts))

    def begin(self, part: int) -> None:
        """Sample for a part of the training; see `RandomSampler.begin`."""
        self._rng = np.random.default_rng((*self._seed, part))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator, and the number of nodes of each type."""
        sizes = None if self._sizes is None else self._sizes.tolist()
        return {"rng": self._rng.bit_generator.state, "sizes": sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of a sampler with the same graph and size.

        Raises:
            ValueError: the numbers of nodes are not those of a subgraph of this graph.
        """
        sizes = state["sizes"]
        if sizes is not None:
            sizes = np.array(sizes, np.int64)
            most = np.diff(self._graph.type_offsets)
            if sizes.shape != most.shape or (sizes < 0).any() or (sizes > most).any():
                raise ValueError(f"sizes (got {sizes}) are not those of a subgraph")
        self._rng.bit_generator.state = state["rng"]
        self._sizes = sizes

    def _neighbors(self, rows: IntArray) -> IntArray:
        """Sample one source uniformly for each edge type and each row that has such edges."""
        graph, found = self._graph, []
        row_ptr, src = np.searchsorted(rows, graph.type_offsets), graph.src.numpy()
        for r, (_, dst) in enumerate(graph.endpoint_types):
            at = rows[row_ptr[dst] : row_ptr[dst + 1]] - graph.type_offsets[dst]
            indptr = graph.indptr_of(r).numpy()
            start, degree = indptr[at], indptr[at + 1] - indptr[at]
            start, degree = start[degree > 0], degree[degree > 0]
            found.append(src[start + (self._rng.random(len(start)) * degree).astype(np.int64)])
        return np.concatenate(found)

    def _divide(self, own: IntArray, near: IntArray) -> IntArray:
        """Return the number of nodes of each type: `own`, and the rest in proportion to `near`."""
        most = np.diff(self._graph.type_offsets)
        lacking = self._size - int(own.sum())
        sizes: IntArray = np.minimum(own + lacking * near // max(int(near.sum()), 1), most)
        # Give the nodes that remain after rounding to the types with the most unused nodes.
        for t in np.argsort(sizes - most, kind="stable"):
            more = min(self._size - int(sizes.sum()), int(most[t] - sizes[t]))
            sizes[t] += more
        return sizes
