"""Predict the memory that the fit of the drug ranker needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..graph.knowledge_graph import EdgeType, KnowledgeGraph, node_range_of
from .drug_ranker import NUM_TESTED
from .drug_similarity import Metapath, meet, steps_from
from .listwise_examples import (
    CHUNK,
    MAX_EXAMPLES,
    MAX_KNOWN,
    MOST_WORKERS,
    NUM_EASY,
    NUM_HARD,
    NUM_HARMFUL,
)
from .metapath_features import MAX_SIMILAR

# Bytes per entry of a matrix of path counts: 4 for a value, 8 for a column number. Counts from
# drugs are kept in three matrices. Counts from diseases are kept once, with the values of a second
# matrix and the columns of the treated diseases.
_OF_DRUGS, _OF_DISEASES, _WITHIN_DISEASES = 36, 20, 14
# The memory of base features, in diseases: each thread has a chunk, and half of it in copies.
_CHUNKS = MOST_WORKERS * (CHUNK + CHUNK // 2)
_Counts = npt.NDArray[np.float64]


def rank_fit_bytes(graph: KnowledgeGraph, dim: int = 0) -> int:
    """Predict the bytes that the fit needs in addition to the graph, from node degrees alone.

    With T treated diseases, K known pairs, D drugs, S diseases, B base features, G features of
    popularity, W similarities of drugs, C candidates per example and N = D + S, these parts last
    for the whole fit, in bytes:

    - path counts: 36 for each pair of a drug and the end of a metapath, 20 for each such pair of a
      disease, 14 for each pair of diseases that two edges join. For two edges, the number of pairs
      is bounded by the numbers of paths and of ends, for each drug or disease
    - similar treated diseases: 16 T min(T, 256); drugs that diseases share: 12 for each such pair

    The largest of these moments comes on top:

    - the training: 2 C (T (B + G + 4) + K W) for the examples, and one batch of features: 4 * 48 B
      D for the base features of 48 diseases, 8 W min(D, 64) D for the similarities of the known
      drugs of a few diseases, in two threads
    - the scores of min(T, 512) diseases on which the MLPs are tested: 16 D for each, a batch of
      features, and 12 N dim for the embeddings with copies
    - the fit of the curves: 56 D for each of these diseases, the embeddings, and 4096 T + 14336 D +
      4 (T + U) D for similarities, where U is the number of drugs that treat a disease

    Args:
        graph: on the CPU.
        dim: number of values of an embedding; 0 without embeddings.
    """
    drug, disease = graph.vocabulary.drug_type, graph.vocabulary.disease_type
    treats = {EdgeType(drug, relation, disease) for relation in graph.vocabulary.treats}
    known = [kind for kind in graph.edge_types if kind in treats]
    if not known:
        return 0
    num_pairs = int(sum(_degrees(graph, k).sum() for k in known))
    num_drugs, num_diseases = _size(graph, drug), _size(graph, disease)
    treated = int(np.count_nonzero(sum(_degrees(graph, k.reverse) for k in known)))
    drugs, diseases = (_path_entries(graph, kind) for kind in (drug, disease))
    matrices = _OF_DRUGS * sum(drugs.values()) + _OF_DISEASES * sum(diseases.values())
    within = [k for k in graph.edge_types if k.src_type == k.dst_type == disease]
    matrices += _WITHIN_DISEASES * sum(_two_steps(graph, kind, kind) for kind in within)
    num_base, num_popular, similarities = feature_numbers(graph)
    fraction = min(1.0, MAX_EXAMPLES / max(treated, 1))
    harmful = any(k.relation in graph.vocabulary.contraindicates for k in graph.edge_types)
    taken = num_pairs / max(treated, 1) + harmful * NUM_HARMFUL
    candidates = min(num_drugs, NUM_HARD + NUM_EASY + taken)
    of_pairs = treated * (num_base + num_popular + 4) + num_pairs * similarities
    examples = 2 * candidates * fraction * of_pairs
    batch = 4 * _CHUNKS * num_base * num_drugs
    batch += 4 * MOST_WORKERS * similarities * min(num_drugs, MAX_KNOWN) * num_drugs
    tested = 4 * min(treated, NUM_TESTED) * num_drugs
    shared = min(sum(float((_degrees(graph, k) ** 2).sum()) for k in known), float(treated) ** 2)
    matrices += 16 * treated * min(treated, MAX_SIMILAR) + 12 * shared
    vectors = near = 0.0
    if dim:
        vectors = 12.0 * dim * (num_drugs + num_diseases)
        treating = int(np.count_nonzero(sum(_degrees(graph, k) for k in known)))
        near = 16 * 256 * treated + 14 * 1024 * num_drugs + 4 * (treated + treating) * num_drugs
    moments = examples + batch, 4 * tested + batch + vectors, 14 * tested + vectors + near
    return int(matrices + max(moments))


def feature_numbers(graph: KnowledgeGraph) -> tuple[int, int, int]:
    """Return the numbers of features that `MetapathFeatures` has on a graph.

    Returns:
        Base features; features of popularity; similarities of drugs to the known drugs.
    """
    drug, disease = graph.vocabulary.drug_type, graph.vocabulary.disease_type
    drugs, diseases = (_metapaths(graph, kind) for kind in (drug, disease))
    ends = [(k.src_type, k.dst_type) for k in graph.edge_types]
    connecting = sum(meet(a, b) for a in drugs for b in diseases)
    of_drugs = len(drugs) + 1 + 2 * ends.count((drug, drug))
    of_diseases = len(diseases) + 1 + 4 * ends.count((disease, disease))  # with random walks
    others = {k.relation for k in graph.edge_types if (k.src_type, k.dst_type) == (drug, disease)}
    num_others = len(others.difference(graph.vocabulary.treats))
    degrees, popular = (
        sum(a == one and b != other for a, b in ends)
        for one, other in ((disease, drug), (drug, disease))
    )
    base = connecting + 3 * of_diseases + 2 * of_drugs + num_others + degrees + 2
    return base, popular + 1, of_drugs + 5


def _metapaths(graph: KnowledgeGraph, start: str) -> list[Metapath]:
    """Return the metapaths of `path_counts`."""
    firsts = steps_from(graph, start)
    return [
        *((first,) for first in firsts),
        *((first, second) for first in firsts for second in steps_from(graph, first.dst_type)),
    ]


def _path_entries(graph: KnowledgeGraph, start: str) -> dict[Metapath, float]:
    """Return an upper bound of the number of nonzeros of each matrix in `path_counts`."""
    entries: dict[Metapath, float] = {}
    for first in steps_from(graph, start):
        degrees = _degrees(graph, first.reverse)
        entries[(first,)] = float(degrees.sum())
        for second in steps_from(graph, first.dst_type):
            entries[first, second] = _two_steps(graph, first, second)
    return entries


def _two_steps(graph: KnowledgeGraph, first: EdgeType, second: EdgeType) -> float:
    """Return an upper bound of the number of pairs of nodes that a path of two edges joins.

    A node reaches at most as many ends as it has paths, and as there are nodes with such an edge.
    """
    paths = _neighbor_sum(graph, first.reverse, _degrees(graph, second))
    ends = np.count_nonzero(_degrees(graph, second.reverse))
    return float(np.minimum(paths, ends).sum())


def _degrees(graph: KnowledgeGraph, kind: EdgeType) -> _Counts:
    """Return the number of edges of one type that start at each source node."""
    indptr = graph.indptr_of(graph.edge_types.index(kind.reverse))
    return indptr.diff().numpy().astype(np.float64)


def _neighbor_sum(graph: KnowledgeGraph, kind: EdgeType, values: _Counts) -> _Counts:
    """Return for each target node the sum of the values of its source nodes."""
    r = graph.edge_types.index(kind)
    first, _ = graph.node_range(graph.endpoint_types[r][0])
    total = np.concatenate([[0.0], np.cumsum(values[graph.sources_of(r) - first])])
    at = graph.pointers_of(r)
    return np.asarray(np.diff(total[at - at[0]]))


def _size(graph: KnowledgeGraph, node_type: str) -> int:
    first, stop = node_range_of(graph, node_type)
    return stop - first
