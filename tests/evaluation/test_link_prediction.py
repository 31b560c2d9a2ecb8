"""Held-out facts of every relation: what leaves the graph, and how their ends are ranked."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from graphs import Fact, graph_of, node, to_triples

from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.evaluation.held_out import hold_out
from clinical_drug_discovery.evaluation.link_prediction import hold_out_facts, relation_metrics
from clinical_drug_discovery.evaluation.split import leak_count, split_pairs
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.ranking.treatments import pairs_of


@pytest.fixture
def said_twice(facts: list[Fact]) -> KnowledgeGraph:
    """Some facts stand under a second relation, some indications are contraindications as well."""
    more = [(x, "expressed", y) for x, relation, y in facts[::2] if relation == "protein_protein"]
    more += [
        (y, "contraindication", x) for x, relation, y in facts[::3] if relation == "indication"
    ]
    more += [(node("drug", i), "contraindication", node("disease", i + 1)) for i in range(9)]
    return graph_of([*facts, *more])


def test_what_leaves_leaves_wholly_and_no_drug_that_helps_is_touched(
    said_twice: KnowledgeGraph,
) -> None:
    graph, facts = hold_out_facts(said_twice, share=0.2, max_facts=10, seed=3)
    assert leak_count(graph, facts.src, facts.dst) == 0
    before, after = pairs_of(said_twice), pairs_of(graph)
    np.testing.assert_array_equal(before.drug, after.drug)
    np.testing.assert_array_equal(before.disease, after.disease)
    edges = list(zip(facts.edge_type.tolist(), facts.src.tolist(), facts.dst.tolist(), strict=True))
    assert len(set(edges)) == len(edges)
    assert {(said_twice.reverse_edge_type[r], dst, src) for r, src, dst in edges} == set(edges)
    assert said_twice.has_edges(facts.src, facts.edge_type, facts.dst).all()
    for r, kind in enumerate(said_twice.edge_types):
        held = int((facts.edge_type == r).sum()) // (1 + (said_twice.reverse_edge_type[r] == r))
        assert (held == 0) == (kind.relation == "indication"), kind
        assert held <= 10
    gone = to_triples(said_twice) - to_triples(graph)
    assert len(gone) > len(edges)  # what says the same under another name
    assert {relation for _, relation, _ in gone} >= {"expressed", "protein_protein"}


def test_the_draw_does_not_depend_on_the_order_of_the_file(facts: list[Fact]) -> None:
    first, second, other = (
        hold_out_facts(graph_of(order), share=0.1, max_facts=500, seed=seed)[1]
        for order, seed in ((facts, 1), (facts[::-1], 1), (facts, 2))
    )
    np.testing.assert_array_equal(first.src, second.src)
    np.testing.assert_array_equal(first.edge_type, second.edge_type)
    assert len(first.src) != len(other.src) or (first.src != other.src).any()


def test_no_share_holds_out_nothing(graph: KnowledgeGraph) -> None:
    left, facts = hold_out_facts(graph, share=0, max_facts=500, seed=0)
    assert left.num_edges == graph.num_edges
    assert len(facts.src) == 0


@pytest.mark.parametrize("distinct", [3, 1000], ids=["ties", "distinct"])
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["all", "test part"])
def test_ranks_against_loops(said_twice: KnowledgeGraph, distinct: int, share: float) -> None:
    held = hold_out(
        said_twice, partial(split_pairs, share=0.3), part="test", validation_share=share,
        relation_share=0.2, seed=0,
    )  # fmt: skip
    graph, facts = held.split.graph, held.facts
    table = np.random.default_rng(0).integers(distinct, size=(9, graph.num_nodes, graph.num_nodes))

    def scores_of(sources: IntArray, relation: int, span: tuple[int, int]) -> Scores:
        return np.asarray(table[relation][sources, slice(*span)], np.float32)

    records = relation_metrics(graph, facts, held.removed, scores_of)
    held_out = {
        edge
        for part in facts
        for edge in zip(part.edge_type.tolist(), part.src.tolist(), part.dst.tolist(), strict=True)
    }
    known, every = (
        set(zip(g.edge_type.tolist(), g.src.tolist(), g.dst.tolist(), strict=True))
        for g in (graph, said_twice)
    )
    assert not known & held_out
    assert every > known | held_out
    of_type = {r: [e for e in held_out if e[0] == r] for r in {e[0] for e in held_out}}
    assert len(records) == len(of_type)
    assert any(r == graph.reverse_edge_type[r] for r in of_type)
    names = ("source_type", "relation", "target_type")
    for (r, edges), record in zip(sorted(of_type.items()), records, strict=True):
        assert tuple(record[name] for name in names) == graph.edge_types[r]
        relation = graph.relations.index(graph.edge_types[r].relation)
        start, stop = graph.node_range(graph.endpoint_types[r][1])
        reciprocal = []
        for _, src, dst in edges:
            rivals = [
                table[relation, src, node]
                for node in range(start, stop)
                if node not in (src, dst) and (r, src, node) not in every
            ]
            own = table[relation, src, dst]
            above, equal = (
                sum(bool(b) for b in a)
                for a in ([x > own for x in rivals], [x == own for x in rivals])
            )
            reciprocal.append(1 / (1 + above + equal / 2))
        assert record["mrr"] == pytest.approx(np.mean(reciprocal))
        assert record["mrr_low"] <= record["mrr"] <= record["mrr_high"]
        assert record["num_targets"] == len(edges)
        assert record["num_candidates"] == stop - start
