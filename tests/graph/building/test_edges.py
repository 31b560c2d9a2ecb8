"""Neither the order of facts, the way to count and sort them, nor files change the edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import assert_same_graph, random_facts, read_facts

from clinical_drug_discovery.graph.building import edges, keys
from clinical_drug_discovery.graph.building.edges import NodeTypes, build_graph, count_facts
from clinical_drug_discovery.graph.building.facts import Facts
from clinical_drug_discovery.graph.knowledge_graph import edges_of
from clinical_drug_discovery.system.errors import InputError


def test_many_possible_edge_types_give_the_same_graph(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = random_facts(rng)
    by_table = read_facts(tmp_path, facts)
    monkeypatch.setattr(edges, "_MAX_TABLE", 0)
    assert_same_graph(by_table, read_facts(tmp_path, facts))


def test_neither_the_order_of_facts_nor_the_way_to_sort_changes_the_graph(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = read_facts(tmp_path, random_facts(rng))
    src, dst = edges_of(graph, range(len(graph.edge_types)))
    relation = graph.edge_type_relation[graph.edge_type.long()].numpy()
    once = rng.permutation(np.flatnonzero(src < dst))
    monkeypatch.setattr(keys, "_MOST_COPIED", 0)
    facts = Facts.of(src[once], relation[once], dst[once], graph.num_nodes)
    types = NodeTypes.of(graph.nodes)
    counts = count_facts(facts, types)
    built = build_graph(graph.nodes, types, facts, counts, graph.relations, graph.report)
    assert_same_graph(built, graph)


def test_a_sort_key_without_room_is_refused(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "node_bits", lambda num_nodes: 31)
    with pytest.raises(InputError, match=r"joins \d pairs of node types; with .* less than 2 are"):
        read_facts(tmp_path, random_facts(rng))
