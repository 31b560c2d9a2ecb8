"""Similarities of drugs to drugs and of diseases to diseases along metapaths.

A metapath is a sequence of edge types, such as drug - drug_protein - gene/protein -
disease_protein - disease. The metapaths follow from the graph's edge types: one or two steps out
of drugs and out of diseases, to any node type except these two. A missing node type gives fewer
metapaths, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from scipy.sparse import csr_array

from ..graph.adjacency import Floats, adjacency, damped, ones, power, rare_columns, scale, unit_rows
from ..graph.knowledge_graph import DISEASE, DRUG, EdgeType, IntArray, KnowledgeGraph

# Eight steps beat three: the indications of a distant relative are better than none.
_CONTINUE, _WALK_STEPS = 0.7, 8
_WALK_BATCH = 128  # walks at a time

Metapath = tuple[EdgeType, ...]


@dataclass(frozen=True)
class Similarity:
    """A similarity of nodes of one type: left @ right.T, without the diagonal."""

    name: str
    left: csr_array  #: shape (n, K)
    right: csr_array  #: shape (n, K)

    @cached_property
    def right_t(self) -> csr_array:
        """The transpose of the right factor, which every product needs."""
        return csr_array(self.right.T)

    @cached_property
    def diagonal(self) -> Floats:
        """The similarity of each node to itself, to be subtracted; shape (n,)."""
        return np.asarray(self.left.multiply(self.right).sum(axis=1), np.float32)


def metapath_name(metapath: Sequence[EdgeType]) -> str:
    """Return, for instance, "drug - drug_protein - gene/protein - disease_protein - disease"."""
    return metapath[0].src_type + "".join(f" - {k.relation} - {k.dst_type}" for k in metapath)


def reverse_metapath(metapath: Sequence[EdgeType]) -> Metapath:
    """Return the same metapath from its end to its start."""
    return tuple(kind.reverse for kind in reversed(metapath))


def path_counts(graph: KnowledgeGraph, start: str) -> dict[Metapath, csr_array]:
    """Count all paths of one or two steps out of drugs or diseases, damped by degree.

    Returns:
        For each metapath the counts, shape (nodes of `start`, nodes of the end's type).
    """
    counts: dict[Metapath, csr_array] = {}
    for first in steps_from(graph.edge_types, start):
        one = damped(adjacency(graph, first))
        counts[(first,)] = one
        for second in steps_from(graph.edge_types, first.dst_type):
            counts[(first, second)] = csr_array(one @ damped(adjacency(graph, second)))
    return counts


def connecting_metapaths(
    drugs: dict[Metapath, csr_array], diseases: dict[Metapath, csr_array]
) -> list[tuple[str, csr_array, csr_array]]:
    """Join the `path_counts` of drugs and of diseases that meet in one node type.

    Returns:
        For each metapath from drug to disease its name, the drugs' counts transposed, and the
        diseases' counts.
    """
    return [
        (metapath_name((*a, *reverse_metapath(b))), csr_array(left.T), right)
        for a, left in drugs.items()
        for b, right in diseases.items()
        if meet(a, b)
    ]


def similarities(
    graph: KnowledgeGraph, node_type: str, counts: dict[Metapath, csr_array]
) -> list[Similarity]:
    """Return the similarities of drugs or of diseases, one for each metapath back to the type.

    They are the cosines of the type's `path_counts`; and for each relation of the type with itself
    the relation, the cosines of the neighbours, and for diseases three steps along it.
    """
    found = []
    for metapath, count in counts.items():
        rows = unit_rows(count) if len(metapath) == 2 else rare_columns(ones(count))
        name = metapath_name((*metapath, *reverse_metapath(metapath)))
        found.append(Similarity(name, rows, rows))
    for kind in _relations_within(graph, node_type):
        matrix = adjacency(graph, kind)
        identity = csr_array(scipy.sparse.eye_array(matrix.shape[0], dtype=np.float32))
        one, shared = damped(matrix), rare_columns(matrix)
        found.append(Similarity(metapath_name([kind]), one, identity))
        found.append(Similarity(metapath_name([kind] * 2), shared, shared))
        if node_type == DISEASE:
            found.append(Similarity(metapath_name([kind] * 3), csr_array(one @ one), one))
    return found


def random_walks(
    graph: KnowledgeGraph, node_type: str, starts: IntArray
) -> list[tuple[str, Floats]]:
    """Count visits of random walks along each relation of a type with itself.

    Args:
        graph: on the CPU.
        node_type: drug or disease.
        starts: shape (s,), where the walks start.

    Returns:
        For each relation its name and the expected visits, shape (s, nodes of the type). A visit
        after k steps counts 0.7^k. PrimeKG's diseases take 73 MB.
    """
    found = []
    for kind in _relations_within(graph, node_type):
        matrix = adjacency(graph, kind)
        every = np.ones(matrix.shape[1], np.float32)
        # Transposed, since scipy multiplies sparse by dense.
        step = csr_array(scale(matrix, power(matrix.sum(axis=1), -1), every).T)
        visits = np.zeros((len(starts), matrix.shape[0]), np.float32)
        for first in range(0, len(starts), _WALK_BATCH):
            batch = starts[first : first + _WALK_BATCH]
            at = np.zeros((matrix.shape[0], len(batch)), np.float32)
            at[batch, np.arange(len(batch))] = 1
            for _ in range(_WALK_STEPS):
                at = _CONTINUE * (step @ at)
                visits[first : first + _WALK_BATCH] += at.T
        found.append((f"{node_type} - walk along {kind.relation} - {node_type}", visits))
    return found


def _relations_within(graph: KnowledgeGraph, node_type: str) -> list[EdgeType]:
    return [kind for kind in graph.edge_types if kind.src_type == kind.dst_type == node_type]


def steps_from(edge_types: Sequence[EdgeType], start: str) -> list[EdgeType]:
    """Return the edge types out of a node type, except those to drugs and diseases."""
    ends = (DRUG, DISEASE)
    return [k for k in edge_types if k.src_type == start and k.dst_type not in ends]


def meet(a: Metapath, b: Metapath) -> bool:
    """Tell whether metapaths of a drug and of a disease join to one that is counted.

    If the disease's has two steps, the drug's must have the same second step: each joint metapath
    then counts once.
    """
    if a[-1].dst_type != b[-1].dst_type:
        return False
    return len(b) == 1 or (len(a) == 2 and a[1] == b[1])


def word_vectors(names: list[str]) -> csr_array:
    """Return names as sets of words, shape (n, words), scaled by `rare_columns`."""
    return _part_vectors([set(re.findall(r"[a-z]{3,}|\d+", name.lower())) for name in names])


def stem_vectors(names: list[str]) -> csr_array:
    """Return names as sets of first and last letters of words, scaled by `rare_columns`.

    Drugs of a class often share a stem, such as -olol or cef-.
    """
    parts = []
    for name in names:
        words = re.findall(r"[a-z]{4,}", name.lower())
        ends = {word[-n:] + "$" for word in words for n in range(3, 8)}
        parts.append(ends | {"^" + word[:n] for word in words for n in range(3, 8)})
    return _part_vectors(parts)


def _part_vectors(parts: list[set[str]]) -> csr_array:
    vocabulary = {part: i for i, part in enumerate(sorted(set().union(*parts)))}
    columns = [vocabulary[part] for one in parts for part in sorted(one)]
    indptr = np.cumsum([0] + [len(one) for one in parts])
    shape = (len(parts), max(len(vocabulary), 1))
    return rare_columns(
        csr_array((np.ones(len(columns), np.float32), columns, indptr), shape=shape)
    )


def co_indicated_features(similarity: Floats) -> Floats:
    """Summarize the similarity of all drugs to the drugs known for a disease (co-indicated drugs).

    Args:
        similarity: shape (W, k, D), from `MetapathFeatures.co_indicated_similarity`.

    Returns:
        Shape (2 W + 1, D): the sum and the maximum over the k known drugs for each of W
        similarities; in the last row log(1 + k).
    """
    total, maximum = similarity.sum(axis=1), similarity.max(axis=1, initial=0)
    return _sums_and_maxima(total, maximum, similarity.shape[1])


def co_indicated_features_without(similarity: Floats, positives: IntArray) -> Floats:
    """Compute `co_indicated_features` without each of P known drugs in turn.

    A training example must not see the known drug that is its positive.

    Args:
        similarity: shape (W, k, D).
        positives: shape (P,), indices into the k known drugs.

    Returns:
        Shape (P, 2 W + 1, D).
    """
    removed = np.moveaxis(similarity[:, positives], 1, 0)
    best, at = similarity.max(axis=1), np.expand_dims(similarity.argmax(axis=1), 1)
    others = similarity.copy()
    np.put_along_axis(others, at, 0, axis=1)
    second_best = others.max(axis=1, initial=0)
    maximum = np.where(at[:, 0] == positives[:, None, None], second_best, best)
    # Where no other drug is similar, the difference would be nothing but rounding.
    total = np.where(maximum > 0, similarity.sum(axis=1) - removed, 0)
    return _sums_and_maxima(total, maximum, similarity.shape[1] - 1)


def _sums_and_maxima(total: Floats, maximum: Floats, count: int) -> Floats:
    *batch, num_similarities, num_drugs = total.shape
    out = np.zeros((*batch, 2 * num_similarities + 1, num_drugs), np.float32)
    out[..., 0:-1:2, :] = total
    out[..., 1:-1:2, :] = maximum
    out[..., -1, :] = np.log1p(count)
    return out
