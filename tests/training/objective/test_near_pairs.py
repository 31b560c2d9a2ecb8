"""Near pairs join two nodes of one type by a short walk along allowed relations."""

from __future__ import annotations

from collections import Counter

import numpy as np
from graphs import Fact, graph_of, node

from clinical_drug_discovery.graph.knowledge_graph import node_range_of
from clinical_drug_discovery.training.objective.near_pairs import NearPairSampler


def numbers(
    facts: list[Fact], node_type: str, num_pairs: int, seed: int = 0
) -> Counter[tuple[int, int]]:
    """Return how often each pair of ids was drawn."""
    graph = graph_of(facts)
    pairs = NearPairSampler(graph, [node_type], seed).sample(node_type, num_pairs)
    first, stop = node_range_of(graph, node_type)
    assert ((pairs.nodes >= first) & (pairs.nodes < stop)).all()
    ids = graph.nodes["node_id"].to_numpy()
    found = zip(ids[pairs.left.numpy()].tolist(), ids[pairs.right.numpy()].tolist(), strict=True)
    return Counter((int(a), int(b)) for a, b in found)


def test_walks_follow_the_hierarchy_and_stop_after_each_step_with_a_fixed_chance() -> None:
    chain: list[Fact] = [
        (node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(20)
    ]
    other: Fact = (node("disease", 50), "disease_disease", node("disease", 51))
    drawn = numbers([*chain, other], "disease", 40_000)
    distance = Counter[int]()
    for (a, b), count in drawn.items():
        assert (a < 50) == (b < 50)
        distance[abs(a - b)] += count
    assert max(distance) == 8
    # One step: stop at once (0.3), or return after three or five steps; never an even number of 0.
    assert 0.4 < distance[1] / distance.total() < 0.75
    assert 0 not in distance


def test_shared_neighbors_join_nodes_unless_they_have_too_many_edges() -> None:
    facts: list[Fact] = [
        (node("disease", i), "disease_protein", node("gene/protein", i // 2)) for i in range(8)
    ]
    facts += [
        (node("disease", i), "disease_phenotype_positive", node("effect/phenotype", 0))
        for i in range(8, 400)
    ]
    drawn = numbers(facts, "disease", 4000)
    assert set(drawn) == {(i ^ swap, i ^ swap ^ 1) for i in range(8) for swap in (0, 1)}


def test_contraindications_and_dense_relations_are_left_out() -> None:
    facts: list[Fact] = [
        (node("drug", i), "contraindication", node("disease", i % 3)) for i in range(100)
    ]
    facts += [(node("drug", i), "drug_drug", node("drug", j)) for i in range(100) for j in range(i)]
    facts += [(node("drug", i), "indication", node("disease", 10)) for i in (3, 4)]
    assert set(numbers(facts, "drug", 500)) == {(3, 4), (4, 3)}


def test_diseases_seldom_share_drugs_among_their_pairs() -> None:
    """Weights 0.3 for a shared gene and 0.2 for a shared drug."""
    facts: list[Fact] = [
        (node("disease", i), "disease_protein", node("gene/protein", 0)) for i in range(10)
    ]
    facts += [(node("drug", 0), "indication", node("disease", i)) for i in range(20, 30)]
    drawn = numbers(facts, "disease", 5000)
    by_drug = sum(count for (a, _), count in drawn.items() if a >= 20)
    assert 0.35 < by_drug / drawn.total() < 0.45


def test_a_seed_gives_the_same_pairs_and_a_state_continues_them() -> None:
    graph = graph_of(
        [(node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(20)]
    )
    one, two, three = (NearPairSampler(graph, ["disease", "none"], seed) for seed in (1, 1, 2))
    assert one.node_types == ("disease",)
    first, same, other = (
        one.sample("disease", 50),
        two.sample("disease", 50),
        three.sample("disease", 50),
    )
    assert np.array_equal(first.nodes, same.nodes)
    assert not np.array_equal(first.nodes, other.nodes)
    three.load_state_dict(one.state_dict())
    assert np.array_equal(one.sample("disease", 50).nodes, three.sample("disease", 50).nodes)
