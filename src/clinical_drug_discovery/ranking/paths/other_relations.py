"""Paths through diseases that a drug is joined to by other relations than treatments."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from ...graph.adjacency import Floats, dense_product
from ...graph.knowledge_graph import IntArray
from ..drug_similarity import Similarity


class OtherRelations:
    """For each relation, drug - relation - disease - similar in any way - disease."""

    def __init__(
        self, matrices: Collection[csr_array], similarities: Sequence[Similarity], treated: IntArray
    ) -> None:
        """Keep the parts of the similarities that the paths need.

        Args:
            matrices: of the relations, each of shape (D, S).
            similarities: of diseases.
            treated: the diseases with a known drug, ascending.
        """
        with_any = [np.flatnonzero(matrix.sum(axis=0)) for matrix in matrices]
        #: the diseases that are not treated
        self._rest = np.setdiff1d(np.concatenate([*with_any, treated[:0]]), treated)
        self._similarities = [(s.left, csr_array(s.right[self._rest].T)) for s in similarities]
        # For each relation: the places of its diseases in `treated` followed by `_rest`.
        every = np.concatenate([treated, self._rest])
        order = np.argsort(every, kind="stable")
        self._relations = [
            (order[np.searchsorted(every[order], ends)], csr_array(matrix[:, ends].T))
            for matrix, ends in zip(matrices, with_any, strict=True)
        ]

    def sums(self, diseases: IntArray, to_treated: Floats) -> Iterator[Floats]:
        """Yield the sums over the paths to n diseases for each relation, shape (n, D).

        Args:
            diseases: shape (n,).
            to_treated: shape (n, T), the sum of their similarities to the treated diseases.
        """
        if not self._relations:
            return
        to_rest = np.zeros((len(diseases), len(self._rest)), np.float32)
        if len(self._rest):
            for left, right_t in self._similarities:
                to_rest += dense_product(left[diseases], right_t)
        to_rest[diseases[:, None] == self._rest] = 0
        similar = np.concatenate([to_treated, to_rest], axis=1)
        for places, matrix_t in self._relations:
            yield similar[:, places] @ matrix_t
