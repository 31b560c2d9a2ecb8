"""The best diseases for a drug, without a ranking of all drugs for all diseases.

The score of a drug for a disease is a share among all drugs, which takes long to compute. If only a
few strong rivals are counted, the share is too large, and quick to compute for all diseases. The
diseases are then scored exactly in the order of this upper bound, until the list cannot change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray
from ...system.machine import one_thread
from ...system.processes import let_others
from ..drug_ranker import DrugRanker, log_shares
from ..neighbors import Neighbors, of_largest
from .disease_side import CHUNK, DiseaseSide
from .one_drug import OneDrug

NUM_RIVALS = 64  #: drugs that are counted for the bound: those that treat the most diseases
_EXACT = 8  # diseases scored exactly at a time
_FEW_DISEASES = 512  # bounds do not help with so few
_MOST_KEPT = 2048  # diseases whose scores are kept: 60 MB on PrimeKG
_MARGIN = np.float32(1e-3)  # above rounding errors of the bounds


@dataclass(frozen=True)
class Found:
    """Diseases with the exact scores of a drug, the best first; each array has the shape (n,)."""

    diseases: IntArray
    scores: Floats
    probabilities: Floats  #: of a recorded indication
    treats: Floats  #: probabilities of a treatment, recorded or not


@dataclass(frozen=True)
class BestDiseases:
    """Finds the best diseases for a drug. Parts that all drugs share are computed once."""

    ranker: DrugRanker
    side: DiseaseSide
    popularity: bool  #: see `DrugRanker.scores`
    rivals: frozenset[int]  #: the drugs that are counted for the bound
    shares: Floats  #: shape (M, S): logarithm of the rivals' shares of each disease, per MLP
    neighbors: Neighbors | None  #: None: the ranker uses paths alone
    votes: Floats  #: shape (S,), the largest votes of a drug for each disease
    sums: Floats  #: shape (S,), see `Neighbors.largest_sums`
    near: Floats  #: shape (T, D), shares of the neighbors' scores of the treated diseases
    exact: dict[int, Floats] = field(default_factory=dict)  #: scores of diseases that were needed

    @staticmethod
    @one_thread(True)
    def of(
        ranker: DrugRanker, side: DiseaseSide, popularity: bool, advance: Callable[[str], None]
    ) -> BestDiseases:
        """Compute the shares of the rivals; `advance` is told after each of them."""
        features = side.features
        rivals = np.argsort(-features.num_indications, kind="stable")[:NUM_RIVALS].tolist()
        shares = np.full((len(ranker.paths.mlps), features.num_diseases), -np.inf, np.float32)
        for i, drug in enumerate(rivals, start=1):
            logits = OneDrug(side, drug).logits(ranker.paths, popularity=popularity)
            np.logaddexp(shares, logits, out=shares)
            advance(f"{i:,} of {len(rivals):,} drugs")
        neighbors, near = None, np.zeros((0, 0), np.float32)
        votes = sums = np.zeros(0, np.float32)
        if ranker.vectors is not None:
            neighbors = ranker.vectors.neighbors(features)
            votes, sums = _largest(neighbors, features.num_diseases)
            near = of_largest(neighbors.scores(features.treated, impute=True))
        parts = frozenset(rivals), shares, neighbors, votes, sums, near
        return BestDiseases(ranker, side, popularity, *parts)

    @one_thread(True)
    def best(self, drug: int, asked: IntArray, top: int) -> Found:
        """Return the best diseases for a drug.

        Args:
            drug: numbered within its type.
            asked: shape (m,), the diseases that may be listed, ascending.
            top: number of diseases.

        Returns:
            The diseases in the order of probability, then of score + log(number of known drugs),
            which decides where the curve of the probabilities is flat, then of number.
        """
        if len(asked) <= _FEW_DISEASES:  # all are scored, and their scores are kept
            bounds = np.full((2, len(asked)), np.inf, np.float32)
        else:
            bounds = self._keys(asked, self._bounds(drug)[asked])
        order = np.lexsort((asked, -bounds[0], -bounds[1]))
        scores = np.full(len(asked), -np.inf, np.float32)
        keys = np.full((2, len(asked)), -np.inf, np.float32)
        for start in range(0, len(order), _EXACT):
            if start >= top:
                last = np.lexsort((-keys[0], -keys[1]))[top - 1]
                if tuple(keys[::-1, last]) > tuple(bounds[::-1, order[start]]):
                    break
            chunk = order[start : start + _EXACT]
            scores[chunk] = self._exact_scores(drug, asked[chunk])
            keys[:, chunk] = self._keys(asked[chunk], scores[chunk])
            let_others()
        best = np.lexsort((asked, -keys[0], -keys[1]))[:top]
        recorded, treats = self._probabilities(asked[best], scores[best])
        return Found(asked[best], scores[best], recorded, treats)

    def _exact_scores(self, drug: int, diseases: IntArray) -> Floats:
        """Return the scores of a drug; those of other drugs are kept for later questions."""
        new = [disease for disease in diseases.tolist() if disease not in self.exact]
        if len(self.exact) + len(new) > _MOST_KEPT:
            self.exact.clear()
            new = diseases.tolist()
        if new:
            every = self.ranker.scores_with(
                self._near(np.array(new)), self.side.features, np.array(new),
                popularity=self.popularity,
            )  # fmt: skip
            self.exact.update(zip(new, every, strict=True))
        return np.array([self.exact[disease][drug] for disease in diseases.tolist()], np.float32)

    def _near(self, diseases: IntArray) -> Floats | None:
        """Return the neighbors' scores of all drugs as shares of the largest, shape (n, D)."""
        if self.neighbors is None:
            return None
        column = self.side.features.column[diseases]
        near = np.empty((len(diseases), self.near.shape[1]), np.float32)
        near[column >= 0] = self.near[column[column >= 0]]
        near[column < 0] = of_largest(self.neighbors.votes_and_imputed(diseases[column < 0]))
        return near

    def _keys(self, diseases: IntArray, scores: Floats) -> Floats:
        """Return score + log(number of known drugs), and the probability, shape (2, n)."""
        known = np.diff(self.side.features.known.tocsc().indptr)[diseases]
        among = scores + np.log(np.maximum(known, 1)).astype(np.float32)
        return np.stack([among, self._probabilities(diseases, scores)[0]])

    def _probabilities(self, diseases: IntArray, scores: Floats) -> tuple[Floats, Floats]:
        recorded, treats = self.ranker.probabilities(
            self.side.features, diseases, scores[:, None], popularity=self.popularity
        )
        return recorded[:, 0], treats[:, 0]

    def _bounds(self, drug: int) -> Floats:
        """Return an upper bound of the score of a drug for all diseases, shape (S,)."""
        features = self.side.features
        logits = OneDrug(self.side, drug).logits(self.ranker.paths, popularity=self.popularity)
        shares = self.shares if drug in self.rivals else np.logaddexp(self.shares, logits)
        bounds = (logits - shares).mean(axis=0)
        if self.neighbors is not None:
            weights = [
                blend.weight for blend in (self.ranker.with_known, self.ranker.without_known)
            ]
            diseases, largest = np.arange(features.num_diseases), self.votes
            near = self.neighbors.counts_of(drug, diseases)
            if not features.num_indications[drug]:
                near, largest = self.neighbors.sums_of(drug, diseases), self.sums
            near /= np.maximum(largest, 1e-30)
            near[features.treated] = self.near[:, drug]
            weight = np.where(features.column < 0, weights[1], weights[0]).astype(np.float32)
            bounds += weight * log_shares(near)
        # The score of a known pair may be above what the bound says, because part of it is imputed.
        bounds[features.known[[drug]].indices] = np.inf
        # Numbers of a damaged model are scored, and refused there.
        bounds = np.nan_to_num(bounds + _MARGIN, nan=np.inf, posinf=np.inf)
        return np.asarray(bounds, np.float32)


def _largest(neighbors: Neighbors, num_diseases: int) -> tuple[Floats, Floats]:
    """Return the largest votes of a drug for each disease, and the `largest_sums`, each (S,)."""
    starts = range(0, num_diseases, CHUNK)
    chunks = [np.arange(start, min(start + CHUNK, num_diseases)) for start in starts]
    votes = [neighbors.counts(chunk).max(axis=1) for chunk in chunks]
    return np.concatenate(votes), np.concatenate([neighbors.largest_sums(c) for c in chunks])
