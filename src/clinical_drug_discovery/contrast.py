"""Pairs of nodes that are alike, for the contrastive term, and those that are left out of it.

All drawing is done on the host with numpy, so a seed gives the same pairs on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from clinical_drug_discovery.graph import IntArray

_HELD_OUT_SHARE = 0.1  # of the nodes that share something: enough of them to measure with


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

    a: IntArray  #: shape (K,), nodes of the graph
    b: IntArray  #: shape (K,), nodes of the graph
    jaccard: np.ndarray  #: shape (K,): how much they share; 0 for half of the pairs


class PairSampler:
    """Draws pairs of alike nodes; a tenth of the nodes that share anything is never drawn."""

    def __init__(
        self, jaccard: scipy.sparse.csr_array, first: int, threshold: float, seed: int
    ) -> None:
        """Split the nodes into those that pairs are drawn from and those left out.

        Args:
            jaccard: shape (n, n), symmetric, as of `similarity.shared_neighbor_jaccard`.
            first: the graph's number of the first of the n nodes.
            threshold: two nodes are alike at this Jaccard index or above.
            seed: of all drawing.
        """
        self._rng = np.random.default_rng(seed)
        self._jaccard, self._first = jaccard, first
        sharing = np.flatnonzero(np.diff(jaccard.indptr))
        held_out = self._rng.choice(sharing, int(len(sharing) * _HELD_OUT_SHARE), replace=False)
        self._held_out = np.zeros(jaccard.shape[0], bool)
        self._held_out[held_out] = True
        pairs = jaccard.tocoo()
        a, b = pairs.coords
        alike = pairs.data >= threshold
        drawn = alike & ~self._held_out[a] & ~self._held_out[b]
        self._alike = _marks(a[alike], b[alike], jaccard.shape)
        self._drawn = _marks(a[drawn], b[drawn], jaccard.shape)
        self._anchors = np.flatnonzero(np.diff(self._drawn.indptr))

    @property
    def num_pairs(self) -> int:
        """Number of unordered pairs that are drawn from."""
        return int(self._drawn.nnz) // 2

    @property
    def num_held_out_nodes(self) -> int:
        """Number of nodes that no pair is drawn with."""
        return int(self._held_out.sum())

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
        excluded = self._alike[anchor][:, positive].toarray() | (anchor[:, None] == positive)
        return PairBatch(
            anchor=torch.from_numpy(anchor + self._first),
            positive=torch.from_numpy(positive.astype(np.int64) + self._first),
            excluded=torch.from_numpy(excluded),
        )

    def left_out(self) -> LeftOutPairs:
        """Pairs to measure with, of which at least one node is held out.

        All of them that share something, and about as many that share nothing: for each of the
        former one drawn node in place of the one that is not held out.
        """
        pairs = self._jaccard.tocoo()
        a, b = pairs.coords
        # From the held-out end; of two held-out ends, once.
        kept = self._held_out[a] & ~(self._held_out[b] & (b < a))
        a, b, shared = a[kept], b[kept], pairs.data[kept]
        sharing = np.flatnonzero(np.diff(self._jaccard.indptr))
        other = self._rng.choice(sharing, len(a)) if len(a) else a
        nothing = np.asarray(self._jaccard[a, other] == 0).ravel() & (other != a)
        return LeftOutPairs(
            a=np.concatenate([a, a[nothing]]) + self._first,
            b=np.concatenate([b, other[nothing]]) + self._first,
            jaccard=np.concatenate([shared, np.zeros(int(nothing.sum()))]),
        )


def _marks(a: IntArray, b: IntArray, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((np.ones(len(a), bool), (a, b)), shape=shape)
