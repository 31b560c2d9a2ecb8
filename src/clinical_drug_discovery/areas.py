"""Areas of related diseases, along the edges between diseases."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from clinical_drug_discovery.graph.knowledge_graph import (
    IntArray,
    KnowledgeGraph,
    edges_of,
    span_of,
)
from clinical_drug_discovery.pairs import DISEASE
from clinical_drug_discovery.system.errors import InputError


def relatives(graph: KnowledgeGraph) -> scipy.sparse.csr_array:
    """Which diseases are directly related, under any relation between two diseases.

    Args:
        graph: on the CPU.

    Returns:
        shape (n, n) for the n diseases in graph order, float32: symmetric, ones, nothing on the
        diagonal.
    """
    first, stop = span_of(graph, DISEASE)
    kinds = [r for r, kind in enumerate(graph.edge_types) if kind[::2] == (DISEASE, DISEASE)]
    src, dst = edges_of(graph, kinds)
    related = scipy.sparse.csr_array(
        (np.ones(len(src), np.float32), (dst - first, src - first)),
        shape=(stop - first, stop - first),
    )
    related.data[:] = 1  # two diseases may be related in two ways
    return related


def disease_areas(
    graph: KnowledgeGraph, middles: IntArray, num_areas: int, max_hops: int, max_diseases: int
) -> list[IntArray]:
    """Disjoint areas around diseases: each with its relatives, the nearest first.

    Args:
        graph: on the CPU.
        middles: node numbers; taken in this order, those within an earlier area passed over.
        num_areas: how many are wanted.
        max_hops: from the middle to the rim.
        max_diseases: of an area; of equally near ones those numbered lower are taken.

    Returns:
        Node numbers, the middle first; fewer than `num_areas` areas where there are no more.

    Raises:
        InputError: no two diseases are related.
    """
    first, _ = span_of(graph, DISEASE)
    related = relatives(graph)
    if not related.nnz:
        raise InputError("the graph has no edges between diseases, so no areas can be held out")
    taken = np.zeros(related.shape[0], bool)
    areas: list[IntArray] = []
    for middle in middles.tolist():
        if len(areas) == num_areas:
            break
        if taken[middle - first]:
            continue
        members = frontier = np.array([middle - first])
        seen = taken.copy()
        seen[frontier] = True
        for _ in range(max_hops):
            near = np.unique(related[frontier].indices)
            frontier = near[~seen[near]][: max_diseases - len(members)]
            if not len(frontier):
                break
            seen[frontier] = True
            members = np.concatenate([members, frontier])
        taken[members] = True
        areas.append(members + first)
    return areas
