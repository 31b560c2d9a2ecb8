"""Explanations are paths of the graph, the best of all, and hubs count less."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, graph_of, node, random_facts, read_facts, to_triples

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph, node_range_of
from clinical_drug_discovery.ranking.evidence.explanations import KINDS, Explainer
from clinical_drug_discovery.ranking.evidence.sentences import sentence


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    rng = np.random.default_rng(3)
    facts = random_facts(rng, 260)
    facts += [
        (node("gene/protein", i), "pathway_protein", node("pathway", i % 6)) for i in range(40)
    ]
    return facts + [
        (node("disease", i), "disease_disease", node("disease", i // 2)) for i in range(1, 20)
    ]


@pytest.fixture(scope="module")
def graph(facts: list[Fact]) -> KnowledgeGraph:
    return graph_of(facts)


def test_every_step_of_every_path_is_an_edge(graph: KnowledgeGraph) -> None:
    explainer, triples = Explainer(graph), to_triples(graph)
    columns = ("node_source", "node_type", "node_id")
    keys = {row[0]: row[1:] for row in graph.nodes.select("node_index", *columns).rows()}
    (drug, _), (disease, _) = (node_range_of(graph, kind) for kind in ("drug", "disease"))
    seen = set()
    for d, s in product(range(12), range(8)):
        found = explainer.drug_for_disease(drug + d, disease + s)
        order = [(KINDS.index(path["kind"]), -path["path_score"]) for path in found["evidence"]]
        assert order == sorted(order)
        for path in found["evidence"]:
            nodes = [keys[row["node_index"]] for row in path["nodes"]]
            assert len(set(nodes)) == len(nodes)
            ends = tuple(graph.nodes.select(columns).row(row) for row in (drug + d, disease + s))
            assert (nodes[0], nodes[-1]) == ends
            for x, relation, y in zip(nodes, path["relations"], nodes[1:], strict=False):
                assert (x, relation, y) in triples
            assert all(row["node_name"] in path["text"] for row in path["nodes"])
            # An edge between the two nodes of the pair is not evidence for the pair.
            assert len(nodes) > 2
            seen.add((path["kind"], len(nodes)))
    assert {("mechanism", n) for n in (3, 4, 5)} <= seen
    assert {kind for kind, _ in seen} == set(KINDS)


def test_the_best_path_is_that_of_counting_one_by_one(
    facts: list[Fact], graph: KnowledgeGraph
) -> None:
    degree: Counter[tuple[str, object]] = Counter()
    for x, relation, y in facts:
        degree[relation, x] += 1
        degree[relation, y] += 1
    best: dict[tuple[str, str], float] = {}
    for (drug, r, gene), (disease, q, other) in product(facts, facts):
        if r == "drug_protein" and q == "disease_protein" and gene == other:
            ends = degree[r, drug] * degree[r, gene] * degree[q, gene] * degree[q, disease]
            key = drug.id, disease.id
            best[key] = max(best.get(key, 0), ends**-0.4)
    explainer, ids = Explainer(graph), graph.nodes["node_id"].to_list()
    (first, _), (start, _) = (node_range_of(graph, kind) for kind in ("drug", "disease"))
    compared = 0
    for d, s in product(range(15), range(10)):
        evidence = explainer.drug_for_disease(first + d, start + s)["evidence"]
        short = [path for path in evidence if len(path["nodes"]) == 3]
        direct = [path["path_score"] for path in short if path["kind"] == "mechanism"]
        if direct:
            assert direct[0] == pytest.approx(best[ids[first + d], ids[start + s]], rel=1e-3)
            compared += 1
    assert compared > 20


def test_a_hub_says_less_than_a_gene_of_its_own(tmp_path: Path) -> None:
    drug, disease, hub, own = (
        node("drug", 0), node("disease", 0), node("gene/protein", 0), node("gene/protein", 1)
    )  # fmt: skip
    facts: list[Fact] = [(node("drug", i), "drug_protein", hub) for i in range(30)]
    facts += [(drug, "drug_protein", own), (drug, "contraindication", disease)]
    facts += [(disease, "disease_protein", gene) for gene in (hub, own)]
    graph = read_facts(tmp_path, facts)
    names = graph.nodes["node_name"].to_list()
    found = Explainer(graph).drug_for_disease(names.index("drug 0"), names.index("disease 0"))
    assert [path["text"] for path in found["evidence"]] == [
        f"drug 0 binds gene/protein {i}, which is linked to disease 0" for i in (1, 0)
    ]
    (stated,) = found["stated_facts"]
    assert stated["text"] == "drug 0 is contraindicated in disease 0"
    assert stated["contraindicated"]
    assert all(path["through_target"] for path in found["evidence"])
    shared = Explainer(graph).shared(names.index("drug 1"), names.index("drug 2"))
    assert shared["evidence"][0]["text"] == "drug 1 binds gene/protein 0, as does drug 2"


def test_a_shared_side_effect_is_not_evidence(tmp_path: Path) -> None:
    drug, other, disease = node("drug", 0), node("drug", 1), node("disease", 0)
    effect = node("effect/phenotype", 0)
    facts: list[Fact] = [
        (drug, "drug_effect", effect),
        (other, "drug_effect", effect),
        (other, "indication", disease),
        (disease, "disease_phenotype_positive", effect),
    ]
    graph = read_facts(tmp_path, facts)
    names = graph.nodes["node_name"].to_list()
    asked, first, second = (names.index(x.name) for x in (disease, drug, other))
    explainer = Explainer(graph)
    assert explainer.drug_for_disease(first, asked) == {"stated_facts": [], "evidence": []}
    assert explainer.shared(asked, first)["evidence"] == []
    (path,) = explainer.shared(first, second)["evidence"]  # says why the drugs are similar
    assert path["text"] == "drug 0 has the side effect effect/phenotype 0, as does drug 1"
    assert not path["through_target"]


def test_words_of_other_graphs_give_the_same_sentences(tmp_path: Path) -> None:
    drug, other, disease, gene = (
        node("Compound", 0), node("Compound", 1), node("Disease", 0), node("Gene", 0)
    )  # fmt: skip
    facts: list[Fact] = [
        (drug, "contraindicates", disease),
        (drug, "binds", gene),
        (other, "binds", gene),
        (other, "treats", disease),
        (disease, "associates", gene),
    ]
    graph = read_facts(tmp_path, facts)
    names = graph.nodes["node_name"].to_list()
    found = Explainer(graph).drug_for_disease(names.index(drug.name), names.index(disease.name))
    assert found["stated_facts"] == [
        {
            "text": "Compound 0 is contraindicated in Disease 0",
            "relation": "contraindicates",
            "contraindicated": True,
        }
    ]
    mechanism, similar = found["evidence"]
    assert mechanism["text"] == "Compound 0 binds Gene 0, which is linked to Disease 0"
    assert similar["text"] == (
        "Compound 0 binds Gene 0, as does Compound 1, which treats Disease 0"
    )
    assert mechanism["through_target"]
    assert similar["through_target"]


def test_sentences() -> None:
    binds = EdgeType("drug", "drug_protein", "gene/protein")
    bound = EdgeType("gene/protein", "drug_protein", "drug")
    treats = EdgeType("drug", "indication", "disease")
    assert sentence(["A", "B", "C", "D"], [binds, bound, treats]) == (
        "A binds B, as does C, which treats D"
    )
    unknown = EdgeType("drug", "made_from", "plant")
    assert sentence(["A", "B"], [unknown]) == "A is joined by 'made_from' to B"
