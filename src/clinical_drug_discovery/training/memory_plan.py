"""Memory budgets: what a plan will need at its peak, said before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import psutil
import torch

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.ops.buffers import MOST_IDLE_BYTES
from clinical_drug_discovery.ops.cpu.attention import PIECE_EDGES
from clinical_drug_discovery.ops.edge_chunks import EDGE_CHUNK
from clinical_drug_discovery.ops.precision import padded, stored_bytes
from clinical_drug_discovery.system.errors import DoesNotFitError
from clinical_drug_discovery.system.machine import GIB, parse_memory, peak_memory_bytes
from clinical_drug_discovery.training.batches import (
    FULL,
    SAMPLED,
    SUBGRAPH_SIZE,
    askable,
    steps_of_epoch,
)
from clinical_drug_discovery.training.edge_sampler import NUM_CANDIDATES, share_out

# What comes on top of any plan: compiled kernels, libraries of matrix products and their work
# space, thread pools, and what the heap does not give back at once.
_FIXED = 190 * 2**20
_FIXED_HGT = 112 * 2**20  # more kernels, and gradients of many small matrices
_FACT = 150 + 2 * NUM_CANDIDATES  # of a batch: numbers, and which candidates count
CHUNK_SIZES = (32_768, 16_384, 8_192, 4_096, 2_048, 1_024)  # of inference, to choose from


@dataclass(frozen=True)
class GraphSizes:
    """The sizes of a graph that decide what training needs."""

    node_type_counts: Mapping[str, int]
    edge_type_counts: Mapping[EdgeType, int]

    @staticmethod
    def of(graph: KnowledgeGraph) -> GraphSizes:
        """The sizes of a graph."""
        nodes = dict(zip(graph.node_type_names, graph.type_ptr.diff().tolist(), strict=True))
        edges = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        return GraphSizes(nodes, edges)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return sum(self.node_type_counts.values())

    @property
    def num_edges(self) -> int:
        """Number of directed edges E."""
        return sum(self.edge_type_counts.values())

    @property
    def most(self) -> int:
        """Number of nodes n of the largest type."""
        return max(self.node_type_counts.values())

    def askable(self, training: str) -> dict[EdgeType, int]:
        """Facts of each edge type that a step may ask for."""
        counts = np.array(list(self.edge_type_counts.values()))
        return dict(zip(self.edge_type_counts, askable(counts, training).tolist(), strict=True))

    def expected_rows(self, sizes: Mapping[EdgeType, int]) -> int:
        """Nodes in a batch of facts: what drawing evenly would give, the most to be expected."""
        ends = dict.fromkeys(self.node_type_counts, 0)
        for kind, size in sizes.items():
            ends[kind.src_type] += size
            ends[kind.dst_type] += size
        others = {kind: max(n - NUM_CANDIDATES, 0) for kind, n in self.node_type_counts.items()}
        return sum(
            count - math.floor(others[kind] * math.exp(-ends[kind] / count))
            for kind, count in self.node_type_counts.items()
        )


@dataclass(frozen=True)
class Seen:
    """What a step of training sees of the graph."""

    num_nodes: int
    most: int  #: nodes of the largest type, at most
    num_steps: int  #: of an epoch
    own_bytes: int  #: of drawing a part of the graph, and of the part; 0 if the whole is seen

    @staticmethod
    def of(graph: GraphSizes, training: str, subgraph_size: int | None, hidden_dim: int) -> Seen:
        """By the parameters of these names."""
        if training == FULL:
            return Seen(graph.num_nodes, graph.most, 1, 0)
        num_nodes = min(subgraph_size or SUBGRAPH_SIZE, graph.num_nodes)
        # Mirrors, what is hidden, at most all sources and their mirrors, new numbers, and a copy of
        # the vectors.
        own = 13 * graph.num_edges + 12 * graph.num_nodes + 4 * num_nodes * hidden_dim
        num_steps = steps_of_epoch(graph.num_nodes, training, subgraph_size)
        return Seen(num_nodes, min(graph.most, num_nodes), num_steps, own)


@dataclass(frozen=True)
class SagePlan:
    """The sizes that decide what training and embedding with GraphSAGE need."""

    graph: GraphSizes
    hidden_dim: int
    embedding_dim: int
    num_layers: int
    edge_batch_size: int
    chunk_size: int
    training: str = FULL
    subgraph_size: int | None = None
    stored: int = 2  #: bytes of a number that edges gather
    edge_chunk: int = 0  #: edges whose rows plain torch holds at a time; the CPU's kernels, none
    rank_fit: int = 0  #: bytes of the ranker's fit, see `fit_memory`; 0 without one

    def num_rows(self) -> int:
        """Nodes in a batch, at most to be expected."""
        return self.graph.expected_rows(self.step_sizes())

    def step_sizes(self) -> dict[EdgeType, int]:
        """Facts of each edge type in the loss of a step."""
        most = self.graph.askable(self.training)
        num_steps = steps_of_epoch(self.graph.num_nodes, self.training, self.subgraph_size)
        total = -(-self.edge_batch_size // num_steps)
        return dict(zip(most, share_out(np.array(list(most.values())), total), strict=True))

    def bytes_needed(self) -> int:
        """Peak bytes beside what the process holds already (interpreter, libraries, the graph).

        With S bytes of a stored number, L hidden layers, n nodes of the largest type and M rows of
        a batch; where steps see parts of the graph, N, n and M of a step are those of a part, and
        what drawing it takes is added. Always there: 12 N C of vectors and Adam's two moments, 16
        bytes for each other weight. In a step the largest of: the hidden layers forward, with N C
        (4 L + 4 + S); the last layer and the loss, with 4 N C (L + 1) + M (8 C + 12 D); the last
        layer backward, with N C (4 L + 4) + M (8 C + 8 D + S C) + 4 n C; the hidden layers
        backward, with N C (4 L + 4 + S) + 4 n C. Inference: the vectors, the input and the rows
        that edges gather of it, and the result: 4 N C + N C (4 + S) + 4 N max(C, D), and the rows
        of a chunk. On CPUs also a buffer that waits to be used again, on GPUs 8 C for each edge of
        a chunk. The ranker's fit: vectors, embeddings, and its own.
        """
        nodes, most, hidden, dim = (
            self.graph.num_nodes, self.graph.most, self.hidden_dim, self.embedding_dim
        )  # fmt: skip
        layers = self.num_layers - 1
        seen = Seen.of(self.graph, self.training, self.subgraph_size, hidden)
        sizes = self.step_sizes()
        rows = self.num_rows()
        part = 4 * seen.num_nodes * hidden
        kept, gathered, largest = part * layers, self.stored * part // 4, 4 * seen.most * hidden
        step = max(
            kept + part + gathered if layers else 0,
            kept + (part if layers else 0) + gathered,
            kept + (part if layers else 0) + rows * (8 * hidden + 12 * dim),
            kept + part + rows * ((8 + self.stored) * hidden + 8 * dim) + largest,
            kept + part + gathered + largest if layers else 0,
        )
        vector, stored = 4 * nodes * hidden, self.stored * nodes * hidden
        weights = 16 * (2 * hidden * (hidden * layers + dim))
        training = 3 * vector + weights + step + _FACT * sum(sizes.values()) + seen.own_bytes
        training += _idle_bytes(self.edge_chunk, part)
        chunk = min(self.chunk_size, most) * 4 * (hidden + 3 * dim)
        inference = vector + vector + stored + 4 * nodes * max(hidden, dim) + chunk
        ranking = vector + weights // 4 + 4 * nodes * dim + self.rank_fit if self.rank_fit else 0
        return _FIXED + max(8 * self.edge_chunk * hidden + max(training, inference), ranking)


@dataclass(frozen=True)
class HgtPlan:
    """The sizes that decide what training and embedding with HGT need."""

    graph: GraphSizes
    num_sharing: int  #: at most so many ordered pairs of diseases share a gene
    num_diseases: int  #: that the contrastive term may draw from; 0 without one
    hidden_dim: int
    embedding_dim: int
    num_layers: int
    num_heads: int
    edge_sample_size: int
    chunk_size: int
    training: str = FULL
    subgraph_size: int | None = None
    stored: int = 2  #: bytes of a number that edges gather
    edge_chunk: int = 0  #: edges whose rows plain torch holds at a time; the CPU's kernels, none
    rank_fit: int = 0  #: bytes of the ranker's fit, see `fit_memory`; 0 without one

    def num_rows(self) -> int:
        """Nodes in a batch, at most to be expected."""
        pairs = 2 * min(self.step_size(), self.num_diseases)
        return min(pairs + self.graph.expected_rows(self.step_sizes()), self.graph.num_nodes)

    def step_sizes(self) -> dict[EdgeType, int]:
        """Facts of each edge type in the loss of a step."""
        size = self.step_size()
        return {kind: min(n, size) for kind, n in self.graph.askable(self.training).items()}

    def _seen(self) -> Seen:
        return Seen.of(self.graph, self.training, self.subgraph_size, self.hidden_dim)

    def step_size(self) -> int:
        """Facts of each edge type in the loss of a step, and pairs of diseases."""
        return -(-self.edge_sample_size // self._seen().num_steps)

    def bytes_needed(self) -> int:
        """Peak bytes beside what the process holds already (interpreter, libraries, the graph).

        With S bytes of a stored number, P the width with padded heads, n nodes of the largest type,
        M rows of a batch, L layers; where steps see parts of the graph, N, n and M of a step are
        those of a part, and what drawing it takes is added. Always there: 12 N C of vectors and
        Adam's two moments, 16 bytes for each other weight, 4 for each mirrored edge, 60 for each
        pair of diseases that share a gene. Buffers of one source type: forward 4 S n P, backward n
        P (6 S + 8), on GPUs n P (4 S + 16), and the shares of 2**18 edges. Kept of the first k
        layers: k N (4 C + S P). In a step the largest of: a hidden layer forward, with what is kept
        of those before, 4 N C, and N P (4 + S) or 4 N (P + C); the loss, with what is kept of the
        hidden layers, 4 N C and M (4 P + 4 C + 8 D); the last layer backward, with the same, 4 N C
        again and M P (4 + 2 S); a hidden layer backward, with what is kept of those before, 8 N C
        and N P (4 + 2 S). Inference: the vectors, a stage's input and result, a chunk's rows and
        the forward buffers. On CPUs also a buffer that waits to be used again, on GPUs 24 P for
        each edge of a chunk, half of it in inference. The ranker's fit: vectors, embeddings, and
        its own.
        """
        graph, hidden, dim, layers = (
            self.graph, self.hidden_dim, self.embedding_dim, self.num_layers
        )  # fmt: skip
        nodes, most, stored = graph.num_nodes, graph.most, self.stored
        width = self.num_heads * padded(hidden // self.num_heads)
        seen, size, vector = self._seen(), self.step_size(), 4 * nodes * hidden
        rows, part, wide = self.num_rows(), 4 * seen.num_nodes * hidden, 4 * seen.num_nodes * width
        forward = 4 * stored * seen.most * width
        largest = min(PIECE_EDGES, max(graph.edge_type_counts.values()))
        summed = 4 if self.edge_chunk else stored  # plain torch adds edge by edge to it
        backward = seen.most * width * (4 * stored + 2 * summed + 8)
        backward += 2 * stored * self.num_heads * largest
        gathered = stored * seen.num_nodes * width
        kept = (layers - 1) * (part + gathered)  # of the hidden layers
        loss = kept + part + rows * (4 * width + 4 * hidden + 8 * dim)
        loss += 24 * min(size, self.num_diseases) ** 2
        last = kept + 2 * part + rows * width * (4 + 2 * stored) + backward
        step = max(loss, last, 2 * part)
        if layers > 1:
            before = (layers - 2) * (part + gathered)
            step = max(
                step,
                before + part + wide + max(gathered + forward, part, gathered),
                before + 2 * part + wide + 2 * gathered + backward,
            )
        types, edge_types = len(graph.node_type_counts), len(graph.edge_type_counts)
        weights = types * hidden * (4 * hidden * layers + hidden + dim)
        weights += 2 * layers * edge_types * hidden * hidden // self.num_heads
        drawn = sum(self.step_sizes().values())
        training = 3 * vector + 16 * weights + _FACT * drawn + step
        training += seen.own_bytes or 4 * graph.num_edges
        training += _idle_bytes(self.edge_chunk, part)
        chunk = min(self.chunk_size, most) * (width * (4 + stored) + 4 * (hidden + dim))
        inference = vector + vector + 4 * nodes * max(hidden, dim) + chunk
        inference += 4 * stored * most * width
        gathers = 24 * self.edge_chunk * width
        ranking = vector + 4 * weights + 4 * nodes * dim + self.rank_fit if self.rank_fit else 0
        needed = max(training + gathers, inference + 16 * weights + gathers // 2, ranking)
        return _FIXED + _FIXED_HGT + 60 * self.num_sharing + needed


def _idle_bytes(edge_chunk: int, vector: int) -> int:
    """What waits in `ops.buffers` to be used again, if buffers are large enough; not on GPUs."""
    return 0 if edge_chunk else min(MOST_IDLE_BYTES, vector)


Plan = SagePlan | HgtPlan
AnyPlan = TypeVar("AnyPlan", SagePlan, HgtPlan)


def plan_for(plan: AnyPlan, device: torch.device) -> AnyPlan:
    """The plan on a device, which need not be here."""
    edge_chunk = 0 if uses_kernels(device) else EDGE_CHUNK
    return replace(plan, stored=stored_bytes(device), edge_chunk=edge_chunk)


def fit_plan(
    plan: AnyPlan, memory_budget: str | int | None, *, choose_chunk_size: bool
) -> tuple[AnyPlan, int]:
    """Choose the chunk size of a plan so that its predicted peak fits the budget, or refuse it.

    Args:
        plan: what is to be run.
        memory_budget: see `parse_memory`.
        choose_chunk_size: take the largest of `CHUNK_SIZES` that fits, else leave the plan's own.

    Returns:
        The plan, and the predicted peak resident size of the process in bytes.

    Raises:
        InputError: it does not fit; the message says what would do and which parameters help.
    """
    budget = parse_memory(memory_budget)
    held = psutil.Process().memory_info().rss
    if memory_budget is None:
        budget += held  # what is free does not count what this process holds already
    sizes = CHUNK_SIZES if choose_chunk_size else (plan.chunk_size,)
    for size in sizes:
        fitted = replace(plan, chunk_size=size)
        peak = max(held + fitted.bytes_needed(), peak_memory_bytes())
        if peak <= budget:
            return fitted, peak
    limit = "70% of the free memory" if memory_budget is None else repr(memory_budget)
    raise DoesNotFitError(
        f"memory_budget (got {limit}, {budget / GIB:.2f} GiB) is too small: this run needs "
        f"{_gib(peak)}; {_what_helps(fitted, held, budget)}"
    )


def _what_helps(plan: Plan, held: int, budget: int) -> str:
    """How much half of each parameter would save, or a quarter, and whether that is enough."""
    now = held + plan.bytes_needed()
    options = []
    names = "hidden_dim", "num_layers", "edge_batch_size", "edge_sample_size", "embedding_dim"
    for name in names:
        if not hasattr(plan, name):
            continue
        step = plan.num_heads if name == "hidden_dim" and isinstance(plan, HgtPlan) else 1
        least = max(step, 1 if name == "num_layers" else 2)
        for part in (2, 4):
            value = max(least, getattr(plan, name) // part // step * step)
            needed = held + replace(plan, **{name: value}).bytes_needed()
            if needed < now and (needed <= budget or part == 4):
                enough = "" if needed <= budget else ", which is not enough alone"
                options.append(f"{name} {value} needs {_gib(needed)}{enough}")
                break
    if plan.training == FULL:
        needed = held + replace(plan, training=SAMPLED).bytes_needed()
        if needed < now:
            enough = "" if needed <= budget else ", which is not enough alone"
            options.append(f"training sampled needs {_gib(needed)}{enough}")
    if isinstance(plan, HgtPlan):
        needed = held + replace(plan, num_sharing=0).bytes_needed()
        if needed <= budget:
            options.append(
                f"{plan.num_sharing:,} pairs that share by disease_gene_relation are "
                f"too many, without them {_gib(needed)} is needed"
            )
    needed = held + replace(plan, rank_fit=0).bytes_needed()
    if needed < now:
        enough = "" if needed <= budget else ", which is not enough alone"
        options.append(f"no ranker needs {_gib(needed)}{enough}")
    return "; ".join([*options, "fewer nodes (limit_nodes) need less of everything"])


def _gib(size: int) -> str:
    """Rounded up, so that asking for what is printed is enough."""
    return f"{math.ceil(size / GIB * 100) / 100:.2f} GiB"
