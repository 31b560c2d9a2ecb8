"""The facts of a graph about one node, as a report lists them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph.adjacency import neighbors_of
from ...graph.knowledge_graph import IntArray, KnowledgeGraph
from ...ranking.evidence.sentences import phrase, spoken
from .links import links_of

Node = dict[str, Any]  #: name, type, links


def describe(graph: KnowledgeGraph, node: int) -> Node:
    """Return the name, the type and the links of a node."""
    row = graph.nodes.row(node, named=True)
    return {"name": row["node_name"], "type": row["node_type"], "links": links_of(row)}


def node_numbers(graph: KnowledgeGraph) -> dict[int, int]:
    """Return the number of the node with each node_index."""
    return {index: number for number, index in enumerate(graph.nodes["node_index"].to_list())}


def groups_of(graph: KnowledgeGraph, node: int, *, without: str = "") -> list[dict[str, Any]]:
    """Return the neighbors of a node, by relation.

    Args:
        graph: on the CPU.
        node: node number.
        without: a node type whose nodes are left out.

    Returns:
        A record for each edge type of the node: relation, type, phrase ("is linked to"), count, and
        nodes, sorted by name.
    """
    groups = []
    for kind, neighbors in neighbors_of(graph, node).items():
        if kind.dst_type != without:
            groups.append(
                {
                    "relation": kind.relation,
                    "type": kind.dst_type,
                    "phrase": phrase(spoken(graph.vocabulary, kind)),
                    "count": len(neighbors),
                    "nodes": [describe(graph, i) for i in _by_name(graph, neighbors)],
                }
            )
    return sorted(groups, key=lambda group: (group["type"], group["relation"]))


def treated_by(graph: KnowledgeGraph, drug: int) -> list[str]:
    """Return the names of the diseases that a drug treats in a graph."""
    return _names(graph, drug, graph.vocabulary.disease_type, graph.vocabulary.treats)


def _names(graph: KnowledgeGraph, node: int, type: str, relations: tuple[str, ...]) -> list[str]:
    found = [
        neighbors
        for kind, neighbors in neighbors_of(graph, node).items()
        if kind.dst_type == type and kind.relation in relations
    ]
    nodes = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return [str(graph.nodes["node_name"][i]) for i in _by_name(graph, nodes)]


def _by_name(graph: KnowledgeGraph, nodes: IntArray) -> list[int]:
    names = graph.nodes["node_name"]
    return sorted(nodes.tolist(), key=lambda node: (str(names[node]).casefold(), node))
