"""Probabilities mean what they say, embeddings can join, files give back what was saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import graph_of, node, planted_facts

from clinical_drug_discovery.graph.knowledge_graph import node_range_of
from clinical_drug_discovery.lib._run.model_dir import load_ranker, save_ranker
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.ranking.bilinear_score import BilinearScore, GnnScores, mean_score
from clinical_drug_discovery.ranking.calibration import (
    ImputedScore,
    fit_calibration,
    fit_imputed_score,
)
from clinical_drug_discovery.ranking.drug_ranker import Blend, DrugRanker, fit_drug_ranker
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import stack_mlps

NUM_HIDDEN = 60


@pytest.fixture(scope="module")
def fitted() -> tuple[DrugRanker, MetapathFeatures, MetapathFeatures]:
    """A ranker of half of the indications, its features, and the features of all facts."""
    facts = planted_facts(num_drugs=50, num_diseases=160, num_genes=15, chance=0.5)
    hidden = {node("disease", i) for i in range(NUM_HIDDEN)}
    some = [f for f in facts if not (f[1] == "indication" and f[2] in hidden)]
    graph = graph_of(some)
    return fit_drug_ranker(graph), MetapathFeatures(graph), MetapathFeatures(graph_of(facts))


def test_probabilities_are_calibrated_for_diseases_never_seen(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    ranker, features, everything = fitted
    has = everything.known.toarray().T > 0
    asked = np.flatnonzero(has.any(axis=1) & ~(features.known.toarray().T > 0).any(axis=1))
    assert len(asked) > NUM_HIDDEN / 2
    scores = ranker.scores(features, asked)
    p, truth = ranker.probabilities(features, asked, scores), has[asked]
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


def some_score(features: MetapathFeatures, seed: int) -> BilinearScore:
    """Random vectors, and random scores of two pairs that are taken to be known."""
    generator = torch.Generator().manual_seed(seed)
    sizes = features.num_drugs, features.num_diseases
    drugs, diseases = (torch.randn(n, 4, generator=generator) for n in sizes)
    known = torch.tensor([3, 70]), torch.tensor([5, 1]), torch.randn(2, generator=generator)
    return BilinearScore(drugs, diseases, *known)


def log_softmax_of(score: BilinearScore, asked: np.ndarray) -> torch.Tensor:
    logits = score.diseases[asked] @ score.drugs.T
    logits[0, 5], logits[1, 1] = score.known_score
    return torch.log_softmax(logits, dim=1)


def test_embeddings_join_by_their_weight(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    ranker, features, _ = fitted
    asked = np.array([3, 70])
    plain, score = ranker.scores(features, asked), some_score(features, 0)
    has = [features.num_known(disease) > 0 for disease in asked.tolist()]
    assert sorted(has) == [False, True]
    both = replace(
        ranker,
        treatment_decoder=score,
        with_known=replace(ranker.with_known, weight=0.5),
        without_known=replace(ranker.without_known, weight=0.2),
    )
    weights = np.where(has, 0.5, 0.2)[:, None]
    expected = plain + weights * log_softmax_of(score, asked).numpy()
    np.testing.assert_allclose(both.scores(features, asked), expected, atol=2e-4)


def some_gnn(features: MetapathFeatures) -> BilinearScore:
    generator = torch.Generator().manual_seed(3)
    sizes = features.num_drugs, features.num_diseases
    drugs, diseases = (torch.randn(n, 4, generator=generator).half().float() for n in sizes)
    return BilinearScore(drugs, diseases)


def test_the_gnns_own_decoder_joins_where_drugs_are_known(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    """Known drugs, which it has learned, get an imputed score instead."""
    ranker, features, _ = fitted
    asked, gnn = np.array([3, 70]), some_gnn(features)
    plain = ranker.scores(features, asked)
    blend = replace(ranker.with_known, imputed=ImputedScore(0.5, -2.0))
    both = replace(ranker, gnn=gnn, with_known=blend)
    (row,) = (i for i, disease in enumerate(asked.tolist()) if features.num_known(disease))
    known = np.zeros(features.num_drugs, bool)
    known[features.known_drugs(int(asked[row]))] = True
    logits = (gnn.diseases[asked[row]] @ gnn.drugs.T).numpy()
    own = logits - np.log(np.exp(logits[~known]).mean())  # the lift over chance

    def with_own(scores: np.ndarray, weight: float) -> np.ndarray:
        added = np.where(known, 0.5 * scores[row] - 2, own)
        return np.asarray(scores + weight * added * (np.arange(2) == row)[:, None])

    np.testing.assert_allclose(both.scores(features, asked), with_own(plain, 0.2), atol=2e-4)
    score = some_score(features, 0)
    alone = replace(both, treatment_decoder=score).decoder_scores(features, asked)
    wanted = with_own(score.log_softmax(asked), 0.4)
    np.testing.assert_allclose(alone, wanted, atol=2e-4)


def test_the_imputed_score_is_a_line_through_unknown_drugs_that_rank_high(
    rng: np.random.Generator,
) -> None:
    rest = rng.normal(size=(5, 400)).astype(np.float32)
    known = rng.random(rest.shape) < 0.1
    high = rest > np.quantile(rest, 0.6)
    seen = np.where(known, 50, np.where(high, 0.7 * rest - 3, -100)).astype(np.float32)
    found = fit_imputed_score(rest, seen, known)
    assert found.slope == pytest.approx(0.7, abs=1e-3)
    assert found.intercept == pytest.approx(-3, abs=1e-3)
    assert fit_imputed_score(rest[:, :3], seen[:, :3], np.ones((5, 3), bool)).slope == 0


def test_the_mean_of_scores_ranks_as_their_log_softmax_do(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    _, features, _ = fitted
    asked, scores = np.array([3, 70]), [some_score(features, seed) for seed in (0, 1)]
    mean = torch.stack([log_softmax_of(score, asked) for score in scores]).mean(dim=0)
    expected = torch.log_softmax(mean, dim=1).numpy()
    np.testing.assert_allclose(mean_score(scores).log_softmax(asked), expected, atol=1e-5)


def test_embeddings_that_know_more_than_paths_are_listened_to() -> None:
    """Drugs treat by group, which only the embeddings show."""
    rng = np.random.default_rng(0)
    of_drug, of_disease = rng.integers(6, size=60), rng.integers(6, size=80)
    facts = [
        (node("drug", d), "indication", node("disease", s))
        for d, s in np.argwhere(of_drug[:, None] == of_disease).tolist()
        if rng.random() < 0.3
    ]
    graph = graph_of(facts)
    numbers = graph.nodes.filter(node_type="drug")["node_id"].cast(int).to_list()
    noise = torch.randn(len(numbers), 6, generator=torch.Generator().manual_seed(0))
    first, stop = node_range_of(graph, "drug")
    embeddings = torch.zeros(graph.num_nodes, 6)
    embeddings[first:stop] = torch.eye(6)[of_drug[numbers]] + 0.1 * noise
    decoder = DistMult(len(graph.relations), 6, torch.Generator().manual_seed(0))
    ranker = fit_drug_ranker(graph, gnn=GnnScores(embeddings, decoder))
    assert ranker.treatment_decoder is not None
    assert ranker.with_known.weight > 0.1
    assert fit_drug_ranker(graph).with_known.weight == 0


@pytest.mark.parametrize("with_embedding", [False, True])
def test_a_file_gives_back_the_ranker(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
    tmp_path: Path,
    with_embedding: bool,
) -> None:
    ranker, features, _ = fitted
    if with_embedding:
        ranker = replace(
            ranker,
            treatment_decoder=some_score(features, 0),
            gnn=some_gnn(features),
            with_known=Blend(0.25, ImputedScore(0.5, -2.0), ranker.with_known.calibration),
        )
    save_ranker(tmp_path / "r.safetensors", ranker, "of a graph")
    loaded, sha256, _ = load_ranker(tmp_path / "r.safetensors")
    assert sha256 == "of a graph"
    asked = np.arange(5)
    scores = ranker.scores(features, asked)
    np.testing.assert_array_equal(loaded.scores(features, asked), scores)
    np.testing.assert_array_equal(
        loaded.probabilities(features, asked, scores), ranker.probabilities(features, asked, scores)
    )
    assert loaded.feature_names == features.feature_names
    assert (loaded.treatment_decoder is not None) == with_embedding


def test_stacked_mlps_score_as_the_mlps_do(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    mlps = fitted[0].paths.mlps
    features = torch.rand(7, len(mlps[0].mean), generator=torch.Generator().manual_seed(0))
    features[:, ::3] = 0
    which = np.flatnonzero(features.any(dim=0).numpy())
    stacked = stack_mlps(mlps)
    got = stacked.log_softmax(features.T[which].numpy(), which, stacked.first_bias)
    for one, mlp in zip(got, mlps, strict=True):
        with torch.no_grad():
            expected = torch.log_softmax(mlp(features[None])[0], dim=0)
        np.testing.assert_allclose(one, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_each_mlp_leaves_out_diseases_of_its_own(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    ranker, features, _ = fitted
    one, other = ranker.paths.left_out
    assert len(one) == pytest.approx(len(features.treated) / 10, abs=1)
    assert not set(one.tolist()) & set(other.tolist())
    assert set(one.tolist()) <= set(features.treated.tolist())
