"""Rankers of a saved model, and the rankers that such a model cannot provide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import graph_of, planted_facts

from clinical_drug_discovery.evaluation import rankers
from clinical_drug_discovery.evaluation.gnn_scores import GnnScores
from clinical_drug_discovery.evaluation.rankers import (
    RANKERS,
    check_rankers,
    drug_rankers,
    saved_rankers,
    why_not_saved,
)
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.machine import one_thread


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return graph_of(planted_facts())


@pytest.fixture(scope="module")
def gnn(graph: KnowledgeGraph) -> GnnScores:
    generator = torch.Generator().manual_seed(0)
    decoder = DistMult(len(graph.relations), 8, generator)
    return GnnScores(torch.randn(graph.num_nodes, 8, generator=generator), decoder)


def test_a_saved_model_ranks_as_the_model_of_an_evaluation(
    graph: KnowledgeGraph, gnn: GnnScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    diseases = np.arange(*node_range_of(graph, "disease"))[::3]
    with one_thread(True):
        ranker = fit_drug_ranker(graph, embeddings=gnn.embeddings, seed=3)
    monkeypatch.setattr(rankers, "fit_drug_ranker", lambda *arguments, **options: ranker)
    expected = dict(drug_rankers(graph, gnn, seed=3))
    assert tuple(expected) == RANKERS
    found = dict(saved_rankers(graph, ranker, gnn, RANKERS))
    assert tuple(found) == RANKERS
    for name in RANKERS:
        np.testing.assert_allclose(
            found[name](diseases), expected[name](diseases), rtol=1e-4, atol=1e-4
        )


def test_what_a_saved_model_lacks_is_named(graph: KnowledgeGraph) -> None:
    baselines = RANKERS[RANKERS.index("popularity") :]
    for has, left in (
        ((True, True), RANKERS),
        ((True, False), ("ranker", "ranker, no popularity", "paths", *baselines)),
        ((False, True), ("gnn", "neighbors", *baselines)),
        ((False, False), baselines),
    ):
        missing = why_not_saved(*has)
        assert tuple(name for name in RANKERS if name not in missing) == left
    with one_thread(True):
        ranker = fit_drug_ranker(graph, seed=0)
    assert [name for name, _ in saved_rankers(graph, ranker, None, ["paths", "walk"])] == [
        "paths", "walk"
    ]  # fmt: skip
    other = replace(ranker, feature_names=ranker.feature_names[1:])
    with pytest.raises(InputError, match="fitted on other features"):
        list(saved_rankers(graph, other, None, ["ranker"]))


def test_names_of_rankers_are_checked() -> None:
    assert check_rankers(None) == RANKERS
    assert check_rankers(["walk", "gnn"]) == ("gnn", "walk")
    with pytest.raises(InputError, match=r"rankers \(got 'neigbors'\).*did you mean 'neighbors'"):
        check_rankers(["neigbors"])
