"""Paths through other drugs: drug - similar drug - treats - disease, for all drugs at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from ...graph.adjacency import Floats, transposed
from ...graph.knowledge_graph import IntArray
from ...system.processes import cached_property
from ..drug_similarity import Similarity

_MAX_PRODUCT_BYTES = 2**28  # the dense products are not used if they could take more bytes
# A dense product is used if it takes at most so many operations for each one with the sparse
# matrices: 5.5 take as long with AVX-512, fewer with AVX2.
_DENSE_PER_SPARSE = 5


class ThroughDrugs:
    """The products similarity @ treats for each similarity of drugs, never all of them in memory.

    D is the number of drugs, T the number of treated diseases.
    """

    def __init__(self, similarities: Sequence[Similarity], treats: csr_array) -> None:
        """Keep what the products are made of.

        Args:
            similarities: of drugs. The similarity of a drug to itself counts as 0.
            treats: shape (D, T), 1 where the drug treats the disease.
        """
        self._similarities, self._treats = similarities, treats
        #: the drugs that treat a disease: paths lead through these only
        self._treating = np.flatnonzero(np.diff(treats.indptr))
        self._treats_t = csr_array(treats[self._treating].T)

    def sums(self, block: Floats, *, many: bool) -> Iterator[Floats]:
        """Yield block @ treats.T @ similarity.T, of shape (m, D), for each similarity.

        Args:
            block: shape (m, T).
            many: use dense products, which are computed once and take 0.1 GB and a few seconds on
                PrimeKG. The result differs by rounding errors.
        """
        treated = transposed(block @ self._treats_t)
        size = 2 * len(self._similarities) * self._treats.shape[0] * self._treats.shape[1]
        is_many = many and size <= _MAX_PRODUCT_BYTES
        for i, (similarity, right_t) in enumerate(self._halves):
            dense = self._products[i] if is_many else None
            if dense is not None:
                drugs, product = dense
                out = np.zeros((len(block), self._treats.shape[0]), np.float32)
                out[:, drugs] = block @ product
                yield out
                continue
            total = similarity.left @ (right_t @ treated)
            own = similarity.diagonal[self._treating, None]
            total[self._treating] -= treated * own
            yield transposed(total)

    @cached_property
    def _halves(self) -> list[tuple[Similarity, csr_array]]:
        """Each similarity, and `right` of the drugs that treat a disease, transposed."""
        return [(s, csr_array(s.right[self._treating].T)) for s in self._similarities]

    @cached_property
    def _products(self) -> list[tuple[IntArray, Floats] | None]:
        """The products that are faster if dense.

        Each item has the drugs whose row of the product is not 0, and the transpose of these rows,
        shape (T, number of these drugs).
        """
        found: list[tuple[IntArray, Floats] | None] = []
        treats = self._treats[self._treating]
        for similarity, right_t in self._halves:
            sparse = similarity.left.nnz + right_t.nnz
            total = csr_array(similarity.left @ (right_t @ treats))
            own = self._treats.multiply(similarity.diagonal[:, None])
            total = csr_array(total - own)
            drugs = np.flatnonzero(np.diff(total.indptr))
            if len(drugs) * self._treats.shape[1] > _DENSE_PER_SPARSE * sparse:
                found.append(None)
                continue
            found.append((drugs, np.ascontiguousarray(total[drugs].toarray().T, np.float32)))
        return found
