"""Baselines against plain loops over facts."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, node, read_facts

from clinical_drug_discovery.evaluation import baselines
from clinical_drug_discovery.evaluation.baselines import (
    BASELINES,
    break_ties,
    popularity_scores,
    walk_scores,
)
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.system.errors import InputError

DRUGS, DISEASES = 15, 25
RELATIONS = (
    ("indication", "drug", "disease", 40),
    ("palliation", "drug", "disease", 15),
    ("contraindication", "drug", "disease", 20),
    ("disease_disease", "disease", "disease", 60),
    ("disease_protein", "disease", "gene/protein", 50),
    ("disease_phenotype_positive", "disease", "effect/phenotype", 50),
    ("disease_phenotype_negative", "disease", "effect/phenotype", 20),
    ("drug_protein", "drug", "gene/protein", 30),
)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    sizes = defaultdict(lambda: 12, drug=DRUGS, disease=DISEASES)
    found: set[Fact] = set()
    for relation, x, y, number in RELATIONS:
        for i, j in zip(
            rng.integers(0, sizes[x], number), rng.integers(0, sizes[y], number), strict=True
        ):
            if x != y or i < j:
                found.add((node(x, int(i)), relation, node(y, int(j))))
    # All nodes are there, whatever was drawn.
    found |= {(node("drug", i), "is", node("thing", 0)) for i in range(DRUGS)}
    found |= {(node("disease", i), "is", node("thing", 0)) for i in range(DISEASES)}
    return sorted(found)


def relatives(facts: list[Fact]) -> dict[str, set[str]]:
    near: dict[str, set[str]] = defaultdict(set)
    for x, relation, y in facts:
        if relation == "disease_disease":
            near[x.id].add(y.id)
            near[y.id].add(x.id)
    return near


def walked(near: dict[str, set[str]], start: str, end: str, steps: int) -> float:
    """Sum of 0.7^k * P(a walk of k steps from start ends at end), for k = 1 ... steps."""
    at, total = {start: 1.0}, 0.0
    for k in range(1, steps + 1):
        after: dict[str, float] = defaultdict(float)
        for place, chance in at.items():
            for other in near[place]:
                after[other] += chance / len(near[place])
        at = after
        total += 0.7**k * at.get(end, 0)
    return total


def expected(facts: list[Fact], name: str) -> np.ndarray:
    """Scores of all diseases and drugs, by their ids."""
    treats = {(y.id, x.id) for x, r, y in facts if r in PRIMEKG.treats}
    near = relatives(facts)
    traits: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for x, r, y in facts:
        if r in ("disease_protein", "disease_phenotype_positive"):
            traits[x.id].add((y.type, y.id))
    diseases = [str(i) for i in range(DISEASES)]

    def weight(of: set[tuple[str, str]]) -> float:
        return sum(
            math.log(len(traits) / sum(t in other for other in traits.values())) ** 2 for t in of
        )

    def score(d: str, drug: str) -> float:
        helped = {other for other, x in treats if x == drug}
        if name == "popularity":
            return len(helped)
        if name == "degree":
            return sum(n == node("drug", int(drug)) for fact in facts for n in fact[::2])
        if name == "relatives":
            total, seen, rim = 0.0, {d}, {d}
            for hop in (1, 2, 3):
                rim = {b for a in rim for b in near[a]} - seen
                seen |= rim
                total += 0.5**hop * len(rim & helped)
            return total
        if name == "walk":
            return sum(walked(near, other, d, 8) for other in helped - {d})
        return sum(
            weight(traits[d] & traits[o]) / math.sqrt(weight(traits[d]) * weight(traits[o]))
            for o in helped - {d}
            if traits.get(d) and traits.get(o)
        )

    return np.array([[score(d, str(i)) for i in range(DRUGS)] for d in diseases])


def numbers(graph: KnowledgeGraph, node_type: str) -> np.ndarray:
    """The id of each node of a type, in graph order."""
    first, stop = node_range_of(graph, node_type)
    return graph.nodes["node_id"][first:stop].cast(int).to_numpy()


@pytest.mark.parametrize("name", ["popularity", "degree", "relatives", "shared", "walk"])
def test_scores_against_loops(name: str, facts: list[Fact], graph: KnowledgeGraph) -> None:
    first, stop = node_range_of(graph, "disease")
    order = np.random.default_rng(0).permutation(np.arange(first, stop))[:20]
    scores = BASELINES[name](graph, order)
    assert scores.dtype == np.float32
    assert scores.shape == (20, DRUGS)
    wanted = expected(facts, name)[numbers(graph, "disease")[order - first]]
    np.testing.assert_allclose(scores, wanted[:, numbers(graph, "drug")], rtol=1e-5, atol=1e-6)
    assert len(np.unique(scores)) > 5


@pytest.mark.parametrize("name", ["relatives", "shared", "walk"])
def test_ties_fall_to_popularity(name: str, graph: KnowledgeGraph) -> None:
    diseases = np.arange(*node_range_of(graph, "disease"))
    plain, popular = BASELINES[name](graph, diseases), popularity_scores(graph, diseases)
    broken = BASELINES[f"{name}+popularity"](graph, diseases)
    np.testing.assert_array_equal(broken, break_ties(plain, popular))
    i, j = np.meshgrid(np.arange(DRUGS), np.arange(DRUGS))
    better = (plain[:, i] > plain[:, j]) | (
        (plain[:, i] == plain[:, j]) & (popular[:, i] > popular[:, j])
    )
    np.testing.assert_array_equal(broken[:, i] > broken[:, j], better)
    assert (plain == 0).mean() > 0.1


def test_the_walk_depends_on_no_order_and_no_chunk(
    facts: list[Fact], graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, stop = node_range_of(graph, "disease")
    order = np.random.default_rng(0).permutation(np.arange(first, stop))
    scores = walk_scores(graph, order)
    monkeypatch.setattr(baselines, "_WALK_CHUNK", 3)
    np.testing.assert_array_equal(walk_scores(graph, order), scores)
    monkeypatch.setattr(baselines, "_WALK_BYTES", 2 * 8 * (stop - first))  # two diseases at a time
    turned = read_facts(tmp_path, [(y, relation, x) for x, relation, y in reversed(facts)])
    again = walk_scores(turned, np.arange(first, stop))
    rows, columns = (numbers(graph, kind) for kind in ("disease", "drug"))
    back = [np.argsort(numbers(turned, kind)) for kind in ("disease", "drug")]
    np.testing.assert_array_equal(
        scores, again[back[0]][rows[order - first]][:, back[1]][:, columns]
    )


def test_a_graph_without_such_facts_gives_zeros(tmp_path: Path) -> None:
    graph = read_facts(tmp_path, [(node("drug", 0), "contraindication", node("disease", 0))])
    disease = np.array([node_range_of(graph, "disease")[0]])
    for name, scores_of in BASELINES.items():
        assert scores_of(graph, disease).tolist() == [[1.0 if name == "degree" else 0.0]], name
    no_drugs = read_facts(tmp_path, [(node("disease", 1), "disease_disease", node("disease", 0))])
    with pytest.raises(InputError, match="no nodes of type 'drug'"):
        popularity_scores(no_drugs, np.array([0]))
