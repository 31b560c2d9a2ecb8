"""Neighbors in the embeddings as voters: how near are a disease and a drug to known treatments?

Embeddings are centered per node type. The similarity of two nodes is max(cosine, 0)^8, so that near
neighbors count most. Three parts score the drugs for a disease:

- votes: each other disease that has known drugs votes for them, by its similarity to the disease.
- near own: the sum of a drug's similarities to the known drugs of the disease.
- near votes: the sum of a drug's similarities to all drugs, each times the votes for that drug.

Each part is divided by its largest value. score = votes + near own + 0.3 near votes for diseases
with known drugs; score = votes for other diseases. Power, form and factor are fixed: they were not
chosen on held-out pairs.

The drug ranker also imputes votes. No other disease can vote for a drug that treats nothing, or the
asked disease alone, and such a drug would rank low whatever it is near to. Its imputed votes are
the sum of max(cosine, 0)^4 to all drugs, each times the votes for that drug, divided by the largest
such sum of a drug that treats a disease. Drugs that treat nothing have few near neighbors, so this
power is lower. It was chosen among 3, 4, 6 and 8 on held-out pairs of one fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..system.processes import cached_property
from .treatments import treatment_matrix

if TYPE_CHECKING:
    from torch import Tensor

_DOUBLINGS = 3  # the cosine is squared so often: its power is 8
_FEWER_DOUBLINGS = 2  # for imputed votes: their power is 4
NEAR_VOTES = 0.3  #: weight of the part "near votes"
_DISEASES, _DRUGS = 256, 1024  # scored at a time: 40 MB on PrimeKG
_ALL = slice(None)


@dataclass(frozen=True)
class Neighbors:
    """The centered unit vectors of drugs and diseases, with the known treatments.

    Drugs and diseases are numbered within their types.
    """

    drugs: Floats  #: shape (D, dim)
    diseases: Floats  #: shape (S, dim)
    known: csr_array  #: shape (S, D), 1 for known treatments
    treated: IntArray  #: the diseases that have known drugs

    @staticmethod
    def of(
        graph: KnowledgeGraph,
        embeddings: Tensor,
        drugs: IntArray | slice = _ALL,
        diseases: IntArray | slice = _ALL,
    ) -> Neighbors:
        """Return the neighbors among drugs and diseases.

        Args:
            graph: on the CPU.
            embeddings: shape (N, dim), of all nodes, on the CPU.
            drugs: shape (D,), numbers of drugs within their type, ascending. The others neither
                vote nor get scores, but all drugs give the center.
            diseases: shape (S,), the same for diseases.

        Raises:
            InputError: the graph lacks drugs or diseases.
        """
        words, known = graph.vocabulary, csr_array(treatment_matrix(graph)[diseases][:, drugs])
        first, second = (
            _unit(embeddings[slice(*node_range_of(graph, kind))].numpy(), chosen)
            for kind, chosen in ((words.drug_type, drugs), (words.disease_type, diseases))
        )
        return Neighbors(first, second, known, np.flatnonzero(np.diff(known.indptr)))

    def scores(self, diseases: IntArray, *, impute: bool = False) -> Floats:
        """Return the scores of all drugs for n diseases, shape (n, D).

        Args:
            diseases: shape (n,).
            impute: impute the votes for drugs for which no other disease can vote.
        """
        scores = np.zeros((len(diseases), len(self.drugs)), np.float32)
        for start in range(0, len(diseases), _DISEASES):
            chunk = diseases[start : start + _DISEASES]
            votes, near_own, near_votes = self.parts(chunk)
            if impute:
                self._impute(votes, chunk)
            scores[start : start + len(chunk)] = (
                votes + of_largest(near_own) + NEAR_VOTES * near_votes
            )
        return scores

    def votes(self, diseases: IntArray) -> Floats:
        """Return the votes for n diseases, shape (n, D), divided by the largest of their row."""
        return of_largest(self.counts(diseases))

    def counts(self, diseases: IntArray) -> Floats:
        """Return the votes for n diseases, shape (n, D), before the division."""
        return np.asarray((self.known[self.treated].T @ self._voters(diseases).T).T)

    def votes_and_imputed(self, diseases: IntArray) -> Floats:
        """Return `votes`, imputed where no other disease can vote for a drug, shape (n, D)."""
        votes = self.votes(diseases)
        for start in range(0, len(diseases), _DISEASES):
            part = slice(start, start + _DISEASES)
            self._impute(votes[part], diseases[part])
        return votes

    def largest_sums(self, diseases: IntArray) -> Floats:
        """Return what the imputed votes for n diseases are divided by, shape (n,)."""
        return np.asarray((self._voters(diseases) @ self._near_known[:, self._used]).max(axis=1))

    def sums_of(self, drug: int, diseases: IntArray) -> Floats:
        """Return the imputed votes for one drug and n diseases, shape (n,), before the division."""
        return np.asarray(self._voters(diseases) @ self._near_known[:, drug])

    def _impute(self, votes: Floats, diseases: IntArray) -> None:
        """Impute the votes (n, D) for drugs that treat no disease but the asked one, in place."""
        sums = self._voters(diseases) @ self._near_known
        sums /= np.maximum(sums[:, self._used].max(axis=1, keepdims=True), np.float32(1e-30))
        others = self._num_treated - self.known[diseases].toarray()
        np.copyto(votes, sums, where=others == 0)

    def _voters(self, diseases: IntArray) -> Floats:
        """Return the similarity of n diseases to all treated ones but themselves, shape (n, T)."""
        similarity = _similarity(self.diseases[diseases], self.diseases[self.treated])
        similarity[diseases[:, None] == self.treated] = 0
        return similarity

    @cached_property
    def _used(self) -> IntArray:
        """The drugs that treat a disease, ascending."""
        return np.unique(self.known.indices)

    @cached_property
    def _num_treated(self) -> Floats:
        """The number of diseases that each drug treats, shape (D,)."""
        return np.asarray(self.known.sum(axis=0), np.float32)

    @cached_property
    def _near_known(self) -> Floats:
        """The sum of max(cosine, 0)^4 of each drug to the known drugs of a treated disease.

        Shape (T, D). It takes 19 MB and 0.1 s on a graph of PrimeKG's size.
        """
        known = csr_array(self.known[self.treated][:, self._used])
        sums = np.empty((len(self.treated), len(self.drugs)), np.float32)
        for start in range(0, len(self.drugs), _DRUGS):
            part = slice(start, start + _DRUGS)
            nearness = _similarity(self.drugs[self._used], self.drugs[part], _FEWER_DOUBLINGS)
            sums[:, part] = known @ nearness
        return sums

    @cached_property
    def _near_used(self) -> Floats:
        """The similarity of each drug to those that treat a disease, shape (D, number of these).

        It takes 36 MB and 0.1 s on a graph of PrimeKG's size, and is needed for each chunk of
        diseases.
        """
        near = np.empty((len(self.drugs), len(self._used)), np.float32)
        for start in range(0, len(near), _DRUGS):
            near[start : start + _DRUGS] = _similarity(
                self.drugs[start : start + _DRUGS], self.drugs[self._used]
            )
        return near

    def counts_of(self, drug: int, diseases: IntArray) -> Floats:
        """Return the votes for one drug and n diseases, shape (n,), before the division."""
        voters = np.flatnonzero(self.known[:, [drug]].toarray()[:, 0])
        similarity = _similarity(self.diseases[diseases], self.diseases[voters])
        similarity[diseases[:, None] == voters] = 0
        return np.asarray(similarity.sum(axis=1))

    def parts(self, diseases: IntArray) -> tuple[Floats, Floats, Floats]:
        """Return votes, near own and near votes for n diseases, each of shape (n, D).

        Votes and near votes are divided by the largest value of their row, near own is not. Near
        own and near votes are 0 for diseases without known drugs.
        """
        votes = self.votes(diseases)
        near_own, near_votes = np.zeros_like(votes), np.zeros_like(votes)
        own = csr_array(self.known[diseases])
        asked = np.flatnonzero(np.diff(own.indptr))
        if len(asked):
            used = self._used
            voters, near_votes[asked] = votes[np.ix_(asked, used)], 0
            near_votes[asked] = voters @ self._near_used.T
            of_own = csr_array(own[asked])
            owned = np.unique(of_own.indices)
            of_own, at = csr_array(of_own[:, owned]), np.searchsorted(used, owned)
            for start in range(0, len(self.drugs), _DRUGS):
                columns = np.arange(start, min(start + _DRUGS, len(self.drugs)))
                near = self._near_used[start : start + _DRUGS, at]
                near[columns[:, None] == owned] = 0  # a drug is not near itself
                near_own[np.ix_(asked, columns)] = of_own @ near.T
        return votes, near_own, of_largest(near_votes)

    def nearness(self, drugs: IntArray) -> Floats:
        """Return the similarity of m drugs to all drugs, shape (m, D), 0 for a drug and itself."""
        nearness = _similarity(self.drugs[drugs], self.drugs)
        nearness[np.arange(len(drugs)), drugs] = 0
        return nearness


def _unit(rows: Floats, chosen: IntArray | slice) -> Floats:
    """Return the chosen rows, centered by all rows, each of length 1; a row of zeros stays."""
    rows = rows[chosen] - rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.float32(1e-30)))


def _similarity(a: Floats, b: Floats, doublings: int = _DOUBLINGS) -> Floats:
    """Return max(cosine, 0)^(2^doublings) of all pairs of rows."""
    similarity: Floats = a @ b.T
    np.maximum(similarity, 0, out=similarity)
    for _ in range(doublings):
        np.square(similarity, out=similarity)
    return similarity


def of_largest(rows: Floats) -> Floats:
    """Divide each row by its largest value; a row of zeros stays."""
    return np.asarray(rows / np.maximum(rows.max(axis=1, keepdims=True), np.float32(1e-30)))
