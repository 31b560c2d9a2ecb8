"""Pairs of nodes that are alike, for the contrastive term, and those that are left out of it.

All drawing is done on the host with numpy, so a seed gives the same pairs on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import IntArray

_HELD_OUT_SHARE = 0.1  # of the nodes that share something: enough of them to measure with
_ROUNDS = 16  # of looking for a node that shares nothing with a held-out one


@dataclass(frozen=True)
class PairBatch:
    """P pairs of nodes that are alike."""

    anchor: Tensor  #: shape (P,), int64, nodes of the graph, distinct
    positive: Tensor  #: shape (P,), int64, nodes of the graph
    excluded: Tensor  #: shape (P, P), bool: positive j is no negative of anchor i

    @property
    def nodes(self) -> Tensor:
        """All nodes of the pairs, shape (2 P,)."""
        return torch.cat([self.anchor, self.positive])


@dataclass(frozen=True)
class LeftOutPairs:
    """K pairs of nodes that the contrastive term never sees."""

    a: IntArray  #: shape (K,), nodes of the graph, held out
    b: IntArray  #: shape (K,), nodes of the graph
    jaccard: np.ndarray  #: shape (K,): how much they share


class PairSampler:
    """Draws pairs of alike nodes; a tenth of the nodes that share anything is held out of it."""

    def __init__(
        self, jaccard: scipy.sparse.csr_array, first: int, threshold: float, seed: int
    ) -> None:
        """Split the nodes into those that pairs are drawn from and those held out.

        Args:
            jaccard: shape (n, n), symmetric, as of `similarity.shared_neighbor_jaccard`.
            first: the graph's number of the first of the n nodes.
            threshold: two nodes are alike at this Jaccard index or above.
            seed: of all drawing. What is held out and measured with depends on nothing else.
        """
        split = np.random.default_rng((seed, 1))
        self._rng = np.random.default_rng((seed, 2))
        self._first = first
        sharing = np.flatnonzero(np.diff(jaccard.indptr))
        size = int(len(sharing) * _HELD_OUT_SHARE)
        held_out = np.zeros(jaccard.shape[0], bool)
        held_out[split.choice(sharing, size, replace=False)] = True
        pairs = jaccard.tocoo()
        a, b = pairs.coords
        alike = pairs.data >= threshold
        drawn = alike & ~held_out[a] & ~held_out[b]
        self._drawn = scipy.sparse.csr_array(
            (np.ones(int(drawn.sum()), bool), (a[drawn], b[drawn])), shape=jaccard.shape
        )
        self._anchors = np.flatnonzero(np.diff(self._drawn.indptr))
        self.num_held_out_nodes = size  #: nodes that no pair is drawn with
        self.num_alike_pairs = int(alike.sum()) // 2  #: unordered, those with held-out nodes too
        self.left_out = _left_out(jaccard, held_out, sharing, first, split)

    @property
    def num_pairs(self) -> int:
        """Number of unordered pairs that are drawn from."""
        return int(self._drawn.nnz) // 2

    def has_negatives(self, batch_size: int) -> bool:
        """Whether a batch can hold a pair whose positive is a negative of another anchor."""
        num_anchors = len(self._anchors)
        return batch_size > 1 and self._drawn.nnz < num_anchors * (num_anchors - 1)

    def sample(self, batch_size: int) -> PairBatch:
        """Draw distinct anchors, and for each one of the nodes that are alike.

        Drawn by anchor and not by pair, or the largest group of alike nodes would fill the batch.

        Args:
            batch_size: number of pairs; all anchors when there are fewer.

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


def _left_out(
    jaccard: scipy.sparse.csr_array,
    held_out: np.ndarray,
    sharing: IntArray,
    first: int,
    rng: np.random.Generator,
) -> LeftOutPairs:
    """All pairs of a held-out node and one it shares something with, and as many of another kind.

    In these another node takes the second one's place, drawn among the nodes that share anything,
    that shares nothing with the first one. They are fewer where no such node is found.
    """
    pairs, num_nodes = jaccard.tocoo(), jaccard.shape[0]
    a, b = (end.astype(np.int64) for end in pairs.coords)
    sharing_keys = a * num_nodes + b
    # From the held-out end; of two held-out ends, once.
    kept = held_out[a] & ~(held_out[b] & (b < a))
    a, b, shared = a[kept], b[kept], pairs.data[kept]
    other, pending = b.copy(), np.arange(len(a))
    for _ in range(_ROUNDS):
        if len(pending) == 0:
            break
        other[pending] = rng.choice(sharing, len(pending))
        x, y = a[pending], other[pending]
        pending = pending[np.isin(x * num_nodes + y, sharing_keys) | (x == y)]
    found = np.delete(np.arange(len(a)), pending)
    return LeftOutPairs(
        a=np.concatenate([a, a[found]]) + first,
        b=np.concatenate([b, other[found]]) + first,
        jaccard=np.concatenate([shared, np.zeros(len(found))]),
    )
