"""The probe of embeddings: how much do neighbors in the embeddings know of treatments?

The probe trains nothing; `ranking.neighbors` explains the scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..ranking.neighbors import NEAR_VOTES, Neighbors, of_largest
from ..ranking.treatments import Pairs, pairs_of, treatment_matrix
from ..system.log import milestone
from .baselines import scores_by_walks, walk_step

_TOP = 50
MAX_PAIRS = 2000  #: known pairs that `probe_embeddings` asks for; a few seconds on PrimeKG
#: Most drugs and treated diseases that it compares. A synthetic graph of PrimeKG's size has 7,957
#: drugs and 3,883 such diseases.
MAX_DRUGS, MAX_DISEASES = 10_000, 5_000
# Most pairs times edges between diseases, since the walks from each pair's disease go along all of
# these edges: about 20 CPU seconds. A graph of PrimeKG's size has a third of it.
_MOST_STEPS = 400_000_000
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

    All drugs are compared with all treated diseases. So a large graph is probed on a random sample
    of at most `MAX_DRUGS` drugs and `MAX_DISEASES` treated diseases: other drugs and diseases
    neither vote nor are ranked, as if the graph lacked them. The log says so. Fewer pairs are asked
    if the graph has more than 200,000 edges between diseases, along which the walks go.

    Args:
        graph: on the CPU.
        embeddings: shape (N, dim), of all nodes, on the CPU.
        seed: seed of the samples, and of that of pairs, if there are more than `MAX_PAIRS`.

    Returns:
        `mrr` and `recall@50` of the drugs of the pairs, each ranked among all drugs that are not
        known for the disease; the same figures of the baseline walk, `walk_mrr` and
        `walk_recall@50`; `num_pairs`, `num_drugs` and `num_diseases`, the numbers of pairs, drugs
        and treated diseases in the probe; `is_sample`, True if drugs or diseases are a sample. None
        if there are fewer than two treated diseases.
    """
    if len(pairs_of(graph).diseases) < 2:  # the graph may even lack drugs
        return None
    known = treatment_matrix(graph)
    treated = np.flatnonzero(np.diff(known.indptr))
    drugs, diseases = _sampled(known, treated, seed)
    if len(diseases) < 2:
        return None
    is_sample = (len(drugs), len(diseases)) != (known.shape[1], len(treated))
    neighbors = Neighbors.of(graph, embeddings, drugs, diseases)
    disease, drug = neighbors.known.nonzero()
    pairs, step = Pairs(drug, disease), walk_step(graph)
    most = max(1, min(MAX_PAIRS, _MOST_STEPS // max(step.nnz, 1)))
    if len(pairs) > most:
        drawn = np.random.default_rng(seed).choice(len(pairs), most, replace=False)
        pairs = pairs.select(np.sort(drawn))
    if is_sample or most < MAX_PAIRS:
        milestone(
            f"The graph is large, so the probe asks for {len(pairs):,} known treatments among "
            f"{len(drugs):,} of {known.shape[1]:,} drugs and {len(diseases):,} of "
            f"{len(treated):,} treated diseases"
        )
    ranks = _ranks(neighbors, step, diseases, pairs)
    figures: Probe = {}
    for prefix, column in zip(("", "walk_"), ranks.T, strict=True):
        figures[f"{prefix}mrr"] = float((1 / column).mean())
        figures[f"{prefix}recall@{_TOP}"] = float((column <= _TOP).mean())
    return {
        **figures,
        "num_pairs": len(pairs),
        "num_drugs": len(drugs),
        "num_diseases": len(diseases),
        "is_sample": is_sample,
    }


def _sampled(known: csr_array, treated: IntArray, seed: int) -> tuple[IntArray, IntArray]:
    """Return the drugs and the treated diseases of the probe: all, or a sample if they are many.

    Half of a sample of drugs are drugs that treat a disease of the sample, if there are so many.
    Without this, a graph with many compounds would keep few known pairs.

    Args:
        known: shape (S, D), see `treatment_matrix`.
        treated: the diseases that have known drugs.
        seed: of the sample.

    Returns:
        Drugs and diseases, numbered within their types, ascending.
    """
    rng = np.random.default_rng((seed, 1))
    drugs, diseases = np.arange(known.shape[1]), _drawn(rng, treated, MAX_DISEASES)
    if len(drugs) > MAX_DRUGS:
        used = _drawn(rng, np.unique(known[diseases].indices), MAX_DRUGS // 2)
        others = _drawn(rng, np.setdiff1d(drugs, used), MAX_DRUGS - len(used))
        drugs = np.sort(np.concatenate([used, others]))
        diseases = diseases[np.diff(csr_array(known[diseases][:, drugs]).indptr) > 0]
    return drugs, diseases


def _drawn(rng: np.random.Generator, values: IntArray, most: int) -> IntArray:
    """Return all values, or a random sample of `most` of them, in their order."""
    if len(values) <= most:
        return values
    return values[np.sort(rng.choice(len(values), most, replace=False))]


def _ranks(neighbors: Neighbors, step: csr_array, numbers: IntArray, pairs: Pairs) -> Floats:
    """Return the rank of the drug of each pair, by neighbors and by the walk, shape (K, 2).

    Args:
        neighbors: all their diseases are treated.
        step: see `walk_step`.
        numbers: the number of each disease of `neighbors` within its type.
        pairs: with the numbers of `neighbors`.
    """
    asked = pairs.diseases
    ranks: list[Floats] = []
    for start in range(0, len(asked), _DISEASES):
        chunk = asked[start : start + _DISEASES]
        votes, _, near_votes = neighbors.parts(chunk)
        walks = scores_by_walks(step, neighbors.known, numbers, numbers[chunk])
        for i, (disease, known, nearness) in enumerate(_with_nearness(neighbors, chunk)):
            drugs = pairs.drug[pairs.disease == disease]
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
