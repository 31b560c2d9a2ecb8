"""Similar diseases: the Jaccard index of their genes, and pairs for the contrastive loss.

A tenth of the diseases is held out of that loss. After training, the Jaccard indices of the
held-out diseases are compared with the cosines of their embeddings. All sampling runs on the CPU
with numpy, so a seed gives the same pairs on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse
import torch
from torch import Tensor
from torch.nn import functional

from ...graph.adjacency import adjacency
from ...graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph
from ..edge_sampler import RandomSampler

_CHUNK_ROWS = 8192  # number of pairs whose cosines are computed at a time
_HELD_OUT_FRACTION = 0.1  # held-out nodes / nodes that share a neighbor with another node
#: Pairs of a block, and bytes of each while its index is computed. `KEPT_BYTES` is the most that
#: each pair takes afterwards: a similar pair 5 to 9, and each of the tenth of the pairs with a
#: held-out node about 100. 52 million pairs took 15 bytes each.
BLOCK_PAIRS, PAIR_BYTES, KEPT_BYTES = 2**20, 60, 20
_ROUNDS = 16  # largest number of attempts to draw a node without common neighbors


def compared_by_genes(graph: KnowledgeGraph) -> dict[str, str]:
    """Return the arguments of `shared_neighbor_jaccard` that compare diseases by their genes."""
    words = graph.vocabulary
    return {
        "node_type": words.disease_type,
        "neighbor_type": words.gene_type,
        "relation": words.disease_gene_relation,
    }


class JaccardRows(Protocol):
    """A symmetric sparse matrix of Jaccard indices, shape (n, n), with rows that come in blocks."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes n."""

    def sharing(self) -> IntArray:
        """Return the nodes with a nonzero index, ascending."""

    def blocks(self) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
        """Yield the number of the first row of each block, and the rows, with sorted columns."""


class SharedNeighbors:
    """The Jaccard indices of the neighbor sets of the nodes of a type, computed block by block.

    A sparse matrix product replaces a loop over pairs. It takes 0.02 s for the 23,213 diseases of
    PrimeKG. A block has about `BLOCK_PAIRS` pairs of those that `most_sharing_pairs` counts, or
    the pairs of one node, and takes `PAIR_BYTES` for each.
    """

    def __init__(self, has: scipy.sparse.csr_array) -> None:
        """Keep the adjacency matrix of the nodes, shape (n, number of possible neighbors)."""
        self._has, self._neighbors_of = has, has.T.tocsr()
        self._sizes = np.diff(has.indptr)
        self.num_nodes: int = has.shape[0]

    def sharing(self) -> IntArray:
        """Return the nodes that have a common neighbor with another node, ascending."""
        shared = np.diff(self._neighbors_of.indptr) > 1
        found: IntArray = np.flatnonzero(self._has @ shared.astype(np.float32))
        return found

    def blocks(self) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
        """Yield rows of |A and B| / |A or B| for different nodes with a common neighbor."""
        counts = self._has @ np.diff(self._neighbors_of.indptr).astype(np.float64)
        number = (np.cumsum(counts) // BLOCK_PAIRS).astype(np.int64)
        starts = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
        for start, stop in pairwise([*starts, self.num_nodes]):
            shared = (self._has[start:stop] @ self._neighbors_of).tocoo()
            a, b = shared.coords
            jaccard = shared.data / (self._sizes[start + a] + self._sizes[b] - shared.data)
            different = start + a != b
            entries = jaccard[different], (a[different], b[different])
            yield start, scipy.sparse.csr_array(entries, shape=shared.shape)


def shared_neighbor_jaccard(
    graph: KnowledgeGraph, *, node_type: str, neighbor_type: str, relation: str
) -> SharedNeighbors | None:
    """Return the Jaccard indices of the neighbor sets for all pairs of nodes of a type.

    Args:
        graph: on the CPU.
        node_type: type of the nodes to compare.
        neighbor_type: node type of the neighbors.
        relation: relation between `node_type` and `neighbor_type`.

    Returns:
        The indices of the n nodes of the type in graph order. None if the graph lacks edges of
        this relation between these types.
    """
    has = _incidence(graph, node_type, neighbor_type, relation)
    return None if has is None else SharedNeighbors(has)


def most_sharing_pairs(
    graph: KnowledgeGraph, *, node_type: str, neighbor_type: str, relation: str
) -> int:
    """Return an upper bound of the number of ordered pairs of nodes with a common neighbor."""
    has = _incidence(graph, node_type, neighbor_type, relation)
    if has is None:
        return 0
    return int((np.bincount(has.indices).astype(np.int64) ** 2).sum())


def _incidence(
    graph: KnowledgeGraph, node_type: str, neighbor_type: str, relation: str
) -> scipy.sparse.csr_array | None:
    """Return the adjacency matrix, shape (nodes, neighbors); None if the graph lacks the edges."""
    kind = EdgeType(node_type, relation, neighbor_type)
    return adjacency(graph, kind) if kind in graph.edge_types else None


@dataclass(frozen=True)
class PairBatch:
    """P pairs of similar nodes."""

    anchor: Tensor  #: shape (P,), int64: distinct nodes of the graph
    positive: Tensor  #: shape (P,), int64: a node that is similar to each anchor
    excluded: Tensor  #: shape (P, P), bool: True if positive j is not a negative of anchor i

    @property
    def nodes(self) -> Tensor:
        """The nodes of all pairs, shape (2 P,)."""
        return torch.cat([self.anchor, self.positive])


@dataclass(frozen=True)
class HeldOutPairs:
    """K pairs of nodes that do not occur in the contrastive loss."""

    a: IntArray  #: shape (K,), held-out nodes
    b: IntArray  #: shape (K,), held-out or other nodes
    jaccard: npt.NDArray[np.float64]  #: shape (K,), Jaccard index of each pair


class PairSampler(RandomSampler):
    """Samples pairs of similar nodes. A tenth of the nodes is held out and never sampled."""

    def __init__(self, jaccard: JaccardRows, first: int, threshold: float, seed: int) -> None:
        """Choose the held-out nodes, and find the similar pairs among all other nodes.

        Args:
            jaccard: from `shared_neighbor_jaccard`.
            first: number in the graph of the first of the n nodes.
            threshold: two nodes are similar if their Jaccard index is at least this number.
            seed: seed of the sampling.
        """
        split = np.random.default_rng((seed, 1))
        self._seed = (seed, 2)
        self._rng = np.random.default_rng(self._seed)
        self._first = first
        sharing = jaccard.sharing()
        size = int(len(sharing) * _HELD_OUT_FRACTION)
        held_out = np.zeros(jaccard.num_nodes, bool)
        held_out[split.choice(sharing, size, replace=False)] = True
        drawn, of_held_out, num_similar = _divided(jaccard, held_out, threshold)
        self._drawn = drawn
        self._anchors = np.flatnonzero(np.diff(drawn.indptr))
        self.num_held_out_nodes = size
        self.num_similar_pairs = num_similar // 2  #: unordered; also with held-out nodes
        self.held_out = _held_out_pairs(of_held_out, held_out, sharing, first, split)

    @property
    def num_pairs(self) -> int:
        """Number of unordered pairs of similar nodes, without pairs that have a held-out node."""
        return int(self._drawn.nnz) // 2

    def has_negatives(self, batch_size: int) -> bool:
        """Return True if some anchors of a batch have negatives."""
        num_anchors = len(self._anchors)
        return batch_size > 1 and self._drawn.nnz < num_anchors * (num_anchors - 1)

    def sample(self, batch_size: int) -> PairBatch:
        """Sample distinct anchors, and one similar node for each anchor.

        If pairs were sampled uniformly, the largest group of similar nodes would fill the batch.

        Args:
            batch_size: number of pairs; reduced to the number of nodes that can be anchors.

        Returns:
            The batch, on the CPU.
        """
        size = min(batch_size, len(self._anchors))
        anchor = np.sort(self._rng.choice(self._anchors, size, replace=False))
        start, stop = self._drawn.indptr[anchor], self._drawn.indptr[anchor + 1]
        positive = self._drawn.indices[self._rng.integers(start, stop)]
        excluded = self._drawn[anchor][:, positive].toarray() | (anchor[:, None] == positive)
        return PairBatch(
            anchor=torch.from_numpy(anchor + self._first),
            positive=torch.from_numpy(positive.astype(np.int64) + self._first),
            excluded=torch.from_numpy(excluded),
        )


class _Entries(NamedTuple):
    """Entries of the rows of held-out nodes, row by row."""

    a: IntArray  #: rows
    b: IntArray  #: columns
    jaccard: npt.NDArray[np.float64]


def _divided(
    jaccard: JaccardRows, held_out: npt.NDArray[np.bool_], threshold: float
) -> tuple[scipy.sparse.csr_array, _Entries, int]:
    """Return the similar pairs without held-out nodes, the entries of held-out nodes, and a count.

    Returns:
        True for each similar pair, shape (n, n); the entries of the rows of held-out nodes; and the
        number of ordered similar pairs, also with held-out nodes.
    """
    columns, counts, num_similar = list[IntArray](), list[IntArray](), 0
    entries = list[_Entries]()
    for start, rows in jaccard.blocks():
        similar = rows.data >= threshold
        num_similar += int(similar.sum())
        sizes = np.diff(rows.indptr)
        a = np.repeat(np.arange(start, start + len(sizes), dtype=np.int32), sizes)
        of_held_out = held_out[a]
        drawn = similar & ~of_held_out & ~held_out[rows.indices]
        columns.append(rows.indices[drawn].astype(np.int32))
        counts.append(np.bincount(a[drawn] - start, minlength=len(sizes)))
        left_out = a[of_held_out], rows.indices[of_held_out].astype(np.int32)
        entries.append(_Entries(*left_out, rows.data[of_held_out]))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    index = np.concatenate(columns)
    parts = (
        np.ones(len(index), bool),
        index,
        indptr.astype(np.int32 if len(index) < 2**31 else np.int64),
    )
    shape = (jaccard.num_nodes, jaccard.num_nodes)
    found = _Entries(*(np.concatenate(part) for part in zip(*entries, strict=True)))
    return scipy.sparse.csr_array(parts, shape=shape), found, num_similar


def _held_out_pairs(
    entries: _Entries,
    held_out: npt.NDArray[np.bool_],
    sharing: IntArray,
    first: int,
    rng: np.random.Generator,
) -> HeldOutPairs:
    """Return all pairs (a, b) of a held-out node a and a node b with a common neighbor.

    In addition, return (a, c) for each (a, b), where c is a random node that shares a neighbor with
    some node, but not with a. If no such c is found, (a, c) is left out.
    """
    num_nodes = len(held_out)
    sharing_keys = entries.a.astype(np.int64) * num_nodes + entries.b
    # Keep one of (a, b) and (b, a): the one that starts with a held-out node.
    kept = ~(held_out[entries.b] & (entries.b < entries.a))
    a, b = (end[kept].astype(np.int64) for end in entries[:2])
    other, pending = b.copy(), np.arange(len(a))
    for _ in range(_ROUNDS):
        if len(pending) == 0:
            break
        other[pending] = rng.choice(sharing, len(pending))
        x, y = a[pending], other[pending]
        pending = pending[np.isin(x * num_nodes + y, sharing_keys) | (x == y)]
    found = np.delete(np.arange(len(a)), pending)
    return HeldOutPairs(
        a=np.concatenate([a, a[found]]) + first,
        b=np.concatenate([b, other[found]]) + first,
        jaccard=np.concatenate([entries.jaccard[kept], np.zeros(len(found))]),
    )


def similarity_spearman(embeddings: Tensor, pairs: HeldOutPairs) -> float | None:
    """Return the Spearman correlation between Jaccard index and cosine of embeddings over pairs.

    Args:
        embeddings: shape (N, D), on the CPU.
        pairs: K pairs.

    Returns:
        The rank correlation, in which equal values have their mean rank. None if all Jaccard
        indices or all cosines are equal.
    """
    if len(set(pairs.jaccard.tolist())) < 2:
        return None
    a, b = torch.from_numpy(pairs.a), torch.from_numpy(pairs.b)
    chunks = zip(a.split(_CHUNK_ROWS), b.split(_CHUNK_ROWS), strict=True)
    cosine = torch.cat(
        [functional.cosine_similarity(embeddings[x], embeddings[y]) for x, y in chunks]
    )
    table = pl.DataFrame({"jaccard": pairs.jaccard, "cosine": cosine.numpy()})
    value = table.select(pl.corr("jaccard", "cosine", method="spearman")).item()
    return float(value) if math.isfinite(value) else None
