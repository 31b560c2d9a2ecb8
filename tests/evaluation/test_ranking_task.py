"""The task of a split: which drugs are known, and how well scores find the held-out ones."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Fact, node

from clinical_drug_discovery.evaluation.baselines import BASELINES
from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.evaluation.metrics import Metrics, ranking_metrics
from clinical_drug_discovery.evaluation.split import known_drugs, ranking_task, split_pairs
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.ranking.treatments import Pairs
from clinical_drug_discovery.system.errors import InputError


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    """Drugs that treat diseases under several relations, and related diseases."""
    drugs, diseases = ([node(kind, i) for i in range(20)] for kind in ("drug", "disease"))
    found: set[Fact] = set()
    for relation in (*PRIMEKG.treats, "contraindication"):
        found |= {(drugs[i], relation, diseases[j]) for i, j in rng.integers(0, 20, (30, 2))}
    found |= {(diseases[i], "disease_disease", diseases[i + 1]) for i in range(19)}
    return sorted(found)


def test_known_drugs_are_in_the_training_graph_or_held_out(graph: KnowledgeGraph) -> None:
    split = split_pairs(graph, share=0.4, seed=0)
    diseases = np.arange(*node_range_of(graph, "disease"))
    whole = known_drugs(split, diseases)
    edges = zip(graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True)
    first_disease, first_drug = diseases[0], node_range_of(graph, "drug")[0]
    wanted = np.zeros_like(whole)
    for src, r, dst in edges:
        kind = graph.edge_types[r]
        if kind.src_type == "drug" and kind.relation in PRIMEKG.treats:
            wanted[dst - first_disease, src - first_drug] = True
    np.testing.assert_array_equal(whole, wanted)
    np.testing.assert_array_equal(known_drugs(split, diseases[3:9]), wanted[3:9])


def test_a_split_is_ranked(graph: KnowledgeGraph) -> None:
    split = split_pairs(graph, share=0.4, seed=0)
    first_drug, end_drug = node_range_of(graph, "drug")

    def metrics_of(scores: Scores, pairs: Pairs) -> Metrics:
        task = ranking_task(split, pairs)
        return ranking_metrics(scores, task.known, task.row, task.candidate)

    diseases = sorted(set(split.test.disease.tolist()))
    assert ranking_task(split, split.test).diseases.tolist() == diseases
    oracle = np.zeros((len(diseases), end_drug - first_drug))
    for drug, disease in zip(split.test.drug, split.test.disease, strict=True):
        oracle[diseases.index(disease), drug - first_drug] = 1
    metrics = metrics_of(oracle, split.test)
    assert metrics["mrr"] == metrics["auroc"] == 1
    assert metrics["num_pairs"] == len(split.test)
    scores = BASELINES["relatives"](split.graph, split.held_out.diseases)
    assert metrics_of(scores, split.held_out)["num_pairs"] == len(split.held_out)
    with pytest.raises(InputError, match="scores"):
        metrics_of(oracle[:, 1:], split.test)
    none = split_pairs(graph, share=0.4, seed=0, validation_share=0).validation
    with pytest.raises(InputError, match=r"pairs \(got none\)"):
        ranking_task(split, none)
