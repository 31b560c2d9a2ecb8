"""The probe of embeddings against plain loops, and what it finds in planted vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import Fact, node, random_facts, read_facts

from clinical_drug_discovery.evaluation import embedding_probe
from clinical_drug_discovery.evaluation.embedding_probe import neighbor_scores, probe_embeddings
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from clinical_drug_discovery.ranking import neighbors
from clinical_drug_discovery.ranking.treatments import pairs_of, treatments
from clinical_drug_discovery.system.errors import InputError


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    """Diseases with 0 to 3 and with many drugs; drugs that treat nothing."""
    return random_facts(rng, 250, {"drug": 40, "disease": 25, "gene/protein": 20})


@pytest.fixture
def embeddings(graph: KnowledgeGraph, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(1, 1, (graph.num_nodes, 6)).astype(np.float32))


def by_loops(
    graph: KnowledgeGraph,
    embeddings: torch.Tensor,
    disease: int,
    hidden: int | None = None,
    absent: tuple[np.ndarray, np.ndarray] = (np.array([], int), np.array([], int)),
) -> np.ndarray:
    """Scores of all drugs for a disease; one known drug is hidden, other nodes are absent."""

    def centered(kind: str) -> list[np.ndarray]:
        rows = embeddings[slice(*node_range_of(graph, kind))].double().numpy()
        return [row / np.linalg.norm(row) for row in rows - rows.mean(axis=0)]

    def near(a: np.ndarray, b: np.ndarray) -> float:
        return float(max(a @ b, 0.0) ** 8)

    drugs, diseases = centered("drug"), centered("disease")
    known = treatments(graph).toarray() > 0
    known[absent[0]] = known[:, absent[1]] = False
    for drug in absent[0]:
        drugs[drug] = np.zeros_like(drugs[drug])  # near nothing
    if hidden is not None:
        known[hidden, disease] = False
    votes = np.zeros(len(drugs))
    for other in range(len(diseases)):
        if other != disease:
            votes[known[:, other]] += near(diseases[disease], diseases[other])
    votes /= votes.max()
    own = np.flatnonzero(known[:, disease]).tolist()
    if not own:
        return np.asarray(votes)
    n = range(len(drugs))
    near_own = np.array([sum(near(drugs[i], drugs[j]) for j in own if j != i) for i in n])
    near_votes = np.array([sum(votes[j] * near(drugs[i], drugs[j]) for j in n) for i in n])
    return np.asarray(votes + near_own / near_own.max() + 0.3 * near_votes / near_votes.max())


def test_scores_against_loops(
    graph: KnowledgeGraph, embeddings: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, stop = node_range_of(graph, "disease")
    expected = np.stack([by_loops(graph, embeddings, i) for i in range(stop - first)])
    num_known = treatments(graph).sum(axis=0)
    assert num_known.min() == 0
    assert num_known.max() > 3
    order = np.random.default_rng(0).permutation(stop - first)
    for diseases, drugs in ((256, 1024), (4, 7)):
        monkeypatch.setattr(neighbors, "_DISEASES", diseases)
        monkeypatch.setattr(neighbors, "_DRUGS", drugs)
        scores = neighbor_scores(graph, embeddings, order + first)
        np.testing.assert_allclose(scores, expected[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [2000, 20])
def test_each_known_pair_is_asked_as_if_unknown(
    graph: KnowledgeGraph, embeddings: torch.Tensor, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(embedding_probe, "MAX_PAIRS", most)
    monkeypatch.setattr(embedding_probe, "_DISEASES", 5)
    monkeypatch.setattr(embedding_probe, "_TOGETHER", 2)
    pairs = pairs_of(graph)
    if most < len(pairs):
        drawn = np.random.default_rng(5).choice(len(pairs), most, replace=False)
        pairs = pairs.select(np.sort(drawn))
    first_drug, first = (node_range_of(graph, kind)[0] for kind in ("drug", "disease"))
    known = treatments(graph).toarray() > 0
    ranks = []
    for drug, disease in zip(pairs.drug - first_drug, pairs.disease - first, strict=True):
        scores = by_loops(graph, embeddings, int(disease), int(drug))
        difference = scores[~known[:, disease]] - scores[drug]
        ties = np.abs(difference) < 1e-12
        ranks.append(1 + (~ties & (difference > 0)).sum() + ties.sum() / 2)
    found = probe_embeddings(graph, embeddings, seed=5)
    assert found is not None
    assert found["num_pairs"] == len(ranks)
    assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-3)
    assert found["recall@50"] == 1  # there are only 40 drugs
    assert 0 < found["walk_mrr"] < 0.2  # the graph lacks edges between diseases


def test_a_sample_is_probed_as_if_the_graph_lacked_the_rest(
    graph: KnowledgeGraph,
    embeddings: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drawn: list[tuple[IntArray, IntArray]] = []
    sampled = embedding_probe._sampled

    def seen(*given: Any) -> tuple[IntArray, IntArray]:
        drawn.append(sampled(*given))
        return drawn[-1]

    caplog.set_level("INFO", "clinical_drug_discovery")
    whole = probe_embeddings(graph, embeddings, seed=5)
    monkeypatch.setattr(embedding_probe, "_sampled", seen)
    known = treatments(graph).toarray() > 0
    num_drugs, num_treated = len(known), int(known.any(axis=0).sum())
    monkeypatch.setattr(embedding_probe, "MAX_DRUGS", num_drugs)
    monkeypatch.setattr(embedding_probe, "MAX_DISEASES", num_treated)
    assert probe_embeddings(graph, embeddings, seed=5) == whole
    assert whole is not None
    assert not whole["is_sample"]
    assert not caplog.messages
    for most_drugs, most_diseases in ((num_drugs // 2, num_treated // 2), (num_drugs, 5)):
        monkeypatch.setattr(embedding_probe, "MAX_DRUGS", most_drugs)
        monkeypatch.setattr(embedding_probe, "MAX_DISEASES", most_diseases)
        found = probe_embeddings(graph, embeddings, seed=5)
        assert found is not None
        drugs, diseases = drawn[-1]
        assert found["is_sample"]
        assert found["num_drugs"] == len(drugs) == most_drugs
        assert 2 <= found["num_diseases"] == len(diseases) <= most_diseases
        absent = (
            np.setdiff1d(np.arange(num_drugs), drugs),
            np.setdiff1d(np.arange(known.shape[1]), diseases),
        )
        ranks = []
        for disease in diseases:
            for drug in drugs[known[drugs, disease]]:
                scores = by_loops(graph, embeddings, int(disease), int(drug), absent)
                rivals = scores[np.setdiff1d(drugs, np.flatnonzero(known[:, disease]))]
                ties = np.isclose(rivals, scores[drug], rtol=1e-6, atol=0)  # equal in float32
                ranks.append(1 + (~ties & (rivals > scores[drug])).sum() + ties.sum() / 2)
        assert found["num_pairs"] == len(ranks)
        assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-3)
        told = f"{len(drugs):,} of {num_drugs:,} drugs and {len(diseases):,} of {num_treated:,}"
        assert told in caplog.messages[-1]


def test_vectors_of_the_mechanism_are_good_and_random_ones_are_not(tmp_path: Path) -> None:
    """Drug i treats the diseases whose number has the same remainder; vectors say the remainder."""
    facts = [
        (node("drug", i), "indication", node("disease", j))
        for i in range(80) for j in range(60) if i % 20 == j % 20 and (i + j) % 7
    ]  # fmt: skip
    graph = read_facts(tmp_path, facts)
    remainder = graph.nodes["node_id"].cast(int).to_numpy() % 20
    noise = np.random.default_rng(0).normal(0, 0.05, (graph.num_nodes, 20))
    planted = torch.from_numpy((np.eye(20)[remainder] + noise).astype(np.float32))
    found = probe_embeddings(graph, planted, seed=0)
    mixed = np.random.default_rng(1).permutation(graph.num_nodes)
    chance = probe_embeddings(graph, planted[torch.from_numpy(mixed)], seed=0)
    assert found is not None
    assert chance is not None
    assert found["mrr"] > 0.6
    assert chance["mrr"] < 0.2


def test_a_graph_without_treatments_is_not_probed(tmp_path: Path) -> None:
    facts = [(node("drug", 0), "indication", node("disease", 0))]
    for some in (facts, [(node("drug", 0), "drug_drug", node("drug", 1))]):
        graph = read_facts(tmp_path, some)
        assert probe_embeddings(graph, torch.ones(graph.num_nodes, 3), seed=0) is None
    with pytest.raises(InputError, match="no nodes of type 'disease'"):
        neighbor_scores(graph, torch.ones(graph.num_nodes, 3), np.array([0]))
