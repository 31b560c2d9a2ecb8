"""The probe of embeddings: how much do neighbors in the embeddings know of treatments?

The probe trains nothing. Embeddings are centered per node type. The similarity of two nodes is
max(cosine, 0)^8, so that near neighbors count most. Three parts score the drugs for a disease:

- votes: each other disease that has known drugs votes for them, by its similarity to the disease.
- near own: the sum of a drug's similarities to the known drugs of the disease.
- near votes: the sum of a drug's similarities to all drugs, each times the votes for that drug.

Each part is divided by its largest value. score = votes + near own + 0.3 near votes for diseases
with known drugs; score = votes for other diseases. Power, form and factor are fixed: they were not
chosen on held-out pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..ranking.treatments import Pairs, pairs_of
from .baselines import treatment_matrix, walk_scores

_DOUBLINGS = 3  # the cosine is squared so often: its power is 8
_NEAR_VOTES = 0.3  # weight of the part "near votes"
_TOP = 50
MAX_PAIRS = 2000  #: known pairs that `probe_embeddings` asks for; a few seconds on PrimeKG
_DISEASES, _DRUGS = 256, 1024  # scored at a time: 40 MB on PrimeKG
_TOGETHER = 32  # diseases whose known drugs are compared with all drugs at a time

Probe = dict[str, float | int]  #: result of `probe_embeddings`


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
                votes + _of_largest(near_own) + _NEAR_VOTES * near_votes
            )
        return scores

    def parts(self, diseases: IntArray) -> tuple[Floats, Floats, Floats]:
        """Return votes, near own and near votes for n diseases, each of shape (n, D).

        Votes and near votes are divided by the largest value of their row, near own is not. Near
        own and near votes are 0 for diseases without known drugs.
        """
        similarity = _similarity(self.diseases[diseases], self.diseases[self.treated])
        similarity[diseases[:, None] == self.treated] = 0  # the disease itself
        votes = _of_largest((self.known[self.treated].T @ similarity.T).T)
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
        return votes, near_own, _of_largest(near_votes)

    def nearness(self, drugs: IntArray) -> Floats:
        """Return the similarity of m drugs to all drugs, shape (m, D), 0 for a drug and itself."""
        nearness = _similarity(self.drugs[drugs], self.drugs)
        nearness[np.arange(len(drugs)), drugs] = 0
        return nearness


def _scores_without(
    drugs: IntArray, known: IntArray, nearness: Floats, votes: Floats, near_votes: Floats
) -> Floats:
    """Return the scores of all drugs as if one known drug of a disease were unknown.

    The votes stay, because the disease itself does not vote.

    Args:
        drugs: shape (m,), known drugs of the disease; each is removed alone.
        known: shape (k,), all known drugs of the disease.
        nearness: shape (k, D), see `Neighbors.nearness`.
        votes: shape (D,), see `Neighbors.parts`.
        near_votes: shape (D,), see `Neighbors.parts`.

    Returns:
        shape (m, D), one row per removed drug.
    """
    if len(known) == 1:  # the form for diseases without known drugs
        return np.tile(votes, (len(drugs), 1))
    left = (drugs[:, None] != known).astype(np.float32)
    return votes + _of_largest(left @ nearness) + np.float32(_NEAR_VOTES) * near_votes


def neighbor_scores(graph: KnowledgeGraph, embeddings: Tensor, diseases: IntArray) -> Floats:
    """Score the drugs for diseases by neighbors in the embeddings; see the top of this file.

    Args:
        graph: the training graph, on the CPU.
        embeddings: shape (N, dim), of all nodes, on the CPU.
        diseases: shape (n,), node numbers.
    """
    first, _ = node_range_of(graph, graph.vocabulary.disease_type)
    return Neighbors.of(graph, embeddings).scores(diseases - first)


def probe_embeddings(graph: KnowledgeGraph, embeddings: Tensor, *, seed: int) -> Probe | None:
    """Ask for known pairs one by one, as if each were unknown, by neighbors in the embeddings.

    The embeddings were trained with these pairs, so the figures are higher than for held-out
    pairs. They serve to compare runs on one graph.

    Args:
        graph: on the CPU.
        embeddings: shape (N, dim), of all nodes, on the CPU.
        seed: seed of the sample of pairs, if the graph has more than `MAX_PAIRS`.

    Returns:
        `mrr` and `recall@50` of the drugs of the pairs, each ranked among all drugs that are not
        known for the disease; `num_pairs`; and the same figures of the baseline walk, `walk_mrr`
        and `walk_recall@50`. None if the graph has fewer than two diseases with known drugs.
    """
    pairs = pairs_of(graph)
    if len(pairs.diseases) < 2:
        return None
    if len(pairs) > MAX_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(pairs), MAX_PAIRS, replace=False)
        pairs = pairs.select(np.sort(drawn))
    neighbors = Neighbors.of(graph, embeddings)
    ranks = _ranks(graph, neighbors, pairs)
    figures: Probe = {}
    for prefix, column in zip(("", "walk_"), ranks.T, strict=True):
        figures[f"{prefix}mrr"] = float((1 / column).mean())
        figures[f"{prefix}recall@{_TOP}"] = float((column <= _TOP).mean())
    return {**figures, "num_pairs": len(pairs)}


def _ranks(graph: KnowledgeGraph, neighbors: Neighbors, pairs: Pairs) -> Floats:
    """Return the rank of the drug of each pair, by neighbors and by the walk, shape (K, 2)."""
    words = graph.vocabulary
    first_drug, first = (node_range_of(graph, t)[0] for t in (words.drug_type, words.disease_type))
    asked = pairs.diseases
    ranks: list[Floats] = []
    for start in range(0, len(asked), _DISEASES):
        chunk = asked[start : start + _DISEASES]
        votes, _, near_votes = neighbors.parts(chunk - first)
        walks = walk_scores(graph, chunk)
        for i, (disease, known, nearness) in enumerate(_with_nearness(neighbors, chunk - first)):
            drugs = pairs.drug[pairs.disease == disease + first] - first_drug
            scores = _scores_without(drugs, known, nearness, votes[i], near_votes[i])
            both = scores, np.tile(walks[i], (len(drugs), 1))
            ranks.append(np.stack([_rank_among(s, drugs, known) for s in both], axis=1))
    return np.concatenate(ranks)


def _with_nearness(
    neighbors: Neighbors, diseases: IntArray
) -> Iterator[tuple[int, IntArray, Floats]]:
    """Yield each disease, its known drugs, and their nearness to all drugs.

    The nearness is computed for some diseases together, which is several times as fast.
    """
    for start in range(0, len(diseases), _TOGETHER):
        some = diseases[start : start + _TOGETHER]
        used = np.unique(neighbors.known[some].indices)
        nearness = neighbors.nearness(used)
        for disease in some.tolist():
            at = slice(*neighbors.known.indptr[disease : disease + 2])
            known = neighbors.known.indices[at]
            yield disease, known, nearness[np.searchsorted(used, known)]


def _rank_among(scores: Floats, drugs: IntArray, known: IntArray) -> Floats:
    """Return the rank of drugs[i] in row i among the unknown drugs; ties share the mean rank."""
    target = scores[np.arange(len(drugs)), drugs][:, None]
    rivals = np.delete(scores, known, axis=1)
    above, equal = (rivals > target).sum(axis=1), (rivals == target).sum(axis=1)
    return np.asarray(1 + above + equal / 2, np.float32)


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


def _of_largest(rows: Floats) -> Floats:
    """Divide each row by its largest value; a row of zeros stays."""
    return np.asarray(rows / np.maximum(rows.max(axis=1, keepdims=True), np.float32(1e-30)))
