"""The prediction of the memory of the fit knows the features and the examples of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, graph_of, node, planted_facts, random_facts

import clinical_drug_discovery
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.ranking.fit_memory import feature_numbers, rank_fit_bytes
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures

SAMPLE = Path(clinical_drug_discovery.__file__).parent / "data" / "sample_kg.csv"


def with_more_relations(facts: list[Fact]) -> list[Fact]:
    """Two relations between diseases, one between drugs, and contraindications."""
    of_diseases = [
        (node("disease", i), relation, node("disease", i // step))
        for relation, step in (("disease_disease", 2), ("phenotype_link", 3))
        for i in range(1, 20)
    ]
    of_drugs = [(node("drug", i), "drug_drug", node("drug", i + 1)) for i in range(29)]
    harmful = [(node("drug", i), "contraindication", node("disease", 19)) for i in range(9)]
    return [*facts, *of_diseases, *of_drugs, *harmful]


@pytest.mark.parametrize("name", ["random", "more relations", "planted", "sample"])
def test_the_numbers_of_features_are_those_of_the_ranker(name: str) -> None:
    facts = random_facts(np.random.default_rng(0), 260)
    graph = {
        "random": lambda: graph_of(facts),
        "more relations": lambda: graph_of(with_more_relations(facts)),
        "planted": lambda: graph_of(planted_facts()),
        "sample": lambda: read_graph(SAMPLE),
    }[name]()
    features = MetapathFeatures(graph)
    similarities = features.co_indicated_similarity(int(features.treated[0]))[1]
    numbers = features.num_base, len(features.popularity_names), len(similarities)
    assert feature_numbers(graph) == numbers
    assert rank_fit_bytes(graph, 4096) > rank_fit_bytes(graph) > 0
