"""Probabilities mean what they say, embeddings can join, files give back what was saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import graph_of, node, planted_facts

from clinical_drug_discovery.calibrate import fit_calibration
from clinical_drug_discovery.drug_ranker import DrugRanker, EmbeddingScore, fit_drug_ranker
from clinical_drug_discovery.network import join
from clinical_drug_discovery.paths import PathEvidence
from clinical_drug_discovery.ranker_file import load_ranker, save_ranker

NUM_HIDDEN = 60


@pytest.fixture(scope="module")
def fitted() -> tuple[DrugRanker, PathEvidence, PathEvidence]:
    """A ranker of half of the fitting drugs' indications, its evidence, and that of all facts."""
    facts = planted_facts(num_drugs=50, num_diseases=160, num_genes=15, chance=0.5)
    hidden = {node("disease", i) for i in range(NUM_HIDDEN)}
    some = [f for f in facts if not (f[1] == "indication" and f[2] in hidden)]
    graph = graph_of(some)
    return fit_drug_ranker(graph), PathEvidence(graph), PathEvidence(graph_of(facts))


def test_probabilities_are_calibrated_for_diseases_never_seen(
    fitted: tuple[DrugRanker, PathEvidence, PathEvidence],
) -> None:
    ranker, evidence, everything = fitted
    has = everything.known.toarray().T > 0
    asked = np.flatnonzero(has.any(axis=1) & ~(evidence.known.toarray().T > 0).any(axis=1))
    assert len(asked) > NUM_HIDDEN / 2
    scores = ranker.scores(evidence, asked)
    p, truth = ranker.probabilities(evidence, asked, scores), has[asked]
    assert p.sum() == pytest.approx(truth.sum(), rel=0.25)
    likely = p > 0.25
    assert likely.any()
    assert p[likely].mean() == pytest.approx(truth[likely].mean(), abs=0.12)
    assert p[~likely].mean() == pytest.approx(truth[~likely].mean(), abs=0.03)


def test_platts_curve_is_found_again(rng: np.random.Generator) -> None:
    scores = rng.normal(-6, 2, 20_000).astype(np.float32)
    truth = 1 / (1 + np.exp(-(1.5 * scores + 5)))
    curve = fit_calibration(scores, rng.random(len(scores)) < truth)
    assert curve.slope == pytest.approx(1.5, rel=0.1)
    np.testing.assert_allclose(curve.probability(scores), truth, atol=0.03)


def test_scores_without_meaning_or_with_a_gap_have_probabilities(rng: np.random.Generator) -> None:
    known = np.arange(100) < 10
    for scores in (np.zeros(100), known * -5.0, known * 50.0):
        p = fit_calibration(scores.astype(np.float32), known).probability(scores.astype(np.float32))
        assert ((p > 0) & (p < 1)).all()
    assert p[known].min() > 0.8 > 0.1 > p[~known].max()


def test_embeddings_join_by_their_weight(
    fitted: tuple[DrugRanker, PathEvidence, PathEvidence],
) -> None:
    ranker, evidence, _ = fitted
    generator = torch.Generator().manual_seed(0)
    sizes = evidence.num_drugs, evidence.num_diseases
    drugs, diseases = (torch.randn(n, 4, generator=generator) for n in sizes)
    asked = np.array([3, 70])
    plain = ranker.scores(evidence, asked)
    for weight in (0.0, 0.5):
        both = replace(ranker, embedding=EmbeddingScore(drugs, diseases, weight))
        logits = diseases[asked] @ drugs.T
        expected = plain + weight * torch.log_softmax(logits, dim=1).numpy()
        np.testing.assert_allclose(both.scores(evidence, asked), expected, atol=2e-4)


@pytest.mark.parametrize("with_embedding", [False, True])
def test_a_file_gives_back_the_ranker(
    fitted: tuple[DrugRanker, PathEvidence, PathEvidence], tmp_path: Path, with_embedding: bool
) -> None:
    ranker, evidence, _ = fitted
    if with_embedding:
        drugs, diseases = torch.ones(evidence.num_drugs, 2), torch.ones(evidence.num_diseases, 2)
        ranker = replace(ranker, embedding=EmbeddingScore(drugs, diseases, 0.25))
    save_ranker(tmp_path / "r.safetensors", ranker, "of a graph")
    loaded, sha256 = load_ranker(tmp_path / "r.safetensors")
    assert sha256 == "of a graph"
    asked = np.arange(5)
    scores = ranker.scores(evidence, asked)
    np.testing.assert_array_equal(loaded.scores(evidence, asked), scores)
    np.testing.assert_array_equal(
        loaded.probabilities(evidence, asked, scores),
        ranker.probabilities(evidence, asked, scores),
    )
    assert loaded.path_names == evidence.path_names
    assert (loaded.embedding is not None) == with_embedding


def test_joint_networks_are_the_networks(
    fitted: tuple[DrugRanker, PathEvidence, PathEvidence],
) -> None:
    networks = fitted[0].paths.networks
    features = torch.rand(7, len(networks[0].mean), generator=torch.Generator().manual_seed(0))
    features[:, ::3] = 0
    which = np.flatnonzero(features.any(dim=0).numpy())
    got = join(networks).log_chances(features.T[which].numpy(), which)
    for one, network in zip(got, networks, strict=True):
        with torch.no_grad():
            expected = torch.log_softmax(network(features[None])[0], dim=0)
        np.testing.assert_allclose(one, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_each_network_leaves_out_diseases_of_its_own(
    fitted: tuple[DrugRanker, PathEvidence, PathEvidence],
) -> None:
    ranker, evidence, _ = fitted
    one, other = ranker.paths.left_out
    assert len(one) == pytest.approx(len(evidence.treated) / 10, abs=1)
    assert not set(one.tolist()) & set(other.tolist())
    assert set(one.tolist()) <= set(evidence.treated.tolist())
