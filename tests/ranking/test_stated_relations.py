"""The stated relations of pairs are those of the facts, whatever the types of the nodes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from graphs import Node, graph_of, random_facts

from clinical_drug_discovery.ranking.evidence.stated_relations import stated_relations


def test_stated_relations_are_those_of_the_facts(rng: np.random.Generator) -> None:
    facts = random_facts(rng, 300)
    graph = graph_of(facts)
    expected: defaultdict[frozenset[Node], set[str]] = defaultdict(set)
    for x, relation, y in facts:
        expected[frozenset((x, y))].add(relation)
    columns = ("node_source", "node_type", "node_id", "node_name")
    nodes = [Node(*row) for row in graph.nodes.select(columns).rows()]
    one, other = np.divmod(np.arange(len(nodes) ** 2), len(nodes))
    found = stated_relations(graph, one, other)
    for i, j, relations in zip(one.tolist(), other.tolist(), found, strict=True):
        assert relations == tuple(sorted(expected[frozenset((nodes[i], nodes[j]))]))
    assert max(map(len, found)) > 1
    none = np.empty(0, np.int64)
    assert stated_relations(graph, none, none) == []
