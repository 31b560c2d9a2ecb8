"""Untrained baselines: scores of drugs from the graph alone.

A baseline maps a graph on the CPU and node numbers of diseases, shape (n,), to scores of all drugs
in graph order, shape (n, number of drugs).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array, hstack

from ..graph.adjacency import Floats, adjacency_between
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..ranking.treatments import treatment_matrix

Baseline = Callable[[KnowledgeGraph, IntArray], Floats]
_MAX_HOPS, _DAMPING = 3, 0.5  # see `relatives_scores`
_WALK_STEPS, _WALK_DAMPING = 8, 0.7  # see `walk_scores`
_WALK_CHUNK = 128  # most diseases at a time; their walks take 25 MB for 24,000 diseases
_WALK_BYTES = 32 << 20  # of the walks of more diseases: fewer are taken at a time
_PHENOTYPE = "effect/phenotype"  # node type that `shared_scores` compares, as well as genes
_ABSENT = ("disease_phenotype_negative",)  # relations which state that a phenotype is absent


def popularity_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of diseases that it treats; all rows of scores are equal."""
    return _repeat(treatment_matrix(graph).sum(axis=0), len(diseases))


def degree_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of its edges of all types; all rows of scores are equal."""
    first, stop = node_range_of(graph, graph.vocabulary.drug_type)
    return _repeat(graph.degree[first:stop].numpy(), len(diseases))


def relatives_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of related diseases that it treats.

    score = sum over h = 1, 2, 3 of 0.5^h * (number of diseases at distance h that the drug treats).
    The distance counts edges between diseases. A disease without such edges has scores of 0.
    """
    disease = graph.vocabulary.disease_type
    related, treats = adjacency_between(graph, disease, disease), treatment_matrix(graph)
    n, start = len(diseases), diseases - node_range_of(graph, disease)[0]
    entries = (np.ones(n, np.float32), start, np.arange(n + 1))
    seen = frontier = csr_array(entries, shape=(n, related.shape[0]))
    scores = np.zeros((n, treats.shape[1]), np.float32)
    for hop in range(1, _MAX_HOPS + 1):
        frontier = frontier @ related
        frontier.data[:] = 1  # a disease counts once, however many paths reach it
        frontier = frontier - frontier.multiply(seen)
        frontier.eliminate_zeros()
        seen = seen + frontier
        scores += (frontier @ treats).toarray() * np.float32(_DAMPING**hop)
    return scores


def shared_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the similarity of a disease to the other diseases that the drug treats.

    score = sum of cosine(disease, other) over all other diseases that the drug treats. The vector
    of a disease has one entry for each trait (gene or phenotype) of the disease: ln(number of
    diseases with any trait / number of diseases with this trait). A disease without traits has
    scores of 0.
    """
    treats, traits = treatment_matrix(graph), _trait_vectors(graph)
    treated = np.flatnonzero(np.diff(treats.indptr))
    rows = diseases - node_range_of(graph, graph.vocabulary.disease_type)[0]
    cosine = (traits[rows] @ traits[treated].T).tocoo()
    i, j = cosine.coords
    cosine.data[rows[i] == treated[j]] = 0  # the disease itself
    return np.asarray((cosine.tocsr() @ treats[treated]).toarray(), np.float32)


def walk_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by walks from the diseases that it treats to the asked disease.

    score = sum over the other diseases that the drug treats of the sum over k = 1 ... 8 of
    0.7^k * P_k, where P_k is the probability that a random walk of k steps from the other disease
    ends at the asked one. Each step goes along an edge between two diseases, of any relation. A
    disease without such edges has scores of 0.
    """
    treats = treatment_matrix(graph)
    treated = np.flatnonzero(np.diff(treats.indptr))
    rows = diseases - node_range_of(graph, graph.vocabulary.disease_type)[0]
    return scores_by_walks(walk_step(graph), treats[treated], treated, rows)


def walk_step(graph: KnowledgeGraph) -> csr_array:
    """Return the damped probabilities of one step between two diseases; see `walk_scores`."""
    disease = graph.vocabulary.disease_type
    related = adjacency_between(graph, disease, disease)
    # In float64, so that equal scores stay equal, in whatever order their parts are added.
    return csr_array(diags_array(_WALK_DAMPING / np.maximum(np.diff(related.indptr), 1)) @ related)


def scores_by_walks(
    step: csr_array, treats: csr_array, treated: IntArray, rows: IntArray
) -> Floats:
    """Return the scores of D drugs for n of S diseases, shape (n, D); see `walk_scores`.

    Args:
        step: shape (S, S), of `walk_step`.
        treats: shape (T, D), 1 where the drug treats the disease.
        treated: shape (T,), the diseases of `treats`, numbered within their type.
        rows: shape (n,), the asked diseases, numbered within their type.
    """
    helped_by = csr_array(treats.T, dtype=np.float64)
    scores = np.zeros((len(rows), treats.shape[1]), np.float32)
    at_a_time = max(1, min(_WALK_CHUNK, _WALK_BYTES // (8 * step.shape[0])))
    for start in range(0, len(rows), at_a_time):
        chunk = rows[start : start + at_a_time]
        walk = np.zeros((step.shape[0], len(chunk)))
        walk[chunk, np.arange(len(chunk))] = 1
        reached = np.zeros((len(treated), len(chunk)))
        for _ in range(_WALK_STEPS):
            walk = step @ walk
            reached += walk[treated]
        reached[treated[:, None] == chunk] = 0  # the disease itself
        scores[start : start + len(chunk)] = (helped_by @ reached).T
    return scores


def break_ties(scores: Floats, by: Floats) -> Floats:
    """Order drugs by a first score, and drugs with equal first scores by a second score.

    Most drugs treat no related disease and have a score of 0. On PrimeKG, popularity as the second
    score raised the recall@50 of `relatives` by 0.02 and the recall@50 of `shared` by 0.14.

    Args:
        scores: shape (n, M), the first score.
        by: shape (n, M), the second score.

    Returns:
        shape (n, M), position of each drug, 0 for the worst; equal only if both scores are equal.
    """
    positions = np.empty(scores.shape, np.float32)
    for first, second, position in zip(scores, by, positions, strict=True):
        order = np.lexsort((second, first))
        a, b = first[order], second[order]
        position[order] = np.cumsum(np.r_[False, (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    return positions


def _with_popularity(scores: Baseline) -> Baseline:
    return lambda graph, diseases: break_ties(
        scores(graph, diseases), popularity_scores(graph, diseases)
    )


WALK = "walk"  #: the baseline with which all rankers are compared
BASELINES: dict[str, Baseline] = {
    "popularity": popularity_scores,
    "degree": degree_scores,
    "relatives": relatives_scores,
    "relatives+popularity": _with_popularity(relatives_scores),
    "shared": shared_scores,
    "shared+popularity": _with_popularity(shared_scores),
    WALK: walk_scores,
    "walk+popularity": _with_popularity(walk_scores),
}


def _trait_vectors(graph: KnowledgeGraph) -> csr_array:
    """Return the vectors of `shared_scores`, one row per disease, scaled to length 1 (or 0)."""
    relations = set(graph.relations) - set(_ABSENT)
    disease = graph.vocabulary.disease_type
    first, stop = node_range_of(graph, disease)
    parts = [csr_array((stop - first, 0), dtype=np.float32)]
    types = (_PHENOTYPE, graph.vocabulary.gene_type)
    kinds = [kind for kind in types if kind in graph.node_type_names]
    parts += [adjacency_between(graph, disease, kind, relations) for kind in kinds]
    traits = csr_array(hstack(parts, format="csr"))
    num_with_any = max(np.count_nonzero(np.diff(traits.indptr)), 1)
    num_with = np.bincount(traits.indices, minlength=1)
    weight = np.log(num_with_any / np.maximum(num_with, 1)).astype(np.float32)
    traits.data *= weight[traits.indices]
    length = np.sqrt(traits.multiply(traits).sum(axis=1))
    traits.data /= np.repeat(np.where(length > 0, length, 1), np.diff(traits.indptr))
    return traits


def _repeat(by_drug: npt.NDArray[np.number], num_rows: int) -> Floats:
    return np.tile(by_drug.astype(np.float32), (num_rows, 1))
