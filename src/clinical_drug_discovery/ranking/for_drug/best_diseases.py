"""The best diseases for a drug, without a ranking of all drugs for all diseases.

The score of a drug for a disease is a share among all drugs. If the sums over all drugs are given,
all scores follow at once. Otherwise the diseases are scored exactly in the order of an estimate,
until the list cannot change. There are two estimates:

- Only a few strong rivals are summed. The share is then too large, and an upper bound.
- After a few facts were added, `sums_after_facts` is near the sums. The search allows an error of
  0.1 and of twice the largest error among the diseases that it has scored. All listed scores are
  exact. A disease could be missing in a list only if its estimate was more in error than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray
from ...system.log import part
from ...system.machine import one_thread
from ...system.processes import let_others
from ..drug_ranker import DIGITS, DrugRanker, log_shares
from ..metapath_features import MetapathFeatures
from ..neighbors import Neighbors, of_largest
from .disease_side import CHUNK, DiseaseSide
from .one_drug import OneDrug

NUM_RIVALS = 64  #: drugs that are counted for the bound: those that treat the most diseases
_EXACT = 8  # diseases scored exactly at a time
_EXACT_FEW = 4  # so many need no `MetapathFeatures._products`; a good estimate leaves few diseases
_MOST_KEPT = 2048  # diseases whose scores are kept: 60 MB on PrimeKG
_MARGIN = np.float32(1e-3)  # above rounding errors of the bounds
#: Least allowed error of an estimate. The errors of new drugs with five targets were below 0.03 on
#: a graph of 136,943 nodes, and below 0.001 for most diseases.
_NEAR_MARGIN = np.float32(0.1)
_SAFETY = np.float32(2)  # the allowed error is so many times the largest error that was seen


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
    rivals: frozenset[int] | None  #: the drugs in the sums; None: all drugs
    log_sums: Floats  #: shape (M, S): logarithm of the sum over the drugs, of each MLP
    neighbors: Neighbors | None  #: None: the ranker uses paths alone
    votes: Floats  #: shape (S,), the largest votes of a drug for each disease
    sums: Floats  #: shape (S,), see `Neighbors.largest_sums`
    near: Floats  #: shape (T, D), shares of the neighbors' scores of the treated diseases
    is_exact: bool  #: the sums are exact; otherwise the best diseases are scored exactly
    exact: dict[int, Floats] = field(default_factory=dict)  #: scores of diseases that were needed

    @staticmethod
    @one_thread(True)
    def of(
        ranker: DrugRanker,
        side: DiseaseSide,
        popularity: bool,
        log_sums: Floats | None,
        *,
        is_exact: bool = True,
        before: BestDiseases | None = None,
    ) -> BestDiseases:
        """Prepare the answers.

        Args:
            ranker: of the model.
            side: of the graph.
            popularity: see `DrugRanker.scores`.
            log_sums: over all drugs; None: a sum over rivals is computed.
            is_exact: false if the sums are those of `sums_after_facts`.
            before: of the model without the added facts, whose votes are near enough for estimates.
        """
        features, rivals = side.features, None
        if log_sums is None:
            rivals = frozenset(most_treating(features))
            log_sums = np.full((len(ranker.paths.mlps), features.num_diseases), -np.inf, np.float32)
            with part("Comparing the diseases", len(rivals), "drug") as advance:
                for drug in rivals:
                    logits = OneDrug(side, drug).logits(ranker.paths, popularity=popularity)
                    np.logaddexp(log_sums, logits, out=log_sums)
                    advance()
                    let_others()
        neighbors, near = None, np.zeros((0, 0), np.float32)
        votes = sums = np.zeros(0, np.float32)
        if ranker.vectors is not None:
            neighbors = ranker.vectors.neighbors(features)
            if before is None:
                votes, sums = _largest(neighbors, features.num_diseases)
            else:
                votes, sums = before.votes, before.sums
            near = of_largest(neighbors.scores(features.treated, impute=True))
        parts = rivals, log_sums, neighbors, votes, sums, near
        return BestDiseases(ranker, side, popularity, *parts, is_exact and rivals is None)

    def with_sums(self, popularity: bool, log_sums: Floats) -> BestDiseases:
        """Return the same with other sums over all drugs, as exact as these."""
        return replace(self, popularity=popularity, log_sums=log_sums, exact={})

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
        found = self._estimates(drug)[asked]
        if self.is_exact:
            scores = np.round(found, DIGITS)
        else:
            with part("Scoring the likely diseases"):
                scores = self._search(drug, asked, found, top)
        best = self._order(asked, scores)[:top]
        recorded, treats = self._probabilities(asked[best], scores[best])
        return Found(asked[best], scores[best], recorded, treats)

    def _search(self, drug: int, asked: IntArray, estimates: Floats, top: int) -> Floats:
        """Return the exact scores of the best diseases, and -infinity for the others, shape (m,).

        Args:
            drug: see `best`.
            asked: see `best`.
            estimates: shape (m,), upper bounds of the scores but for rounding errors; or without
                `rivals`, scores with small errors.
            top: see `best`.
        """
        # The score of a known pair may be above the bound, because part of it is imputed. Numbers
        # of a damaged model are scored, and refused there.
        known = np.isin(asked, self.side.features.known[[drug]].indices)
        estimates = np.nan_to_num(estimates, nan=np.inf, posinf=np.inf).astype(np.float32)
        estimates[known] = np.inf
        number, margin = (_EXACT_FEW, _NEAR_MARGIN) if self.rivals is None else (_EXACT, _MARGIN)
        order = self._order(asked, estimates + margin)
        scores = np.full(len(asked), -np.inf, np.float32)
        keys = np.full((2, len(asked)), -np.inf, np.float32)
        while len(order):
            if len(asked) - len(order) >= top:
                last = np.lexsort((-keys[0], -keys[1]))[top - 1]
                first = order[:1]
                bound = self._keys(asked[first], estimates[first] + margin)[::-1, 0]
                if tuple(keys[::-1, last]) > tuple(bound):
                    break
            chunk, order = order[:number], order[number:]
            scores[chunk] = self._exact_scores(drug, asked[chunk])
            keys[:, chunk] = self._keys(asked[chunk], scores[chunk])
            seen = _SAFETY * (scores[chunk] - estimates[chunk]).max(initial=0)
            if self.rivals is None and seen > margin:
                margin = seen
                order = order[self._order(asked[order], estimates[order] + margin)]
            let_others()
        return scores

    def _order(self, diseases: IntArray, scores: Floats) -> IntArray:
        """Return the places of n diseases in the order of `best`, shape (n,)."""
        keys = self._keys(diseases, scores)
        return np.lexsort((diseases, -keys[0], -keys[1]))

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
        known = self.side.features.known_counts[diseases]
        among = scores + np.log(np.maximum(known, 1)).astype(np.float32)
        return np.stack([among, self._probabilities(diseases, scores)[0]])

    def _probabilities(self, diseases: IntArray, scores: Floats) -> tuple[Floats, Floats]:
        recorded, treats = self.ranker.probabilities(
            self.side.features, diseases, scores[:, None], popularity=self.popularity
        )
        return recorded[:, 0], treats[:, 0]

    def _estimates(self, drug: int) -> Floats:
        """Return the scores of a drug for all diseases, shape (S,), given the sums."""
        features = self.side.features
        logits = OneDrug(self.side, drug).logits(self.ranker.paths, popularity=self.popularity)
        is_counted = self.rivals is None or drug in self.rivals
        log_sums = self.log_sums if is_counted else np.logaddexp(self.log_sums, logits)
        paths = (logits - log_sums).mean(axis=0)
        if self.neighbors is None:
            return np.asarray(paths)
        diseases, largest = np.arange(features.num_diseases), self.votes
        near = self.neighbors.counts_of(drug, diseases)
        if not features.num_indications[drug]:
            near, largest = self.neighbors.sums_of(drug, diseases), self.sums
        near /= np.maximum(largest, 1e-30)
        near[features.treated] = self.near[:, drug]
        near, own = log_shares(near), features.known[[drug]].indices
        blend, without = self.ranker.with_known, self.ranker.without_known
        if blend.imputed is not None:
            near[own] = blend.imputed(paths[own])
        weight = np.where(features.column < 0, without.weight, blend.weight).astype(np.float32)
        return np.asarray(paths + weight * near)


def most_treating(features: MetapathFeatures) -> list[int]:
    """Return the drugs that treat the most diseases."""
    order = np.argsort(-features.num_indications, kind="stable")
    return [int(drug) for drug in order[:NUM_RIVALS]]


def _largest(neighbors: Neighbors, num_diseases: int) -> tuple[Floats, Floats]:
    """Return what votes and imputed votes for each disease are divided by, each of shape (S,).

    An imputed vote may be above the largest vote, so the largest of both counts.
    """
    votes, sums = [], []
    for start in range(0, num_diseases, CHUNK):
        chunk = np.arange(start, min(start + CHUNK, num_diseases))
        top = neighbors.votes_and_imputed(chunk).max(axis=1)
        top[top <= 0] = 1
        votes.append(neighbors.counts(chunk).max(axis=1) * top)
        sums.append(neighbors.largest_sums(chunk) * top)
    return np.concatenate(votes), np.concatenate(sums)
