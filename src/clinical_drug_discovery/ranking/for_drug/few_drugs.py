"""The metapath features of a few drugs for many diseases.

They equal those of `MetapathFeatures`, which computes a disease at a time for all drugs. Here, what
belongs to the diseases is computed once, and sums over treated diseases have only those that the
few drugs treat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray
from ..drug_similarity import co_indicated_features, nearest
from ..metapath_features import LEAST_SHARE, MetapathFeatures

CHUNK = 512  #: diseases whose features are computed at a time


@dataclass(frozen=True)
class DiseaseSide:
    """The parts that the features of all drugs share. They take 10 s and 0.2 GB on PrimeKG.

    The similarity of a disease to itself counts as 0.
    """

    features: MetapathFeatures
    visits: list[Floats]  #: each of shape (S, T): visits of a random walk from treated diseases
    any_way: Floats  #: shape (S, T), the sum of all similarities and visits
    of_diseases: Floats  #: shape (S, C), the base features of diseases alone
    largest: Floats  #: shape (S,), the largest visits, see `MetapathFeatures.walk_anchor`

    @staticmethod
    def of(features: MetapathFeatures, advance: Callable[[str], None]) -> DiseaseSide:
        """Compute what the diseases have; `advance` is told after each chunk."""
        number, treated = features.num_diseases, features.treated
        starts = np.zeros((number, len(treated)), np.float32)
        starts[treated, np.arange(len(treated))] = 1
        visits = [walk.reversed().visits(starts) for walk in features.walks]
        for one in visits:
            one[treated, np.arange(len(treated))] = 0
        any_way = starts
        any_way[:] = 0
        most = []
        for first in range(0, number, CHUNK):
            chunk = np.arange(first, min(first + CHUNK, number))
            blocks = _similarities(features, chunk, features.right_treated, features.column[chunk])
            blocks += [one[chunk] for one in visits]
            for block in blocks:
                any_way[chunk] += block
            most.append(np.stack([block.max(axis=1, initial=0) for block in blocks], axis=1))
            advance(f"{chunk[-1] + 1:,} of {number:,} diseases")
        largest = np.zeros(number, np.float32)
        if visits:
            total, treats_t = np.add.reduce(visits), csr_array(features.treats.T)
            for first in range(0, number, CHUNK):
                by_drug = total[first : first + CHUNK] @ treats_t
                largest[first : first + CHUNK] = by_drug.max(axis=1, initial=0)
        degrees = [values[:, None] for values in features.disease_degrees[1]]
        of_diseases = np.concatenate([*degrees, np.concatenate(most)], axis=1)
        return DiseaseSide(features, visits, any_way, of_diseases, largest)

    @cached_property
    def shared(self) -> Floats:
        """The drugs that treated diseases share, see `MetapathFeatures`; shape (T, T)."""
        return np.asarray(self.features.shared_drugs.toarray())

    @cached_property
    def shared_with_own(self) -> Floats:
        """The sum of `shared` over the related diseases of each treated disease; shape (T,)."""
        related = self.related[self.features.treated]
        return np.asarray((related * self.shared.T).sum(axis=1))

    @property
    def related(self) -> Floats:
        """The similarity that the features call related; shape (S, T)."""
        return self.visits[-1] if self.visits else self.any_way


class FewDrugs:
    """The features of m drugs."""

    def __init__(self, side: DiseaseSide, drugs: IntArray) -> None:
        """Compute the matrices that are the same for all diseases.

        Args:
            side: of the graph.
            drugs: shape (m,), numbered within their type.
        """
        self._side, self._features, self.drugs = side, side.features, drugs
        self._part = side.features.for_drugs(drugs)
        treats = side.features.treats[drugs]
        self._treated = np.unique(treats.indices)  # positions among the treated diseases
        self._treats = csr_array(treats[:, self._treated])
        self._asked_t = csr_array(self._treats.T)
        self._right = [csr_array(r[:, self._treated]) for r in side.features.right_treated]
        self._column = np.full(side.features.num_diseases, -1)  # position in `_treated`, or -1
        self._column[side.features.treated[self._treated]] = np.arange(len(self._treated))
        self._products = np.concatenate(
            [
                ((one.left[drugs] @ one.right_t) @ side.features.treats).toarray()
                - treats.toarray() * one.diagonal[drugs, None]
                for one in side.features.drug_similarities
            ]
        ).T
        self._shared = side.shared @ treats.toarray().T

    def base_parts(self, diseases: IntArray) -> tuple[Floats, Floats, Floats]:
        """Return `MetapathFeatures.base_parts` for n diseases and m drugs, and the largest visits.

        The largest visits are those of all drugs, shape (n,).
        """
        of_pairs = np.stack(list(self._paths_to(diseases)), axis=1)
        return of_pairs, self._side.of_diseases[diseases], self._side.largest[diseases]

    def _paths_to(self, diseases: IntArray) -> Iterator[Floats]:
        """Yield the features of pairs in their order, each of shape (n, m)."""
        yield from self._part.connecting_paths(diseases)
        side, columns = self._side, self._treated
        blocks = _similarities(self._features, diseases, self._right, self._column[diseases])
        blocks += [one[np.ix_(diseases, columns)] for one in side.visits]
        for block in blocks:
            yield block @ self._asked_t
            yield nearest(block, self._treats)
        yield nearest(side.any_way[np.ix_(diseases, columns)], self._treats)
        yield from self._part.paths_of_other_relations(diseases)
        for similarity in (side.related, side.any_way):
            through = similarity[diseases] @ self._products
            yield from np.split(through, through.shape[1] // len(self.drugs), axis=1)
        shared = side.related[diseases] @ self._shared
        column = self._features.column[diseases]
        own = np.flatnonzero(column >= 0)
        treats = self._features.treats[self.drugs].toarray().T
        shared[own] -= side.shared_with_own[column[own], None] * treats[column[own]]
        yield np.asarray(shared, np.float32)

    def treated_among(self, diseases: IntArray) -> IntArray:
        """Return the positions of the diseases with known drugs."""
        return np.flatnonzero(self._features.column[diseases] >= 0)

    def co_indicated(self, disease: int) -> Floats:
        """Return the features of co-indicated drugs of a disease, shape (2 W + 1, m)."""
        return co_indicated_features(self._part.co_indicated_similarity(disease)[1])

    def anchors(self, of_pairs: Floats, largest: Floats) -> Floats:
        """Return `MetapathFeatures.walk_anchor` for n diseases and m drugs, shape (n, m)."""
        visits = of_pairs[:, self._features.walk_rows].sum(axis=1)
        shares = visits / np.maximum(largest, np.float32(1e-30))[:, None]
        logarithms = np.log(shares + np.float32(LEAST_SHARE))
        return np.where(largest[:, None] > 0, logarithms, 0).astype(np.float32)

    def popularity(self, diseases: IntArray) -> Floats:
        """Return `MetapathFeatures.popularity` for n diseases, shape (G, n, m)."""
        rows = self._part.popularity(int(diseases[0]))
        known = self._features.known[self.drugs].toarray().T[diseases]
        all_rows = np.repeat(rows[:, None], len(diseases), axis=1)
        all_rows[-1] = np.log1p(self._features.num_indications[self.drugs] - known)
        return np.asarray(all_rows, np.float32)


def _similarities(
    features: MetapathFeatures, diseases: IntArray, right: list[csr_array], own: IntArray
) -> list[Floats]:
    """Return one array (n, columns of `right`) for each similarity of diseases.

    Args:
        features: of the graph.
        diseases: shape (n,).
        right: the right sides of some treated diseases, transposed.
        own: shape (n,), the column of the disease itself, which is set to 0; -1: it has none.
    """
    pairs = zip(features.disease_similarities, right, strict=True)
    blocks = [(similarity.left[diseases] @ right_t).toarray() for similarity, right_t in pairs]
    rows = np.flatnonzero(own >= 0)
    for block in blocks:
        block[rows, own[rows]] = 0
    return blocks
