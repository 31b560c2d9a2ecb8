"""The relations that a graph states between the two nodes of a pair, such as a contraindication."""

from __future__ import annotations

import numpy as np

from ...graph.knowledge_graph import IntArray, KnowledgeGraph


def stated_relations(
    graph: KnowledgeGraph, one: IntArray, other: IntArray
) -> list[tuple[str, ...]]:
    """Return the relations between the two nodes of each of K pairs.

    Args:
        graph: on the CPU.
        one: shape (K,), node numbers.
        other: shape (K,), node numbers.

    Returns:
        K tuples of relation names, each sorted. A tuple is empty if no edge joins the two nodes.
    """
    node_type = graph.arrays.node_type
    types = np.stack([node_type[one], node_type[other]])
    stated = np.zeros((len(one), len(graph.relations)), bool)
    for r, ends in enumerate(graph.endpoint_types):
        pairs = np.flatnonzero((types == np.array(ends)[:, None]).all(axis=0))
        if len(pairs):
            kinds = np.full(len(pairs), r)
            relation = graph.relations.index(graph.edge_types[r].relation)
            stated[pairs, relation] |= graph.has_edges(one[pairs], kinds, other[pairs])
    patterns, number = np.unique(stated, axis=0, return_inverse=True)  # few: texts are shared
    texts = [tuple(np.array(graph.relations)[row].tolist()) for row in patterns]
    return [texts[i] for i in number.ravel().tolist()]
