"""A split removes its held-out pairs, under every relation and in both directions, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import Fact, Node, node, read_facts, to_rows, to_triples

from clinical_drug_discovery.evaluation.split import (
    Split,
    leak_count,
    split_areas,
    split_diseases,
    split_pairs,
)
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, without_edges
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.ranking.treatments import Pairs, pairs_of
from clinical_drug_discovery.system.errors import InputError

Triple = tuple[tuple[str, ...], str, tuple[str, ...]]
BETWEEN = (*PRIMEKG.treats, "contraindication", "off-label use")
SPLITS: dict[str, Callable[[KnowledgeGraph, int], Split]] = {
    "pairs": lambda graph, seed: split_pairs(graph, share=0.3, seed=seed),
    "diseases": lambda graph, seed: split_diseases(
        graph, num_diseases=6, min_drugs=2, max_drugs=9, seed=seed
    ),
    "areas": lambda graph, seed: split_areas(graph, num_areas=3, max_diseases=4, seed=seed),
}


def treated(rng: np.random.Generator) -> list[Fact]:
    """Drugs, diseases and genes; a third of the pairs stand under several relations."""
    drugs, diseases, genes = ([node(t, i) for i in range(40)] for t in ("drug", "disease", "gene"))
    facts: set[Fact] = set()
    for i, j in rng.integers(0, 40, (150, 2)):
        for relation in rng.choice(BETWEEN, rng.choice([1, 1, 2, 3]), replace=False):
            facts.add((drugs[i], str(relation), diseases[j]))
    for i, j in rng.integers(0, 40, (60, 2)):
        facts.add((drugs[i], "drug_protein", genes[j]))
        facts.add((diseases[j], "disease_protein", genes[i]))
        if i < j:
            facts.add((diseases[i], "disease_disease", diseases[j]))
    return sorted(facts)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    return treated(rng)


def messy(facts: list[Fact], rng: np.random.Generator) -> pl.DataFrame:
    """Rows in both directions for some facts, some of them several times, in any order."""
    table = to_rows(facts, both=True)
    kept = np.r_[: len(facts), len(facts) + np.flatnonzero(rng.random(len(facts)) < 0.5)]
    rows = np.r_[kept, rng.choice(kept, len(kept))]
    return table[rng.permutation(rows)]


def triples_of(graph: KnowledgeGraph, pairs: Pairs) -> set[tuple[tuple[str, ...], ...]]:
    """Pairs as (drug, disease), each (source, type, id)."""
    keys = graph.nodes.select("node_source", "node_type", "node_id").rows()
    return {(keys[a], keys[b]) for a, b in zip(pairs.drug, pairs.disease, strict=True)}


def key(one: Node) -> tuple[str, ...]:
    return (one.source, one.type, one.id)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("seed", range(3))
def test_held_out_pairs_are_gone_and_nothing_else(
    name: str, seed: int, facts: list[Fact], tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "messy.csv"
    messy(facts, rng).write_csv(path)
    graph = read_graph(path)
    assert graph.report.num_duplicate_rows > 0 < graph.report.num_mirrored_facts
    split = SPLITS[name](graph, seed)
    held_out = triples_of(graph, split.held_out)
    before, after = to_triples(graph), to_triples(split.graph)
    gone = {e for e in before if (e[0], e[2]) in held_out or (e[2], e[0]) in held_out}
    assert after == before - gone
    assert len(gone) == split.counts["num_removed_edges"]
    assert {relation for _, relation, _ in gone} == set(BETWEEN)
    asked = ("indication",) if name == "pairs" else PRIMEKG.treats
    other = sum(relation not in asked for _, relation, _ in gone)
    assert other == split.counts["num_removed_other_relation_edges"] > 0
    for pair in held_out:  # each is held out for a reason
        assert any((pair[0], relation, pair[1]) in before for relation in asked)
    # By the independent count, too.
    pairs = split.held_out
    assert leak_count(split.graph, pairs.drug, pairs.disease) == split.counts["num_leaks"] == 0
    assert leak_count(graph, pairs.drug, pairs.disease) == len(gone)


@pytest.mark.parametrize("name", SPLITS)
def test_pairs_are_sorted_distinct_and_parted(name: str, graph: KnowledgeGraph) -> None:
    split = SPLITS[name](graph, 0)
    parts = []
    for label in ("held_out", "validation", "test"):
        pairs: Pairs = getattr(split, label)
        rows = list(zip(pairs.disease.tolist(), pairs.drug.tolist(), strict=True))
        assert rows == sorted(set(rows)) != []
        for kind, nodes in (("drug", pairs.drug), ("disease", pairs.disease)):
            assert {graph.node_type_names[t] for t in graph.node_type[nodes].tolist()} == {kind}
        assert split.counts[f"num_{label}_pairs"] == len(rows) == len(pairs)
        assert split.counts[f"num_{label}_diseases"] == len({disease for disease, _ in rows})
        parts.append(set(rows))
    assert parts[0] == parts[1] | parts[2]
    assert not parts[1] & parts[2]
    if name != "pairs":
        assert not set(split.validation.diseases) & set(split.test.diseases)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_depends_on_the_facts_and_the_seed(
    name: str, facts: list[Fact], tmp_path: Path, rng: np.random.Generator
) -> None:
    splits = []
    for number, table in enumerate((to_rows(facts), messy(facts, rng))):
        path = tmp_path / f"{number}.csv"
        table.write_csv(path)
        splits.append([SPLITS[name](read_graph(path), seed) for seed in (0, 0, 1)])
    (a, again, other), (b, *_) = splits
    for same in (again, b):
        for label in ("validation", "test"):
            for end in ("drug", "disease"):
                np.testing.assert_array_equal(
                    getattr(getattr(a, label), end), getattr(getattr(same, label), end)
                )
        for one, other_one in zip(a.graph.arrays, same.graph.arrays, strict=True):
            np.testing.assert_array_equal(one, other_one)
        assert a.counts == same.counts
    assert triples_of(a.graph, a.held_out) != triples_of(a.graph, other.held_out)


def test_a_held_out_disease_has_no_drugs_left(graph: KnowledgeGraph) -> None:
    split = SPLITS["diseases"](graph, 0)
    all_pairs, left = pairs_of(graph), pairs_of(split.graph)
    chosen = split.held_out.diseases
    assert len(chosen) == 6
    assert not set(chosen) & set(left.disease)
    assert len(left) + len(split.held_out) == len(all_pairs)
    number = Counter(all_pairs.disease.tolist())
    assert all(2 <= number[disease] <= 9 for disease in chosen.tolist())
    # Contraindicated drugs that are not held out stay; there are some, or this shows nothing.
    harmful = ("contraindication", "off-label use")
    kept = [d for d in pairs_of(split.graph, harmful).disease.tolist() if d in set(chosen)]
    known = triples_of(graph, all_pairs)
    expected = [
        pair for pair in triples_of(graph, pairs_of(graph, harmful)) - known
        if pair[1] in {disease for _, disease in triples_of(graph, split.held_out)}
    ]  # fmt: skip
    assert len(kept) == len(expected) > 0


def test_an_area_is_a_disease_with_its_relatives(tmp_path: Path) -> None:
    # A path of diseases 0 - 1 - ... - 9 with one drug each, and three for the one at 5.
    diseases = [node("disease", i) for i in range(10)]
    facts: list[Fact] = [(node("drug", i), "indication", diseases[i]) for i in range(10)]
    facts += [(node("drug", i), "palliation", diseases[5]) for i in (20, 21)]
    facts += [(diseases[i], "disease_disease", diseases[i + 1]) for i in range(9)]
    graph = read_facts(tmp_path, facts)

    def held_out(**limits: Any) -> set[str]:
        split = split_areas(graph, num_areas=1, seed=0, **limits)
        assert split.counts["num_area_diseases"] == split.counts["num_held_out_diseases"]
        assert split.counts["num_validation_pairs"] == 0  # half of one area, rounded down
        return {disease[2] for _, disease in triples_of(graph, split.held_out)}

    assert held_out(max_hops=1) == {"4", "5", "6"}
    assert held_out() == {"3", "4", "5", "6", "7"}
    assert held_out(max_diseases=1) == {"5"}
    assert held_out(max_diseases=2) == {"4", "5"}  # the one numbered lower
    assert held_out(max_hops=9) == {str(i) for i in range(10)}
    with pytest.raises(InputError, match=r"num_areas \(got 2\) must be at most 1"):
        split_areas(graph, num_areas=2, seed=0)
    # No disease is in two areas.
    split = split_areas(graph, num_areas=2, min_drugs=1, max_hops=1, seed=3)
    assert split.counts["num_area_diseases"] == split.counts["num_held_out_diseases"] <= 6


@pytest.mark.parametrize("relation", ["contraindication", "some other relation"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_planted_leak_is_found(
    relation: str, mirrored: bool, facts: list[Fact], tmp_path: Path
) -> None:
    graph = read_facts(tmp_path, facts)
    split = SPLITS["pairs"](graph, 0)
    drug, disease = min(triples_of(graph, split.held_out))
    ends = {key(end): end for fact in facts for end in (fact[0], fact[2])}
    left = to_triples(split.graph)
    kept = [fact for fact in facts if (key(fact[0]), fact[1], key(fact[2])) in left]
    leak = (
        (ends[disease], relation, ends[drug]) if mirrored else (ends[drug], relation, ends[disease])
    )
    # Nodes that lost all their edges would be numbered away: a hub keeps all.
    hub: list[Fact] = [(end, "is", node("thing", 0)) for end in ends.values()]
    leaky = read_facts(tmp_path, [*kept, *hub, leak])
    number = {
        k: i for i, k in enumerate(leaky.nodes.select("node_source", "node_type", "node_id").rows())
    }
    pairs = np.array([[number[end] for end in pair] for pair in triples_of(graph, split.held_out)])
    assert leak_count(leaky, pairs[:, 0], pairs[:, 1]) == 2  # the edge and its mirror
    tight = read_facts(tmp_path, [*kept, *hub])
    assert leak_count(tight, pairs[:, 0], pairs[:, 1]) == 0


def test_what_cannot_be_met(graph: KnowledgeGraph, tmp_path: Path) -> None:
    for share in (0.0, 1.0, -0.1, float("nan"), 1e-6, 1 - 1e-6):
        with pytest.raises(InputError, match=r"share \(got"):
            split_pairs(graph, share=share, seed=0)
    number = Counter(pairs_of(graph).disease.tolist())
    eligible = sum(2 <= drugs <= 4 for drugs in number.values())
    limits: dict[str, Any] = {"min_drugs": 2, "max_drugs": 4, "seed": 0}
    split = split_diseases(graph, num_diseases=eligible, **limits)
    assert split.counts["num_held_out_diseases"] == eligible
    with pytest.raises(InputError, match=r"num_diseases \(got 0\) must be .* at least 1"):
        split_diseases(graph, num_diseases=0, **limits)
    with pytest.raises(InputError, match=r"min_drugs \(got 0\)"):
        split_diseases(graph, num_diseases=1, min_drugs=0, max_drugs=3, seed=0)
    with pytest.raises(InputError, match=r"max_drugs \(got 1\)"):
        split_diseases(graph, num_diseases=1, min_drugs=2, max_drugs=1, seed=0)
    for name in ("num_areas", "max_hops", "max_diseases", "min_drugs"):
        wrong: dict[str, Any] = {"num_areas": 1, "seed": 0, name: 0}
        with pytest.raises(InputError, match=rf"{name} \(got 0\)"):
            split_areas(graph, **wrong)
    for wrong_share in (-0.1, 1.0):
        with pytest.raises(InputError, match="validation_share"):
            split_pairs(graph, share=0.5, seed=0, validation_share=wrong_share)
    indication = graph.edge_types.index(("drug", "indication", "disease"))
    without = without_edges(graph, (graph.edge_type == indication).numpy())
    with pytest.raises(InputError, match=r"no edges between .* indication; .*: contraind"):
        split_pairs(without, share=0.5, seed=0)
    lonely = read_facts(
        tmp_path, [(node("drug", 0), "indication", node("disease", i)) for i in range(2)]
    )
    with pytest.raises(InputError, match="no edges between diseases"):
        split_areas(lonely, num_areas=1, min_drugs=1, seed=0)


def test_all_may_be_for_the_test(graph: KnowledgeGraph) -> None:
    split = split_pairs(graph, share=0.3, seed=0, validation_share=0)
    assert len(split.validation) == 0
    assert triples_of(graph, split.test) == triples_of(graph, split.held_out)


def test_a_small_graph_is_told_what_is_possible(tmp_path: Path) -> None:
    """Three diseases with 1, 2 and 2 drugs; a fourth disease has a contraindication only."""
    facts: list[Fact] = [
        (node("drug", drug), "indication", node("disease", disease))
        for disease, number in enumerate((1, 2, 2))
        for drug in range(number)
    ]
    facts += [(node("drug", 5), "contraindication", node("disease", 3))]
    facts += [(node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(3)]
    graph = read_facts(tmp_path, facts)

    def refused(make_split: Callable[..., Split], graph: KnowledgeGraph, **limits: Any) -> str:
        with pytest.raises(InputError) as error:
            make_split(graph, seed=0, **limits)
        return str(error.value)

    some: dict[str, Any] = {"min_drugs": 2, "max_drugs": 40}
    every: dict[str, Any] = {"min_drugs": 1, "max_drugs": 40}
    text = refused(split_diseases, graph, num_diseases=60, **some)
    assert text.startswith("num_diseases (default 60) must be at most 2: 2 diseases have 2 to 40")
    assert "give --num-diseases 2 or a lower --min-drugs" in text
    split_diseases(graph, num_diseases=2, seed=0, **some)  # as the message says
    text = refused(split_diseases, graph, num_diseases=3, **every)
    assert text.startswith("num_diseases (got 3) must be at most 2: 3 diseases have 1 to 40 drugs")
    assert text.endswith("training needs one treated disease; give --num-diseases 2")
    text = refused(split_diseases, graph, num_diseases=1, min_drugs=3, max_drugs=40)
    assert text.startswith("no disease has 3 to 40 drugs")
    assert "the 3 treated diseases of the graph have 1 to 2" in text
    text = refused(split_areas, graph, num_areas=20, min_drugs=1)
    assert text.startswith("num_areas (default 20) must be at most")
    other = read_facts(tmp_path, [*facts[-4:], (node("drug", 1), "treatz", node("disease", 1))])
    for make_split, limits in (
        (split_diseases, {"num_diseases": 60, **some}),
        (split_areas, {"num_areas": 20, "min_drugs": 3}),
        (split_pairs, {"share": 0.5}),
    ):
        text = refused(make_split, other, **limits)
        assert "relations between the two: contraindication, treatz" in text
    lonely = read_facts(tmp_path, [*facts[:1], *facts[-4:]])
    assert "only one disease" in refused(split_diseases, lonely, num_diseases=1, **every)
