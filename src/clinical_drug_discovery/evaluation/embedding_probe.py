"""The probe of embeddings: how much do neighbors in the embeddings know of treatments?

The probe trains nothing; `ranking.neighbors` explains the scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..ranking.neighbors import NEAR_VOTES, Neighbors, of_largest
from ..ranking.treatments import Pairs, pairs_of
from .baselines import walk_scores

_TOP = 50
MAX_PAIRS = 2000  #: known pairs that `probe_embeddings` asks for; a few seconds on PrimeKG
_DISEASES = 256  # scored at a time: 40 MB on PrimeKG
_TOGETHER = 32  # diseases whose known drugs are compared with all drugs at a time

Probe = dict[str, float | int]  #: result of `probe_embeddings`


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
    return votes + of_largest(left @ nearness) + np.float32(NEAR_VOTES) * near_votes


def neighbor_scores(graph: KnowledgeGraph, embeddings: Tensor, diseases: IntArray) -> Floats:
    """Score the drugs for diseases by neighbors in the embeddings; see `ranking.neighbors`.

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
