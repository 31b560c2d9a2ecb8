"""The memory plan: predict the peak memory of a run before anything is allocated.

The peak occurs at one of a few moments of the run. For each of these moments, `Plan.bytes_needed`
and the `needs` of the model add up the bytes of all arrays that exist then. The largest sum is the
predicted peak. Letters in shapes: N nodes, C = hidden_dim, M nodes of a batch.

With a scratch directory, a run that does not fit has large arrays in files (`ops.buffers`). Each
counts with `LEAST_IN_FILES` bytes, since the system can drop other pages. The rows of one node
type, which edges read in any order, count in full.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from ..graph.knowledge_graph import EdgeType, KnowledgeGraph
from ..models.kinds.interface import FULL, SAMPLED, SUBGRAPH_SIZE, Settings, Sizes
from ..models.kinds.table import kind_of
from ..models.walk_vectors import walk_bytes
from ..ops.backend import BLOCK_ROWS, Backend, choose_backend
from ..ops.buffers import LEAST_IN_FILES, MOST_IDLE_BYTES
from ..ops.reference import EDGE_CHUNK
from ..system.errors import DoesNotFitError, InputError
from ..system.limits.memory import available_memory, parse_memory, sufficient_gib
from ..system.machine import GIB, limit_memory, peak_memory_bytes
from ..system.progress import Run
from .batches import max_positives
from .edge_sampler import NUM_CANDIDATES, divide_equally
from .graph_sizes import GraphSizes
from .objective.disease_pairs import compared_by_genes, most_sharing_pairs
from .objective.sizes import ComparedSizes

# bytes that every run takes: compiled kernels, libraries for matrix products, thread pools, and
# freed memory that the C heap keeps for a while
_FIXED = 190 * 2**20
_FACT = 150 + NUM_CANDIDATES  # bytes for each positive of a batch: node numbers and a mask
_PAGE = 4096  # least number of bytes that are read from a file
_BATCH_ROOM = 1.1  # largest number of nodes of a batch / expected number of nodes
#: numbers of nodes that inference can embed at a time, the largest first
CHUNK_SIZES = (32_768, 16_384, 8_192, 4_096, 2_048, 1_024)
#: The same with large arrays in files: their size is free, and few chunks read the files seldom.
FILE_CHUNK_SIZES = (262_144, 131_072, 65_536, *CHUNK_SIZES)


@dataclass(frozen=True)
class Plan:
    """The choices that are made before training, and the peak memory that they lead to."""

    graph: GraphSizes
    settings: Settings
    backend: Backend
    #: with a contrastive loss: upper bound of the number of disease pairs with a common gene
    num_sharing: int = 0
    rank_fit: int = 0  #: bytes that the fit of the ranker takes; 0 without a ranker
    chunk_size: int = CHUNK_SIZES[0]  #: number of nodes that inference embeds at a time
    scratch_dir: Path | None = None  #: directory of the files of large arrays; None: in memory
    predicted_bytes: int = 0  #: peak memory of the process in bytes; 0 before the prediction

    @property
    def is_small(self) -> bool:
        """True if the graph is so small that the CPU computes best on one thread."""
        return self.backend.device.type == "cpu" and self.edge_chunk > 0

    @property
    def copies(self) -> int:
        """Number of copies of a batch: one on the CPU, and one on another device."""
        return 1 if self.backend.device.type == "cpu" else 2

    @property
    def stored(self) -> int:
        """Bytes per number in the copy of the node vectors that edges read."""
        return self.backend.storage_dtype(torch.float32).itemsize

    @property
    def edge_chunk(self) -> int:
        """Number of edges that torch's operations process at a time; 0 with the CPU kernels."""
        return 0 if self.backend.kernels else min(EDGE_CHUNK, self.graph.num_edges)

    @property
    def num_steps(self) -> int:
        """Number of steps in an epoch."""
        return -(-self.graph.num_nodes // self.step_nodes)

    @property
    def step_nodes(self) -> int:
        """Number of nodes in the graph or subgraph of a step."""
        if self.settings.training == FULL:
            return self.graph.num_nodes
        return min(self.settings.subgraph_size or SUBGRAPH_SIZE, self.graph.num_nodes)

    @property
    def positives(self) -> dict[EdgeType, int]:
        """Number of positives of each edge type in a step."""
        counts = np.array(list(self.graph.edge_type_counts.values()))
        most = max_positives(counts, self.settings.training)
        asked = self.settings.positives
        number = -(-asked.number // self.num_steps)
        if asked.of_each_type:
            sizes = np.minimum(most, number).tolist()
        else:
            sizes = divide_equally(most, number)
        return dict(zip(self.graph.edge_type_counts, sizes, strict=True))

    @property
    def num_pairs(self) -> int:
        """Number of disease pairs in the contrastive loss of a step; 0 without that loss."""
        contrast = self.settings.contrast
        if contrast is None or not contrast.weight:
            return 0
        return min(-(-contrast.num_pairs // self.num_steps), self.graph.num_diseases)

    @property
    def compared(self) -> ComparedSizes:
        """Sizes of the terms beside link prediction."""
        graph = self.graph
        return ComparedSizes(graph.num_drugs, graph.num_diseases, self.num_pairs, self.num_steps)

    @property
    def read_bytes(self) -> int:
        """Bytes of the graph without treatments, which the model reads."""
        ends = sum(
            self.graph.node_type_counts[kind.dst_type] for kind in self.graph.edge_type_counts
        )
        return 4 * self.graph.num_edges + 8 * ends

    @property
    def num_rows(self) -> int:
        """Expected number M of distinct nodes in a batch."""
        return self.graph.expected_rows(self.positives, self.compared)

    @property
    def subgraph_bytes(self) -> int:
        """Bytes of a subgraph and of the arrays that sample it; 0 with full batches."""
        if self.settings.training == FULL:
            return 0
        # For each edge: its reverse edge, the mask of hidden edges, and the subgraph's sources and
        # reverse edges. For each node: its number in the subgraph. Copied input vectors.
        vectors = 4 * self.step_nodes * self.settings.hidden_dim
        return 13 * self.graph.num_edges + 12 * self.graph.num_nodes + vectors

    def bytes_needed(self) -> int:
        """Return the predicted peak in bytes, without the memory that is in use before training."""
        settings, nodes = self.settings, self.graph.num_nodes
        needs = kind_of(settings.model).needs(self._sizes(), settings)
        vectors = self.held(4 * nodes * settings.hidden_dim)  # the input vectors of all nodes
        x = self.held(4 * self.step_nodes * settings.hidden_dim)  # a layer's input in a step
        training = (
            3 * vectors  # input vectors, and two moments of Adam for them
            + 4 * needs.weights  # weights, gradients, and two moments of Adam
            + needs.step
            + self.copies * _FACT * sum(self.positives.values())
            + self.subgraph_bytes
            + (0 if self.edge_chunk else min(MOST_IDLE_BYTES, x))  # freed buffers, kept for reuse
        )
        result = self.held(4 * nodes * max(settings.hidden_dim, settings.embedding_dim))
        inference = 2 * vectors + result + needs.inference  # input and result of a stage
        # `num_sharing`: 60 bytes for each pair of diseases while their similarity is computed
        fixed = _FIXED + needs.fixed + self.read_bytes + 60 * self.num_sharing
        if self.scratch_dir is not None:  # rows of one type, and what is computed from them
            fixed += 8 * self.graph.largest_type * settings.hidden_dim
        ranking = _ranking_bytes(self, needs.weights)
        return fixed + max(_starting_bytes(self), training, inference, ranking)

    def held(self, num_bytes: int) -> int:
        """Return the bytes of a large array that count as memory: few if it lies in a file."""
        return num_bytes if self.scratch_dir is None else min(num_bytes, LEAST_IN_FILES)

    @property
    def file_bytes(self) -> int:
        """Bytes of the files in the scratch directory at their peak; 0 without one."""
        if self.scratch_dir is None:
            return 0
        settings, nodes = self.settings, self.graph.num_nodes
        whole = replace(self, scratch_dir=None)
        needs = kind_of(settings.model).needs(whole._sizes(), settings)
        vectors = 4 * nodes * settings.hidden_dim
        result = 4 * nodes * max(settings.hidden_dim, settings.embedding_dim)
        step = needs.step if settings.training == FULL else 0
        return max(4 * vectors, 3 * vectors + step, 2 * vectors + result + needs.inference)

    def _sizes(self) -> Sizes:
        graph = self.graph
        most = self.held(4 * graph.num_nodes * self.settings.hidden_dim)  # bytes of an array
        rows = -(-most // (4 * self.settings.hidden_dim))
        return Sizes(
            num_nodes=rows,
            num_edges=graph.num_edges,
            num_node_types=len(graph.node_type_counts),
            num_edge_types=len(graph.edge_type_counts),
            largest_type=min(rows, graph.largest_type),
            largest_edge_type=max(graph.edge_type_counts.values()),
            step_nodes=min(rows, self.step_nodes),
            step_rows=self.num_rows,
            compared_bytes=self.compared.num_bytes(self.settings.embedding_dim),
            found_bytes=self.compared.found_bytes(self.settings.embedding_dim),
            is_sampled=self.settings.training != FULL,
            stored=self.stored,
            edge_chunk=self.edge_chunk,
            chunk_nodes=min(self.chunk_size, rows, graph.largest_type),
        )


def plan_training(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    memory_budget: str | int | None,
    chunk_size: int | None,
    rank_fit: int,
    scratch_dir: Path | None = None,
) -> Plan:
    """Make the plan of a run and log it; apply an explicit memory budget to the GPU as well.

    Args:
        run: provides the device and the log.
        graph: on the CPU.
        settings: already checked.
        memory_budget: see `parse_memory`.
        chunk_size: number of nodes that inference embeds at a time, rounded up to a multiple of
            `BLOCK_ROWS`; None: the largest that fits.
        rank_fit: bytes that the fit of the drug ranker takes; 0 without a ranker.
        scratch_dir: directory for large arrays, which is used if the run does not fit without it.

    Raises:
        InputError: the memory budget or the subgraph size is too small for the run.
    """
    plan = plan_for(GraphSizes.of(graph), settings, run.device)
    _check_subgraph_size(plan)
    if chunk_size is not None:  # as inference rounds it
        plan = replace(plan, chunk_size=-(-chunk_size // BLOCK_ROWS) * BLOCK_ROWS)
    plan = replace(plan, rank_fit=rank_fit)
    if settings.contrast is not None:
        sharing = most_sharing_pairs(graph, **compared_by_genes(graph))
        plan = replace(plan, num_sharing=sharing)
    plan = fit_plan(
        plan, memory_budget, choose_chunk_size=chunk_size is None, scratch_dir=scratch_dir
    )
    if memory_budget is not None:
        limit_memory(run.device, parse_memory(memory_budget))
    run.progress.milestone(_describe_backend(plan))
    run.progress.milestone(
        f"Predicted peak memory: {plan.predicted_bytes / GIB:.2f} GiB; inference embeds "
        f"{plan.chunk_size:,} nodes at a time"
    )
    if scratch_dir is not None:
        use = "not needed, since everything fits into memory"
        if plan.scratch_dir is not None:
            use = f"up to {plan.file_bytes / GIB:.2f} GiB for vectors, moments of Adam and layers"
        run.progress.milestone(f"Scratch directory {scratch_dir}: {use}{_traffic(plan)}")
    return plan


def _traffic(plan: Plan) -> str:
    """Return the most bytes that steps on subgraphs move from and to files, if there are any."""
    if plan.scratch_dir is None or plan.settings.training == FULL:
        return ""
    width = 4 * plan.settings.hidden_dim
    rows = min(plan.step_nodes * -(-width // _PAGE) * _PAGE, width * plan.graph.num_nodes)
    moved = 6 * plan.num_steps * rows  # vectors and two moments are read and written
    return f"; an epoch moves at most {moved / GIB:.2f} GiB"


def _describe_backend(plan: Plan) -> str:
    """Return a line that names the operations of the run."""
    size = f"graph ({plan.graph.num_edges:,} edges)"
    if plan.is_small:
        return f"Small {size}: torch's own operations on one thread, nothing to compile"
    return f"Large {size}: {'torch operations' if plan.edge_chunk else 'compiled CPU kernels'}"


def plan_for(graph: GraphSizes, settings: Settings, device: torch.device) -> Plan:
    """Return the plan for a device, which need not be available on this machine."""
    return Plan(graph, settings, choose_backend(device, graph.num_edges))


def _check_subgraph_size(plan: Plan) -> None:
    """Check that a subgraph has room for the nodes of a batch."""
    least = math.ceil(plan.num_rows * _BATCH_ROOM)
    if plan.step_nodes < min(least, plan.graph.num_nodes):
        raise InputError(
            f"subgraph_size (got {plan.step_nodes:,}) must be at least {least:,}: the positives "
            f"and candidates of a step have about {plan.num_rows:,} nodes, at most 10% more. "
            "Use a larger subgraph_size, or fewer positives (edge_batch_size or edge_sample_size)"
        )


def _starting_bytes(plan: Plan) -> int:
    """Return the bytes in use while the initial vectors are computed (`structural_vectors`)."""
    graph, width = plan.graph, plan.settings.hidden_dim
    vectors = plan.held(4 * graph.num_nodes * width)
    # The vectors of the model, three arrays of the same size, the sums of one node type, and copies
    # of the matrix of one edge type.
    largest = max(graph.edge_type_counts.values())
    of_neighbors = 4 * vectors + 4 * graph.largest_type * width + 24 * largest
    of_walks = 2 * vectors + walk_bytes(graph.largest_hierarchy, width)
    return max(of_neighbors, of_walks)


def _ranking_bytes(plan: Plan, weights: int) -> int:
    """Return the bytes in use while the ranker is fitted; 0 without a ranker."""
    if not plan.rank_fit:
        return 0
    widths = plan.settings.hidden_dim, plan.settings.embedding_dim  # input vectors and embeddings
    arrays = sum(plan.held(4 * plan.graph.num_nodes * width) for width in widths)
    return arrays + weights + plan.rank_fit


def fit_plan(
    plan: Plan,
    memory_budget: str | int | None,
    *,
    choose_chunk_size: bool,
    is_read: bool = True,
    scratch_dir: Path | None = None,
) -> Plan:
    """Choose the chunk size of inference so that the predicted peak fits the budget.

    Args:
        plan: its `predicted_bytes` are ignored.
        memory_budget: see `parse_memory`.
        choose_chunk_size: use the largest of `CHUNK_SIZES` that fits, not that of the plan.
        is_read: the graph is in memory already; False: count what it takes, and its reading.
        scratch_dir: takes the large arrays if no chunk size fits without it; None: do not use one.

    Returns:
        The plan with the chunk size, the scratch directory if it is used, and the predicted peak.

    Raises:
        DoesNotFitError: the peak is above the budget. The message lists settings that need less.
    """
    budget = parse_memory(memory_budget)
    held, before = psutil.Process().memory_info().rss, peak_memory_bytes()
    if memory_budget is None:
        budget += held  # the free memory does not include what this process uses already
    if not is_read:
        before = max(before, held + plan.graph.reading_bytes)
        held += plan.graph.tensor_bytes + plan.graph.names_bytes
    choices: list[tuple[Path | None, int]] = [(None, size) for size in CHUNK_SIZES]
    if scratch_dir is not None:
        choices += [(scratch_dir, size) for size in FILE_CHUNK_SIZES]
    for place, size in choices:
        chunk_size = size if choose_chunk_size else plan.chunk_size
        fitted = replace(plan, scratch_dir=place, chunk_size=chunk_size)
        peak = max(held + fitted.bytes_needed(), before)
        if peak <= budget:
            return replace(fitted, predicted_bytes=peak)
    limit = f"memory_budget (got {memory_budget!r}"
    if memory_budget is None:
        limit = f"the default memory_budget (70% of {available_memory().limit}"
    read = f" (reading the graph took {sufficient_gib(before)})" if before > budget else ""
    raise DoesNotFitError(
        f"{limit}, {budget / GIB:.2f} GiB) is too small: this run needs {sufficient_gib(peak)}"
        f"{read}. Single changes that lower this: {_what_helps(fitted, held, before, budget)}"
    )


def _what_helps(plan: Plan, held: int, before: int, budget: int) -> str:
    """Return the peak after each change that lowers it: numbers are halved or divided by four."""
    settings, options = plan.settings, []

    def peak(changed: Plan) -> int:
        return max(held + changed.bytes_needed(), before)

    def consider(text: str, changed: Plan) -> None:
        with suppress(InputError):  # a change that is refused for another reason does not help
            _check_subgraph_size(changed)
            if (needed := peak(changed)) < peak(plan):
                enough = "" if needed <= budget else ", still above the budget"
                options.append(f"{text}: {sufficient_gib(needed)}{enough}")

    for name in ("hidden_dim", "num_layers", settings.positives.name, "embedding_dim"):
        unit = settings.hidden_unit if name == "hidden_dim" else 1
        least = max(unit, 1 if name == "num_layers" else 2)
        half, quarter = (
            replace(plan, settings=replace(settings, **{name: max(least, value // unit * unit)}))
            for value in (getattr(settings, name) // part for part in (2, 4))
        )
        changed = half if peak(half) <= budget else quarter
        consider(f"{name} {getattr(changed.settings, name)}", changed)
    if settings.training == FULL:
        sampled = replace(settings, training=SAMPLED)
        consider(f"training {SAMPLED}", replace(plan, settings=sampled))
    if plan.num_sharing and (needed := peak(replace(plan, num_sharing=0))) <= budget:
        options.append(
            f"disease_gene_relation gives {plan.num_sharing:,} pairs of diseases with a common gene"
            f", which is too many; without these pairs: {sufficient_gib(needed)}"
        )
    if plan.scratch_dir is None and plan.copies == 1:
        consider("scratch_dir (cdd embed --scratch-dir)", replace(plan, scratch_dir=Path()))
    consider("without the ranker (--no-ranker)", replace(plan, rank_fit=0))
    return "; ".join([*options, "fewer nodes (limit_nodes)"])
