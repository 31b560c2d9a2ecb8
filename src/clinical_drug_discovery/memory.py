"""Memory budgets: what a plan will need at its peak, said before anything is allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import EdgeType
from clinical_drug_discovery.runtime import GIB, peak_memory_bytes

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": GIB,
}
_FREE_SHARE = 0.7  # of what is free, when no budget is named: the user's other programs live too


def parse_memory(budget: str | int | None) -> int:
    """A memory budget in bytes.

    Args:
        budget: a number of bytes, text such as "4GiB" or "5.33 GB", or None for 70% of what is
        free.

    Raises:
        InputError: it is no amount of memory.
    """
    if budget is None:
        return int(psutil.virtual_memory().available * _FREE_SHARE)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(budget))
    if match is None or match[2].upper() not in _UNITS or not 0 < float(match[1]) < 1e30:
        raise InputError(
            f"memory_budget (got {budget!r}) must be a positive number of bytes, "
            "or text such as '4GiB'"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


_FIXED = GIB // 5  # compiling the kernels, thread pools, work space of matrix products


@dataclass(frozen=True)
class SagePlan:
    """The sizes that decide what training and embedding with GraphSAGE need."""

    num_nodes: int
    num_edges: int
    hidden_dim: int
    embedding_dim: int
    num_layers: int
    edge_batch_size: int

    def bytes_needed(self) -> int:
        """Peak bytes beside what the process holds already (interpreter, libraries, the graph).

        Training: 12 N C of weights and Adam's two moments, 8 N C kept per hidden layer and 12 N C
        passing through; for the last layer M = 3 edge_batch_size rows (at most N) with
        4 M (2 C + 4 D), 48 D for each pair of a chunk of the loss, and 21 bytes an edge to pick
        out the rows' edges. Inference: the input, a layer's
        rows and the result, twice over while it is put in order and written, 4 N (2 C + 2 D).
        """
        nodes, hidden, dim = self.num_nodes, self.hidden_dim, self.embedding_dim
        rows = min(3 * self.edge_batch_size, nodes)
        layers = self.num_layers - 1
        weights = 16 * (2 * hidden * (hidden * layers + dim))
        training = 4 * nodes * hidden * (3 + 2 * layers + 3) + 4 * rows * (2 * hidden + 4 * dim)
        training += 48 * dim * min(self.edge_batch_size, self.num_edges, CHUNK_PAIRS)
        training += 32 * self.edge_batch_size  # the batch's node numbers
        inference = 4 * nodes * (2 * hidden + 2 * dim)
        return _FIXED + weights + max(training + 21 * self.num_edges, inference)


@dataclass(frozen=True)
class HgtPlan:
    """The sizes that decide what training and embedding with HGT need."""

    node_type_counts: Mapping[str, int]
    edge_type_counts: Mapping[EdgeType, int]
    num_sharing: int  #: at most so many ordered pairs of diseases share a gene
    num_diseases: int  #: that the contrastive term may draw from; 0 without one
    hidden_dim: int
    embedding_dim: int
    num_layers: int
    num_heads: int
    edge_sample_size: int

    def num_rows(self) -> int:
        """Nodes in a batch: what drawing evenly would give, which is the most to be expected."""
        drawn = dict.fromkeys(self.node_type_counts, 0)
        for kind, count in self.edge_type_counts.items():
            size = min(count, self.edge_sample_size)
            drawn[kind.src_type] += size
            drawn[kind.dst_type] += 2 * size  # the fact's and the negative's
        pairs = 2 * min(self.edge_sample_size, self.num_diseases)
        return pairs + sum(
            math.ceil(count * -math.expm1(-drawn[kind] / count))
            for kind, count in self.node_type_counts.items()
        )

    def bytes_needed(self) -> int:
        """Peak bytes beside what the process holds already (interpreter, libraries, the graph).

        With M the rows of a batch, P the pairs of its contrastive term, n the nodes of the largest
        type. Always there: 12 N C of vectors and Adam's two moments, 16 bytes for each other
        weight, 22 bytes an edge for the edges by type and those of a batch, 60 bytes for each pair
        of diseases that share a gene. In a step the largest of: the loss, with 4 N C (2 L - 1)
        kept, 4 M (3 C + 4 D), 48 D for each pair of a chunk and 24 P^2; the last layer's backward
        pass, with 4 N C 2 L, 28 M C and 40 n C of one source type; a hidden layer's, with
        4 N C (7 + 2 (L - 2)) and 40 n C. Inference: the vectors, a stage's input and result, the
        latter twice over while it is put in order and written, and 24 n C.
        """
        hidden, dim, layers = self.hidden_dim, self.embedding_dim, self.num_layers
        nodes, num_edges = sum(self.node_type_counts.values()), sum(self.edge_type_counts.values())
        most, types = max(self.node_type_counts.values()), len(self.node_type_counts)
        sampled = sum(min(count, self.edge_sample_size) for count in self.edge_type_counts.values())
        rows = min(self.num_rows(), nodes)
        matrices = types * hidden * (4 * hidden * layers + hidden + dim)
        matrices += 2 * layers * len(self.edge_type_counts) * hidden * hidden // self.num_heads
        vector = 4 * nodes * hidden
        scratch = 40 * most * hidden
        loss = vector * (2 * layers - 1) + 4 * rows * (3 * hidden + 4 * dim)
        loss += 48 * dim * min(sampled, CHUNK_PAIRS)
        loss += 24 * min(self.edge_sample_size, self.num_diseases) ** 2
        last = vector * 2 * layers + 28 * rows * hidden + scratch
        middle = vector * (7 + 2 * (layers - 2)) + scratch if layers > 1 else 0
        training = 3 * vector + 16 * matrices + 22 * num_edges + 100 * sampled
        training += max(loss, last, middle)
        inference = vector + 4 * nodes * (hidden + 2 * dim) + 24 * most * hidden + 8 * num_edges
        return _FIXED + 60 * self.num_sharing + max(training, inference)


Plan = SagePlan | HgtPlan


def check_budget(plan: Plan, memory_budget: str | int | None) -> int:
    """Refuse a plan whose predicted peak exceeds the budget.

    Args:
        plan: what is to be run.
        memory_budget: see `parse_memory`.

    Returns:
        The predicted peak resident size of the process in bytes.

    Raises:
        InputError: it does not fit; the message says what would do and which parameters help.
    """
    budget = parse_memory(memory_budget)
    held = psutil.Process().memory_info().rss
    if memory_budget is None:
        budget += held  # what is free does not count what this process holds already
    peak: int = max(held + plan.bytes_needed(), peak_memory_bytes())
    if peak > budget:
        limit = "70% of the free memory" if memory_budget is None else repr(memory_budget)
        raise InputError(
            f"memory_budget (got {limit}, {budget / GIB:.2f} GiB) is too small: this run needs "
            f"{_gib(peak)}; {_what_helps(plan, held, budget)}"
        )
    return peak


def _what_helps(plan: Plan, held: int, budget: int) -> str:
    """The parameters of which half, or a quarter, would fit."""
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
            if needed <= budget:
                options.append(f"{name} {value} needs {_gib(needed)}")
                break
    if isinstance(plan, HgtPlan):
        needed = held + replace(plan, num_sharing=0).bytes_needed()
        if needed <= budget:
            options.append(
                f"{plan.num_sharing:,} pairs that share by disease_gene_relation are "
                f"too many, without them {_gib(needed)} is needed"
            )
    if options:
        return "; ".join(options)
    return "no quarter of one parameter would fit; use fewer nodes (limit_nodes)"


def _gib(size: int) -> str:
    """Rounded up, so that asking for what is printed is enough."""
    return f"{math.ceil(size / GIB * 100) / 100:.2f} GiB"
