"""The memory plan: predict the peak memory of a run before anything is allocated.

The peak occurs at one of a few moments of the run. For each of these moments, `Plan.bytes_needed`
and the `needs` of the model add up the bytes of all arrays that exist then. The largest sum is the
predicted peak. Letters in shapes: N nodes, C = hidden_dim, M nodes of a batch.

With a scratch directory, a run that does not fit has large arrays in files (`ops.buffers`). Each
counts with `LEAST_IN_FILES` bytes, since the system can drop other pages. Where edges read the rows
of one node type in any order, these count in full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..graph.knowledge_graph import EdgeType
from ..models.collapse import CHECKED_ROWS
from ..models.kinds.interface import FULL, SUBGRAPH_SIZE, Needs, Settings, Sizes
from ..models.kinds.table import kind_of
from ..models.walk_vectors import walk_bytes
from ..ops.backend import Backend, choose_backend
from ..ops.buffers import LEAST_IN_FILES
from ..ops.reference import EDGE_CHUNK
from ..system.group.interface import ALONE, Group
from .batches import max_positives, num_steps_of
from .edge_sampler import NUM_CANDIDATES, divide_equally, enough_positives
from .graph_sizes import GraphSizes
from .objective.disease_pairs import BLOCK_PAIRS, KEPT_BYTES, PAIR_BYTES
from .objective.sizes import ComparedSizes

# bytes that every run takes: compiled kernels, libraries for matrix products, thread pools, and
# freed memory that the C heap keeps for a while
_FIXED = 160 * 2**20
# the same on NVIDIA GPUs: the driver loads kernels when they are first used, and nccl takes
# buffers. An H200 with CUDA 13 took 0.04 and 0.66 GiB more than was predicted without these.
_CUDA, _NCCL = 256 * 2**20, 768 * 2**20
# Memory of deleted buffers, which the arena keeps while a moment of a step needs less than another.
_KEPT = 64 * 2**20
_FACT = 150 + NUM_CANDIDATES  # bytes for each positive of a batch: node numbers and a mask
#: numbers of nodes that inference can embed at a time, the largest first
CHUNK_SIZES = (32_768, 16_384, 8_192, 4_096, 2_048, 1_024)
#: larger numbers, for runs whose peak they do not raise: HGT repeats fewer products with them
LARGE_CHUNK_SIZES = (262_144, 131_072, 65_536)
#: The same with large arrays in files: their size is free, and few chunks read the files seldom.
FILE_CHUNK_SIZES = (*LARGE_CHUNK_SIZES, *CHUNK_SIZES)


@dataclass(frozen=True)
class Plan:
    """The choices that are made before training, and the peak memory that they lead to.

    The nodes of a step are those of one of its parts: a process computes one after the other.
    """

    graph: GraphSizes
    settings: Settings
    backend: Backend
    #: with a contrastive loss: upper bound of the number of disease pairs with a common gene
    num_sharing: int = 0
    rank_fit: int = 0  #: bytes that the fit of the ranker takes; 0 without a ranker
    chunk_size: int = CHUNK_SIZES[0]  #: number of nodes that inference embeds at a time
    scratch_dir: Path | None = None  #: directory of the files of large arrays; None: in memory
    predicted_bytes: int = 0  #: peak memory of the process in bytes; 0 before the prediction
    group: Group = ALONE  #: the processes, of which this plan is for one

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
    def per_step(self) -> int:
        """Number of parts of a step, which the processes divide."""
        return self.settings.subgraphs_per_step or 1

    @property
    def num_steps(self) -> int:
        """Number of steps in an epoch."""
        return num_steps_of(self.graph.num_nodes, self.step_nodes, self.per_step)

    @property
    def num_parts(self) -> int:
        """Number of parts of all steps of an epoch, over which the samples are divided."""
        return self.num_steps * self.per_step

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
        types = len(counts) if asked.of_each_type else 1
        number = -(-enough_positives(asked.number, self.graph.num_edges, types) // self.num_parts)
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
        return min(-(-contrast.num_pairs // self.num_parts), self.graph.num_diseases)

    @property
    def compared(self) -> ComparedSizes:
        """Sizes of the terms beside link prediction."""
        graph = self.graph
        return ComparedSizes(graph.num_drugs, graph.num_diseases, self.num_pairs, self.num_parts)

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
    def loss_bytes(self) -> int:
        """Bytes of the loss of a step beside the embeddings of the batch; see `step_loss`."""
        dim, rows = self.settings.embedding_dim, self.num_rows
        # With the gradient of the embeddings: that of the terms, then the check of collapse.
        later = max(self.compared.gradient_bytes(dim), 8 * dim * min(CHECKED_ROWS, rows))
        return max(self.compared.num_bytes(dim), 4 * dim * rows + later)

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
        own = -(-vectors // self.group.size)  # those of this process
        x = self.held(4 * self.step_nodes * settings.hidden_dim)  # a layer's input in a step
        training = (
            3 * own  # input vectors, and two moments of Adam for them
            + 4 * needs.weights  # weights, gradients, and two moments of Adam
            + needs.step
            + self.copies * _FACT * sum(self.positives.values())
            + self.subgraph_bytes
            + (0 if self.edge_chunk else min(_KEPT, x))
            + self._exchanged_bytes(x, needs.weights)
        )
        fixed, inference = self._fixed_bytes(needs), self._inference_bytes(needs)
        ranking = _ranking_bytes(self)
        # The first process computes the first vectors of all nodes, and saves all tables.
        is_first, is_one = self.group.rank == 0, self.group.size == 1
        starting = _starting_bytes(self) if is_first else own
        saving = 3 * (own + vectors) + 4 * needs.weights if is_first and not is_one else 0
        if self.scratch_dir is not None:
            # Rows of one type in files, and what is computed from them. They count in full where
            # edges read them in any order: not in steps on subgraphs.
            rows = 4 * self.graph.largest_type * settings.hidden_dim
            starting += rows
            training += 2 * rows if settings.training == FULL else 0
            inference += 2 * rows
            ranking += 2 * rows if ranking else 0
        return fixed + max(starting, training, saving, inference, ranking)

    @property
    def inference_bytes(self) -> int:
        """Predicted bytes that inference needs; at most `bytes_needed`."""
        needs = kind_of(self.settings.model).needs(self._sizes(), self.settings)
        return self._fixed_bytes(needs) + self._inference_bytes(needs)

    def _fixed_bytes(self, needs: Needs) -> int:
        return self._libraries + needs.fixed + self.read_bytes + self.sharing_bytes

    def _inference_bytes(self, needs: Needs) -> int:
        nodes, settings = self.graph.num_nodes, self.settings
        vectors = self.held(4 * nodes * settings.hidden_dim)
        result = self.held(4 * nodes * max(settings.hidden_dim, settings.embedding_dim))
        if self.chunk_size >= nodes and self.group.size == 1:  # it is the result of the one chunk
            result = 0
        return 2 * vectors + result + needs.inference  # input and result of a stage

    @property
    def sharing_bytes(self) -> int:
        """Bytes of the pairs of diseases with a common gene, and of the block that finds them."""
        block = PAIR_BYTES * min(self.num_sharing, BLOCK_PAIRS)
        return KEPT_BYTES * self.num_sharing + block

    @property
    def _libraries(self) -> int:
        """Bytes that libraries and compiled kernels take."""
        if self.backend.device.type != "cuda":
            return _FIXED
        return _FIXED + _CUDA + (_NCCL if self.group.size > 1 else 0)

    def _exchanged_bytes(self, x: int, weights: int) -> int:
        """Return the bytes that several parts of a step take: rows and gradients of all parts."""
        if self.per_step == 1:
            return 0
        # For each own part: its rows, their gradients, received gradients, and their sums. Beside
        # them, three copies of the gradients of the weights, if there are other processes.
        return 4 * self.per_step // self.group.size * x + 3 * weights * (self.group.size > 1)

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
        # With subgraphs, the vectors and the records of `LazyAdam`, which are four times as large.
        training = 3 * vectors + needs.step if settings.training == FULL else 5 * vectors
        return max(4 * vectors, training, 2 * vectors + result + needs.inference)

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
            loss_bytes=self.loss_bytes,
            is_sampled=self.settings.training != FULL,
            stored=self.stored,
            edge_chunk=self.edge_chunk,
            chunk_nodes=min(self.chunk_size, rows),
        )


def plan_for(graph: GraphSizes, settings: Settings, device: torch.device) -> Plan:
    """Return the plan for a device, which need not be available on this machine."""
    return Plan(graph, settings, choose_backend(device, graph.num_edges))


def _starting_bytes(plan: Plan) -> int:
    """Return the bytes in use while the initial vectors are computed (`structural_vectors`)."""
    graph, width = plan.graph, plan.settings.hidden_dim
    vectors = plan.held(4 * graph.num_nodes * width)
    # The vectors of the model, three arrays of the same size, and copies of the matrix of one edge
    # type.
    of_neighbors = 4 * vectors + 24 * max(graph.edge_type_counts.values())
    of_walks = 2 * vectors + walk_bytes(graph.largest_hierarchy, width)
    return max(of_neighbors, of_walks)


def _ranking_bytes(plan: Plan) -> int:
    """Return the bytes in use while the ranker is fitted; 0 without a ranker.

    The trained model was released before.
    """
    if not plan.rank_fit:
        return 0
    return plan.held(4 * plan.graph.num_nodes * plan.settings.embedding_dim) + plan.rank_fit
