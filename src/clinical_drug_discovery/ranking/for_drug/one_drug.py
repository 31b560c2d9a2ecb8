"""The features of one drug for all diseases, and its scores before the softmax over the drugs.

The features equal those of `MetapathFeatures`, which computes a disease at a time for all drugs.
Here, a similarity to the treated diseases is computed for those alone that the drug treats, and a
path through other drugs begins with the similarity of this drug to all others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from ...graph.adjacency import Floats
from ...system.processes import cached_property
from ..drug_similarity import Similarity
from ..listwise_examples import squash
from ..metapath_features import LEAST_SHARE
from ..path_scores import PathRanker, popular
from .disease_side import DiseaseSide


class OneDrug:
    """The features of a drug for all S diseases."""

    def __init__(self, side: DiseaseSide, drug: int) -> None:
        """Prepare what several features share.

        Args:
            side: of the graph.
            drug: numbered within its type.
        """
        self._side, self._features, self.drug = side, side.features, drug
        self._columns = side.features.treats[[drug]].indices  # of the treated diseases
        self._treats = np.zeros(len(side.features.treated), np.float32)
        self._treats[self._columns] = 1
        self._known = np.zeros(side.features.num_diseases, np.float32)
        self._known[side.features.treated[self._columns]] = 1

    def logits(self, paths: PathRanker, *, popularity: bool) -> Floats:
        """Return the scores of each MLP for all diseases before the softmax, shape (M, S).

        `PathRanker.scores` is quicker for all drugs of a disease.

        Args:
            paths: the fitted ranker.
            popularity: add the popularity of the drug.
        """
        of_pairs, number = self.of_pairs, len(self._known)
        base, also = len(paths.base_scale), len(paths.co_indicated_scale)
        values = np.zeros((base + also, number), np.float32)
        values[: len(of_pairs)], values[len(of_pairs) : base] = of_pairs, self._side.of_diseases
        values[base:, self._features.treated] = self.co_indicated
        scale = np.concatenate([paths.base_scale, paths.co_indicated_scale])
        squashed = squash(values, scale)
        scores = paths.stacked.scores(squashed, np.arange(len(values)), paths.stacked.first_bias)
        scores += np.stack([mlp["anchor"] * self.anchors for mlp in paths.mlps])
        if popularity:
            scores += np.stack([popular(mlp, self.popularity) for mlp in paths.mlps])
        return scores

    @cached_property
    def of_pairs(self) -> Floats:
        """The features of pairs in the order of `MetapathFeatures.base_parts`, shape (P, S)."""
        return np.stack(list(self._paths()))

    @cached_property
    def anchors(self) -> Floats:
        """`MetapathFeatures.walk_anchor`, shape (S,)."""
        largest = self._side.largest
        visits = self.of_pairs[self._features.walk_rows].sum(axis=0)
        shares = visits / np.maximum(largest, np.float32(1e-30))
        return np.where(largest > 0, np.log(shares + np.float32(LEAST_SHARE)), 0).astype(np.float32)

    @property
    def popularity(self) -> Floats:
        """`MetapathFeatures.popularity`, shape (G, S)."""
        degrees = [values[self.drug] for values in self._features.drug_degrees[1]]
        rows = np.empty((len(degrees) + 1, len(self._known)), np.float32)
        rows[:-1] = np.array(degrees, np.float32)[:, None]
        rows[-1] = np.log1p(self._features.num_indications[self.drug] - self._known)
        return rows

    @property
    def co_indicated(self) -> Floats:
        """The features of co-indicated drugs for the treated diseases, shape (2 W + 1, T).

        See `MetapathFeatures.co_indicated_similarity`. Its sums run over all treated diseases of
        two drugs but the asked one. Here, the whole sums are computed once for each drug, and the
        part of the asked disease is subtracted.
        """
        features, pairs, drug = self._features, self._side.pairs, self.drug
        similar = [one.left @ _row(one.right, drug) for one in features.drug_similarities]
        rows = [values[pairs.drug] for values in similar]
        rows.append(np.sum(rows, axis=0))
        own = _row(features.damped, drug)[pairs.column]
        visits = (features.damped @ _row(features.damped, drug))[pairs.drug] - pairs.own * own
        norm = features.norms_without(np.full(len(own), drug), own)
        rows += [visits, visits * pairs.norm * norm]
        of_steps = zip(features.steps_between_treated, pairs.arrivals, strict=True)
        for step, arrivals in of_steps:
            onward = step @ self._treats
            walks = (features.damped @ onward)[pairs.drug] - pairs.own * onward[pairs.column]
            rows.append(walks - self._treats[pairs.column] * arrivals)
        similarity = np.stack(rows).astype(np.float32)
        similarity[:, pairs.drug == drug] = 0
        found = np.empty((2 * len(rows) + 1, len(pairs.starts)), np.float32)
        found[:-1:2] = np.add.reduceat(similarity, pairs.starts, axis=1)
        found[1:-1:2] = np.maximum(np.maximum.reduceat(similarity, pairs.starts, axis=1), 0)
        found[-1] = np.log1p(np.diff(np.append(pairs.starts, len(pairs.drug))))
        return found

    def _paths(self) -> Iterator[Floats]:
        """Yield the features of pairs in their order, each of shape (S,)."""
        side, features = self._side, self._features
        for _, drugs_t, diseases in features.connecting:
            yield diseases @ (drugs_t @ self._one)
        for block in self._to_treated():
            yield block.sum(axis=1)
            yield block.max(axis=1, initial=0)
        yield side.any_way[:, self._columns].max(axis=1, initial=0)
        for matrix in features.other_relations.values():
            yield self._similar_to(matrix[[self.drug]])
        through = np.stack([self._through(one) for one in features.drug_similarities], axis=1)
        shared = features.shared_drugs @ self._treats
        related = side.related @ np.column_stack([through, shared])
        yield from related[:, :-1].T
        yield from (side.any_way @ through).T
        related[features.treated[self._columns], -1] -= side.shared_with_own[self._columns]
        yield related[:, -1]

    @cached_property
    def _one(self) -> Floats:
        """1 at the drug, shape (D,)."""
        one = np.zeros(self._features.num_drugs, np.float32)
        one[self.drug] = 1
        return one

    def _to_treated(self) -> Iterator[Floats]:
        """Yield the similarities of all diseases to the n that the drug treats, shape (S, n).

        A product of two sparse matrices would take longer for a drug that treats many diseases.
        """
        treated = self._features.treated[self._columns]
        for one in self._features.disease_similarities:
            right = one.right[treated]
            used = np.unique(right.indices)
            block = one.left_t[used].T @ np.ascontiguousarray(right.toarray()[:, used].T)
            block[treated, np.arange(len(treated))] = 0
            yield block
        for visits in self._side.visits:
            yield visits[:, self._columns]

    def _similar_to(self, others: csr_array) -> Floats:
        """Return the sum of all similarities to some diseases but the asked one, shape (S,).

        Args:
            others: shape (1, S), the weights of these diseases.
        """
        total, weight = np.zeros(len(self._known), np.float32), others.toarray()[0]
        if others.nnz:
            for one in self._features.disease_similarities:
                total += ((others @ one.right) @ one.left_t).toarray()[0] - weight * one.diagonal
        return total

    def _through(self, similarity: Similarity) -> Floats:
        """Return the sum of the similarities to the other drugs of each disease, shape (T,)."""
        similar = similarity.right @ _row(similarity.left, self.drug)
        similar[self.drug] = 0
        return np.asarray(similar @ self._features.treats)


def _row(matrix: csr_array, at: int) -> Floats:
    """Return one row of a matrix as a vector."""
    return np.asarray(matrix[[at]].toarray()[0])
