"""Near pairs: two nodes of one type that a short walk joins, for a contrastive loss.

The walks follow typed paths, as in metapath2vec (Dong et al., KDD 2017). There are two kinds:

- along sparse relations between nodes of the type, such as disease_disease. After each step, the
  walk stops with probability 0.3.
- over one shared neighbor, such as a gene of two diseases. Neighbors with over 300 edges are left
  out, and the others are drawn in proportion to the root of their number of edges.

Pairs of diseases that share a drug help diseases that have drugs, but they harm the others, so few
of them are drawn. All sampling runs on the CPU with numpy, so a seed gives the same pairs on every
device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ...graph.adjacency import adjacency, sparse_links
from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..edge_sampler import RandomSampler

NUM_NEAR = 2048  #: pairs of a type in an epoch, at most one per node
_STOP = 0.3  # probability that a walk stops after a step
_LONGEST = 8  # steps
_MOST_MEMBERS = 300  # of a shared neighbor
# Weights of walks along sparse relations, of each relation to a shared neighbor, and, for diseases,
# of shared drugs.
_ALONG, _SHARED, _SHARED_DRUGS = 1.0, 0.3, 0.2
Draw = Callable[[np.random.Generator, int], tuple[IntArray, IntArray]]


@dataclass(frozen=True)
class NearPairs:
    """P pairs of near nodes of one type, on the CPU."""

    left: Tensor  #: shape (P,), int64, nodes of the graph
    right: Tensor  #: shape (P,), int64, another node of the same type for each of them

    @property
    def nodes(self) -> Tensor:
        """The nodes of all pairs, shape (2 P,)."""
        return torch.cat([self.left, self.right])


class _Source(NamedTuple):
    weight: float
    draw: Draw


class NearPairSampler(RandomSampler):
    """Draws near pairs of each of some node types.

    Example:
        >>> sampler = NearPairSampler(graph, ["drug", "disease"], seed=0)
        >>> pairs = sampler.sample("drug", 2048)
    """

    def __init__(self, graph: KnowledgeGraph, node_types: Sequence[str], seed: int) -> None:
        """Prepare the walks of each type; a type without any is left out.

        Args:
            graph: on the CPU.
            node_types: names of node types, which the graph may lack.
            seed: seed of the sampling.
        """
        self._seed = (seed, 5)
        self._rng = np.random.default_rng(self._seed)
        present = [name for name in node_types if name in graph.node_type_names]
        found = {name: _sources(graph, name) for name in present}
        self._sources = {name: some for name, some in found.items() if some}
        self._first = {name: node_range_of(graph, name)[0] for name in self._sources}

    @property
    def node_types(self) -> tuple[str, ...]:
        """The node types that have walks."""
        return tuple(self._sources)

    def sample(self, node_type: str, num_pairs: int) -> NearPairs:
        """Draw about this many pairs of a type; pairs of a node with itself are left out."""
        sources = self._sources[node_type]
        total = sum(source.weight for source in sources)
        counts = [max(round(num_pairs * source.weight / total), 1) for source in sources]
        drawn = [one.draw(self._rng, n) for one, n in zip(sources, counts, strict=True)]
        left, right = (np.concatenate(ends).astype(np.int64) for ends in zip(*drawn, strict=True))
        different, first = left != right, self._first[node_type]
        ends = (torch.from_numpy(end[different] + first) for end in (left, right))
        return NearPairs(*ends)


def _sources(graph: KnowledgeGraph, node_type: str) -> list[_Source]:
    """Return the walks of a node type, with their weights.

    Contraindications are left out: they do not make two drugs or diseases alike.
    """
    words, sources = graph.vocabulary, list[_Source]()
    if (along := sparse_links(graph, node_type)) is not None:
        sources.append(_Source(_ALONG, _walking(along)))
    for kind in graph.edge_types:
        if kind.src_type != node_type or kind.dst_type == node_type:
            continue
        if kind.relation not in words.contraindicates and (
            draw := _sharing(adjacency(graph, kind))
        ):
            is_drug = node_type == words.disease_type and kind.dst_type == words.drug_type
            sources.append(_Source(_SHARED_DRUGS if is_drug else _SHARED, draw))
    return sources


def _walking(matrix: csr_array) -> Draw:
    """Return a function that draws the ends of walks along a relation of one type."""
    starts = np.flatnonzero(np.diff(matrix.indptr))

    def draw(rng: np.random.Generator, size: int) -> tuple[IntArray, IntArray]:
        start = rng.choice(starts, size)
        end, going = start.copy(), np.ones(size, bool)
        for _ in range(_LONGEST):
            end[going] = _member(matrix, end[going], rng)
            going &= rng.random(size) > _STOP
        return start, end

    return draw


def _sharing(matrix: csr_array) -> Draw | None:
    """Return a function that draws two rows with a common column; None if none have one."""
    columns = csr_array(matrix.T)
    size = np.diff(columns.indptr)
    used = np.flatnonzero((size > 1) & (size <= _MOST_MEMBERS))
    if not len(used):
        return None
    chances = np.sqrt(size[used]) / np.sqrt(size[used]).sum()

    def draw(rng: np.random.Generator, size: int) -> tuple[IntArray, IntArray]:
        shared = rng.choice(used, size, p=chances)
        return _member(columns, shared, rng), _member(columns, shared, rng)

    return draw


def _member(matrix: csr_array, rows: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a random column of an entry in each row; each row must have an entry."""
    start = matrix.indptr[rows]
    degree = matrix.indptr[rows + 1] - start
    at = start + (rng.random(len(rows)) * degree).astype(np.int64)
    return np.asarray(matrix.indices[at], np.int64)
