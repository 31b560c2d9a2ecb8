"""Give a graph the node types and edge types of another graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...system.errors import InputError
from ..knowledge_graph import KnowledgeGraph


def with_types_of(graph: KnowledgeGraph, other: KnowledgeGraph) -> KnowledgeGraph:
    """Return a graph with all types of another graph; types that it lacks are empty.

    The nodes, the edges and their order stay, because types are sorted in every graph. A model of
    the other graph can then compute with the result, and hides the same treatments.

    Args:
        graph: on the CPU.
        other: on the CPU.

    Raises:
        InputError: the other graph lacks a type.
    """
    for theirs, ours, what in (
        (graph.node_type_names, other.node_type_names, "node type"),
        (graph.edge_types, other.edge_types, "edge type"),
    ):
        if unknown := sorted({*theirs} - {*ours}):
            raise InputError(f"graph must not have the {what} {unknown[0]}: the model lacks it")
    size = dict(zip(graph.node_type_names, np.diff(graph.type_offsets).tolist(), strict=True))
    sizes = [size.get(name, 0) for name in other.node_type_names]
    number = {kind: r for r, kind in enumerate(graph.edge_types)}
    ends, indptr = [0], []
    for kind in other.edge_types:
        r = number.get(kind)
        if r is None:
            indptr.append(np.full(size.get(kind.dst_type, 0) + 1, ends[-1]))
        else:
            indptr.append(graph.pointers_of(r))
        ends.append(ends[-1] + (0 if r is None else int(graph.edge_type_counts[r])))
    arrays = graph.arrays._replace(
        node_type=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        indptr=np.concatenate(indptr),
        edge_type_ptr=np.array(ends),
        type_ptr=np.array([0, *np.cumsum(sizes).tolist()]),
    )
    return replace(
        graph,
        arrays=arrays,
        node_type_names=other.node_type_names,
        edge_types=other.edge_types,
        vocabulary=other.vocabulary,
    )
