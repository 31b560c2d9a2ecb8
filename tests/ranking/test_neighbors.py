"""Imputed votes against plain loops, and the drugs and diseases that they bring to the top."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import graph_of, node, planted_facts, random_facts

from clinical_drug_discovery.graph.knowledge_graph import node_range_of
from clinical_drug_discovery.ranking import neighbors
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.ranking.for_drug import best_diseases
from clinical_drug_discovery.ranking.for_drug.best_diseases import BestDiseases
from clinical_drug_discovery.ranking.for_drug.disease_side import DiseaseSide
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.neighbors import Neighbors
from clinical_drug_discovery.ranking.path_scores import Form


def imputed_by_loops(found: Neighbors) -> np.ndarray:
    """Votes of all diseases for all drugs, imputed where no other disease can vote."""
    known = found.known.toarray() > 0
    drugs, diseases = found.drugs.astype(np.float64), found.diseases.astype(np.float64)
    votes = found.votes(np.arange(len(diseases)))
    for s in range(len(diseases)):
        sums = np.zeros(len(drugs))
        for t in np.flatnonzero(known.any(axis=1)).tolist():
            if t != s:
                weight = max(diseases[s] @ diseases[t], 0) ** 8
                for e in np.flatnonzero(known[t]).tolist():
                    sums += weight * np.maximum(drugs @ drugs[e], 0) ** 4
        sums /= sums[known.any(axis=0)].max()
        for d in range(len(drugs)):
            if not known[np.arange(len(diseases)) != s, d].any():
                votes[s, d] = sums[d]
    return votes


def test_imputed_votes_against_loops(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = random_facts(rng, 250, {"drug": 40, "disease": 25, "gene/protein": 20})
    graph = graph_of(facts)
    embeddings = torch.from_numpy(rng.normal(1, 1, (graph.num_nodes, 6)).astype(np.float32))
    whole = Neighbors.of(graph, embeddings)
    expected, by_drug = imputed_by_loops(whole), whole.known.sum(axis=0)
    assert (by_drug == 0).any()
    assert (by_drug == 1).any()
    order = rng.permutation(len(whole.diseases))
    in_one = whole.scores(order)
    for diseases, drugs in ((256, 1024), (4, 7)):
        monkeypatch.setattr(neighbors, "_DISEASES", diseases)
        monkeypatch.setattr(neighbors, "_DRUGS", drugs)
        found = Neighbors.of(graph, embeddings)
        votes = found.votes_and_imputed(order)
        np.testing.assert_allclose(votes, expected[order], rtol=1e-4, atol=1e-6)
        added = found.scores(order, impute=True) - found.scores(order)
        np.testing.assert_allclose(added, votes - found.votes(order), atol=1e-5)
        np.testing.assert_allclose(found.scores(order), in_one, rtol=1e-5, atol=1e-6)
        for drug in np.flatnonzero(by_drug == 0).tolist():
            shares = found.sums_of(drug, order) / found.largest_sums(order)
            np.testing.assert_allclose(shares, votes[:, drug], rtol=1e-4, atol=1e-6)


def test_a_drug_that_treats_nothing_is_found_near_known_drugs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounds for such a drug hold, and the drug and its diseases find each other."""
    facts = planted_facts(num_drugs=24, num_diseases=30, num_genes=5)
    untried = {node("drug", i) for i in range(4)} | {node("disease", i) for i in range(8)}
    facts = [f for f in facts if f[1] != "indication" or not untried & {f[0], f[2]}]
    graph = graph_of(facts)
    gene = {(f[0].type, f[0].id): int(f[2].id) for f in facts if f[2].type == "gene/protein"}
    kinds = [graph.nodes.filter(node_type=kind)["node_id"] for kind in ("drug", "disease")]
    of_drug = np.array([gene["drug", number] for number in kinds[0]])
    of_disease = np.array([gene["disease", number] for number in kinds[1]])
    vectors = torch.randn(graph.num_nodes, 5, generator=torch.Generator().manual_seed(0)) / 4
    for kind, genes in (("drug", of_drug), ("disease", of_disease)):
        first, stop = node_range_of(graph, kind)
        vectors[np.arange(first, stop), genes] += 1

    features = MetapathFeatures(graph)
    ranker = fit_drug_ranker(graph, embeddings=vectors)
    ranker = replace(ranker, without_known=replace(ranker.without_known, weight=0.5))
    diseases = np.arange(features.num_diseases)
    every = ranker.scores(features, diseases)
    monkeypatch.setattr(best_diseases, "NUM_RIVALS", 5)
    side, unknown = DiseaseSide.of(features), features.known.toarray() == 0
    search = BestDiseases.of(ranker, side, True, None)
    log_sums = ranker.paths.log_sums(features, diseases, [Form()])[0]
    exact = BestDiseases.of(ranker, side, True, log_sums)
    for drug in range(features.num_drugs):
        bounds = search._estimates(drug) + best_diseases._MARGIN
        assert (bounds >= every[:, drug])[unknown[drug]].all()
        np.testing.assert_allclose(exact._estimates(drug), every[:, drug], rtol=1e-4, atol=1e-4)

    assert ranker.vectors is not None
    near = ranker.vectors.neighbors(features)
    assert ranker.vectors.neighbors(features) is near
    cold = np.flatnonzero(features.num_indications == 0)
    unseen = np.flatnonzero(features.column < 0)
    assert min(len(cold), len(unseen)) >= 4
    same = of_disease[unseen][:, None] == of_drug[cold]
    assert not near.votes(unseen)[:, cold].any()
    imputed = near.votes_and_imputed(unseen)[:, cold]
    assert imputed[same].mean() > 5 * imputed[~same].mean()
