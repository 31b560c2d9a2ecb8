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
from ..listwise_examples import squash
from ..neighbors import of_largest
from ..path_scores import PathRanker, popular
from .few_drugs import CHUNK, DiseaseSide, FewDrugs

NUM_RIVALS = 64  #: drugs that are counted for the bound: those that treat the most diseases
_EXACT = 32  # diseases scored exactly at a time
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
    rivals: Floats  #: shape (S, M): logarithm of the rivals' shares of each disease, per MLP
    votes: Floats  #: shape (S,), the largest votes of a drug for each disease
    near: Floats  #: shape (T, D), shares of the neighbors' scores of the treated diseases
    exact: dict[int, Floats] = field(default_factory=dict)  #: scores of diseases that were needed

    @staticmethod
    @one_thread(True)
    def of(
        ranker: DrugRanker, side: DiseaseSide, popularity: bool, advance: Callable[[str], None]
    ) -> BestDiseases:
        """Compute the shares of the rivals; `advance` is told after each chunk."""
        features = side.features
        order = np.argsort(-features.num_indications, kind="stable")
        few = FewDrugs(side, np.sort(order[:NUM_RIVALS]))
        neighbors = None if ranker.vectors is None else ranker.vectors.neighbors(features)
        shares, votes = [], []
        for start in range(0, features.num_diseases, CHUNK):
            chunk = np.arange(start, min(start + CHUNK, features.num_diseases))
            logits = pair_logits(ranker.paths, few, chunk, popularity=popularity)
            shares.append(np.logaddexp.reduce(logits, axis=2))
            if neighbors is not None:
                votes.append(neighbors.counts(chunk).max(axis=1))
            advance(f"{chunk[-1] + 1:,} of {features.num_diseases:,} diseases")
        near = np.zeros((0, 0), np.float32)
        if neighbors is not None:
            near = of_largest(neighbors.scores(features.treated))
        every_vote = np.concatenate(votes) if votes else np.zeros(0, np.float32)
        return BestDiseases(ranker, side, popularity, np.concatenate(shares), every_vote, near)

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
            bounds = self._keys(asked, self._bounds(drug, asked))
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
            every = self.ranker.scores(
                self.side.features, np.array(new), popularity=self.popularity
            )
            self.exact.update(zip(new, every, strict=True))
        return np.array([self.exact[disease][drug] for disease in diseases.tolist()], np.float32)

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

    def _bounds(self, drug: int, asked: IntArray) -> Floats:
        """Return an upper bound of the score of a drug for n diseases, shape (n,)."""
        few, features = FewDrugs(self.side, np.array([drug])), self.side.features
        parts = []
        for start in range(0, len(asked), CHUNK):
            chunk = asked[start : start + CHUNK]
            logits = pair_logits(self.ranker.paths, few, chunk, popularity=self.popularity)
            parts.append(np.minimum(logits[:, :, 0] - self.rivals[chunk], 0).mean(axis=1))
            let_others()
        bounds = np.concatenate([np.zeros(0, np.float32), *parts])
        if self.ranker.vectors is not None:
            untreated = features.column[asked] < 0
            weights = [
                blend.weight for blend in (self.ranker.with_known, self.ranker.without_known)
            ]
            near = log_shares(self._near(drug, asked))
            bounds += np.where(untreated, weights[1], weights[0]).astype(np.float32) * near
        # The score of a known pair may be above what the bound says, because part of it is imputed.
        bounds[features.known[[drug]].toarray()[0, asked] > 0] = np.inf
        # Numbers of a damaged model are scored, and refused there.
        bounds = np.nan_to_num(bounds + _MARGIN, nan=np.inf, posinf=np.inf)
        return np.asarray(bounds, np.float32)

    def _near(self, drug: int, asked: IntArray) -> Floats:
        """Return the neighbors' score of a drug for n diseases, as a share of the largest."""
        assert self.ranker.vectors is not None
        neighbors = self.ranker.vectors.neighbors(self.side.features)
        shares = neighbors.counts_of(drug, asked) / np.maximum(self.votes[asked], 1e-30)
        column = self.side.features.column[asked]
        shares[column >= 0] = self.near[column[column >= 0], drug]
        return np.asarray(shares, np.float32)


def pair_logits(
    paths: PathRanker, few: FewDrugs, diseases: IntArray, *, popularity: bool
) -> Floats:
    """Return the scores of each MLP for m drugs and n diseases before the softmax, (n, M, m).

    All pairs are computed at once. `PathRanker.scores` is quicker for all drugs of a disease.
    """
    of_pairs, of_diseases, largest = few.base_parts(diseases)
    shape = len(diseases), len(few.drugs)
    num_pairs, num_base = of_pairs.shape[1], len(paths.base_scale)
    values = np.zeros((num_base + len(paths.co_indicated_scale), *shape), np.float32)
    values[:num_pairs] = of_pairs.swapaxes(0, 1)
    values[num_pairs:num_base] = of_diseases.T[:, :, None]
    for i in few.treated_among(diseases).tolist():
        values[num_base:, i] = few.co_indicated(int(diseases[i]))
    anchors = few.anchors(of_pairs, largest)
    rest = np.stack([mlp["anchor"] * anchors for mlp in paths.mlps])
    if popularity:
        of_drugs = few.popularity(diseases)
        flat = of_drugs.reshape(len(of_drugs), -1)
        rest += np.stack([popular(mlp, flat) for mlp in paths.mlps]).reshape(rest.shape)
    scale = np.concatenate([paths.base_scale, paths.co_indicated_scale])
    squashed = squash(values.reshape(len(values), -1), scale)
    scores = paths.stacked.scores(squashed, np.arange(len(values)), paths.stacked.first_bias)
    return np.ascontiguousarray((scores.reshape(rest.shape) + rest).swapaxes(0, 1))
