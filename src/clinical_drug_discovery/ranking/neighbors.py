"""Neighbors in the embeddings as voters: how near are a disease and a drug to known treatments?

Embeddings are centered per node type. The similarity of two nodes is max(cosine, 0)^8, so that near
neighbors count most. Three parts score the drugs for a disease:

- votes: each other disease that has known drugs votes for them, by its similarity to the disease.
- near own: the sum of a drug's similarities to the known drugs of the disease.
- near votes: the sum of a drug's similarities to all drugs, each times the votes for that drug.

Each part is divided by its largest value. score = votes + near own + 0.3 near votes for diseases
with known drugs; score = votes for other diseases. Power, form and factor are fixed: they were not
chosen on held-out pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from .treatments import treatment_matrix

if TYPE_CHECKING:
    from torch import Tensor

_DOUBLINGS = 3  # the cosine is squared so often: its power is 8
NEAR_VOTES = 0.3  #: weight of the part "near votes"
_DISEASES, _DRUGS = 256, 1024  # scored at a time: 40 MB on PrimeKG


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
    def of(graph: KnowledgeGraph, embeddings: Tensor) -> Neighbors:
        """Return the neighbors in embeddings of all nodes, shape (N, dim), on the CPU.

        Raises:
            InputError: the graph lacks drugs or diseases.
        """
        words, known = graph.vocabulary, treatment_matrix(graph)
        drugs, diseases = (
            _unit(embeddings[slice(*node_range_of(graph, kind))].numpy())
            for kind in (words.drug_type, words.disease_type)
        )
        return Neighbors(drugs, diseases, known, np.flatnonzero(np.diff(known.indptr)))

    def scores(self, diseases: IntArray) -> Floats:
        """Return the scores of all drugs for n diseases, shape (n, D)."""
        scores = np.zeros((len(diseases), len(self.drugs)), np.float32)
        for start in range(0, len(diseases), _DISEASES):
            chunk = diseases[start : start + _DISEASES]
            votes, near_own, near_votes = self.parts(chunk)
            scores[start : start + len(chunk)] = (
                votes + of_largest(near_own) + NEAR_VOTES * near_votes
            )
        return scores

    def votes(self, diseases: IntArray) -> Floats:
        """Return the votes for n diseases, shape (n, D), divided by the largest of their row."""
        return of_largest(self.counts(diseases))

    def counts(self, diseases: IntArray) -> Floats:
        """Return the votes for n diseases, shape (n, D), before the division."""
        similarity = _similarity(self.diseases[diseases], self.diseases[self.treated])
        similarity[diseases[:, None] == self.treated] = 0  # the disease itself
        return np.asarray((self.known[self.treated].T @ similarity.T).T)

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
            used = np.unique(self.known.indices)
            voters, near_votes[asked] = votes[np.ix_(asked, used)], 0
            of_own = csr_array(own[asked][:, used])
            for start in range(0, len(self.drugs), _DRUGS):
                columns = np.arange(start, min(start + _DRUGS, len(self.drugs)))
                nearness = _similarity(self.drugs[columns], self.drugs[used])
                near_votes[np.ix_(asked, columns)] = voters @ nearness.T
                nearness[columns[:, None] == used] = 0  # a drug is not near itself
                near_own[np.ix_(asked, columns)] = of_own @ nearness.T
        return votes, near_own, of_largest(near_votes)

    def nearness(self, drugs: IntArray) -> Floats:
        """Return the similarity of m drugs to all drugs, shape (m, D), 0 for a drug and itself."""
        nearness = _similarity(self.drugs[drugs], self.drugs)
        nearness[np.arange(len(drugs)), drugs] = 0
        return nearness


def _unit(rows: Floats) -> Floats:
    """Center the rows, and scale each to length 1; a row of zeros stays."""
    rows = rows - rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.float32(1e-30)))


def _similarity(a: Floats, b: Floats) -> Floats:
    """Return max(cosine, 0)^8 of all pairs of rows."""
    similarity: Floats = a @ b.T
    np.maximum(similarity, 0, out=similarity)
    for _ in range(_DOUBLINGS):
        np.square(similarity, out=similarity)
    return similarity


def of_largest(rows: Floats) -> Floats:
    """Divide each row by its largest value; a row of zeros stays."""
    return np.asarray(rows / np.maximum(rows.max(axis=1, keepdims=True), np.float32(1e-30)))
