"""Rankers that learn nothing: what a model has to beat.

Each gives every drug a score for each of some diseases, shape (n, number of drugs), float32, drugs
in graph order; diseases are node numbers, in any order. A disease's own drugs in the training graph
count towards a drug's popularity; they are known, and nobody is asked to rank them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse

from clinical_drug_discovery.evaluation.split import relatives
from clinical_drug_discovery.graph.adjacency import adjacency_between
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.ranking.treatments import TREATS

Scores = npt.NDArray[np.float32]
Ranker = Callable[[KnowledgeGraph, IntArray], Scores]
_HOPS, _DAMPING = 3, 0.5
_TRAITS = ("effect/phenotype", "gene/protein")  # node types; what diseases may have in common
_ABSENT = ("disease_phenotype_negative",)  # relations that say: has it not


def popularity_scores(graph: KnowledgeGraph, diseases: IntArray) -> Scores:
    """The number of diseases that a drug helps: the same list for every disease.

    Args:
        graph: for training, on the CPU.
        diseases: shape (n,), node numbers.
    """
    return _repeat(adjacency_between(graph, DISEASE, DRUG, TREATS).sum(axis=0), len(diseases))


def degree_scores(graph: KnowledgeGraph, diseases: IntArray) -> Scores:
    """The number of all edges of a drug: how much was ever written about it.

    Args:
        graph: for training, on the CPU.
        diseases: shape (n,), node numbers.
    """
    first, stop = node_range_of(graph, DRUG)
    return _repeat(graph.degree[first:stop].numpy(), len(diseases))


def relatives_scores(graph: KnowledgeGraph, diseases: IntArray) -> Scores:
    """What helps a disease's relatives, along edges between diseases.

    The sum over h = 1, 2, 3 of 0.5^h times the number of diseases that the drug helps, among those
    whose shortest path to the disease has h edges. All zero for a disease without relatives.

    Args:
        graph: for training, on the CPU.
        diseases: shape (n,), node numbers.
    """
    related, treats = relatives(graph), adjacency_between(graph, DISEASE, DRUG, TREATS)
    seen = _one_hot(diseases - node_range_of(graph, DISEASE)[0], related.shape[0])
    frontier = seen
    scores = np.zeros((len(diseases), treats.shape[1]), np.float32)
    for hop in range(1, _HOPS + 1):
        frontier = frontier @ related
        frontier.data[:] = 1  # reached, by however many paths
        frontier = frontier - frontier.multiply(seen)
        frontier.eliminate_zeros()
        seen = seen + frontier
        scores += (frontier @ treats).toarray() * np.float32(_DAMPING**hop)
    return scores


def shared_scores(graph: KnowledgeGraph, diseases: IntArray) -> Scores:
    """What helps diseases with the same genes and phenotypes.

    The sum, over all other diseases that the drug helps, of the cosine between the two diseases'
    sets of genes and phenotypes, in which each counts by ln(number of diseases with any / number
    of diseases with it). All zero for a disease with none.

    Args:
        graph: for training, on the CPU.
        diseases: shape (n,), node numbers.
    """
    treats = adjacency_between(graph, DISEASE, DRUG, TREATS)
    has = _traits(graph)
    treated = np.flatnonzero(np.diff(treats.indptr))
    rows = diseases - node_range_of(graph, DISEASE)[0]
    cosine = (has[rows] @ has[treated].T).tocoo()
    i, j = cosine.coords
    cosine.data[rows[i] == treated[j]] = 0  # itself
    return np.asarray((cosine.tocsr() @ treats[treated]).toarray(), np.float32)


def break_ties(scores: Scores, by: Scores) -> Scores:
    """The same order, and where it leaves a tie that of other scores.

    Most drugs help no relative of a disease at all, and tie at 0: of those the popular ones come
    first. On a real graph that was worth 0.02 of recall@50 to relatives, and 0.14 to shared.

    Args:
        scores: shape (n, M).
        by: shape (n, M).

    Returns:
        shape (n, M): places from the worst, whole numbers; equal only where both scores are.
    """
    places = np.empty(scores.shape, np.float32)
    for first, second, place in zip(scores, by, places, strict=True):
        order = np.lexsort((second, first))
        a, b = first[order], second[order]
        place[order] = np.cumsum(np.r_[False, (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    return places


def _with_popularity(scores_of: Ranker) -> Ranker:
    return lambda graph, diseases: break_ties(
        scores_of(graph, diseases), popularity_scores(graph, diseases)
    )


BASELINES: dict[str, Ranker] = {
    "popularity": popularity_scores,
    "degree": degree_scores,
    "relatives": relatives_scores,
    "relatives+popularity": _with_popularity(relatives_scores),
    "shared": shared_scores,
    "shared+popularity": _with_popularity(shared_scores),
}


def _traits(graph: KnowledgeGraph) -> scipy.sparse.csr_array:
    """Return diseases by their genes and phenotypes, rows of length 1."""
    present = set(graph.relations) - set(_ABSENT)
    first, stop = node_range_of(graph, DISEASE)
    parts = [scipy.sparse.csr_array((stop - first, 0), dtype=np.float32)]
    parts += [
        adjacency_between(graph, DISEASE, trait, present)
        for trait in _TRAITS
        if trait in graph.node_type_names
    ]
    has = scipy.sparse.csr_array(scipy.sparse.hstack(parts, format="csr"))
    num_with_any = max(np.count_nonzero(np.diff(has.indptr)), 1)
    num_with_it = np.bincount(has.indices, minlength=1)
    has.data *= np.log(num_with_any / np.maximum(num_with_it, 1))[has.indices].astype(np.float32)
    length = np.sqrt(has.multiply(has).sum(axis=1))
    has.data /= np.repeat(np.where(length > 0, length, 1), np.diff(has.indptr))
    return has


def _one_hot(columns: IntArray, width: int) -> scipy.sparse.csr_array:
    height = len(columns)
    return scipy.sparse.csr_array(
        (np.ones(height, np.float32), columns, np.arange(height + 1)), shape=(height, width)
    )


def _repeat(of_drug: npt.NDArray[np.number], num_rows: int) -> Scores:
    return np.tile(of_drug.astype(np.float32), (num_rows, 1))
