"""Probabilities mean what they say, embeddings join, files give back what was saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import graph_of, node, planted_facts

from clinical_drug_discovery.evaluation.measures.reliability import reliability
from clinical_drug_discovery.ranking.calibration import (
    ImputedScore,
    fit_calibration,
    fit_imputed_score,
)
from clinical_drug_discovery.ranking.drug_ranker import DIGITS, DrugRanker, Vectors, fit_drug_ranker
from clinical_drug_discovery.ranking.listwise_examples import feature_scales, sample_examples
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_scores import Form, Weights, gelu, popular, stack_mlps
from clinical_drug_discovery.ranking.score_mlp import ScoreMlp
from clinical_drug_discovery.ranking.stored.ranker_file import load_ranker, save_ranker

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
    p, truth = ranker.probabilities(features, asked, scores)[0], has[asked]
    assert p.sum() == pytest.approx(truth.sum(), rel=0.25)
    likely = p > 0.25
    assert likely.any()
    assert p[likely].mean() == pytest.approx(truth[likely].mean(), abs=0.12)
    assert p[~likely].mean() == pytest.approx(truth[~likely].mean(), abs=0.03)


def test_probabilities_are_calibrated_for_single_pairs_never_seen() -> None:
    facts = planted_facts(num_drugs=100, num_diseases=200, num_genes=10, chance=0.5)
    rng, share = np.random.default_rng(0), 0.2
    graph = graph_of([f for f in facts if f[1] != "indication" or rng.random() > share])
    features, everything = MetapathFeatures(graph), MetapathFeatures(graph_of(facts))
    hidden = everything.known.toarray().T - features.known.toarray().T > 0
    asked = np.flatnonzero(hidden.any(axis=1))
    known = everything.known[:, asked].toarray().T > 0
    row, drug = np.nonzero(hidden[asked])
    assert len(row) > 100
    ranker = fit_drug_ranker(graph)
    p, _ = ranker.probabilities(features, asked, ranker.scores(features, asked))
    bins = reliability(p, known, known & ~hidden[asked], row, drug, fraction=share)
    large = [one for one in bins if one["num_held_out"] > 50]
    assert max(one["predicted"] for one in large) > 0.3  # the planted chance is 0.5
    for one in large:
        assert one["recorded"] == pytest.approx(one["predicted"], abs=0.1)


def test_a_rising_curve_is_found_again(rng: np.random.Generator) -> None:
    scores = rng.normal(-6, 2, 50_000).astype(np.float32)
    truth = 0.7 / (1 + np.exp(-(1.5 * scores + 5)))  # three tenths of the treatments are missing
    curve = fit_calibration(scores, rng.random(len(scores)) < truth)
    probability = curve.probability(scores)
    for low in np.arange(0, 1, 0.1):
        some = (probability >= low) & (probability < low + 0.1)
        if some.sum() >= 1000:
            assert probability[some].mean() == pytest.approx(truth[some].mean(), abs=0.03)
    assert curve.recorded_share == pytest.approx(0.7, abs=0.12)
    np.testing.assert_allclose(
        curve.probability_treats(scores), np.minimum(probability / curve.recorded_share, 1)
    )
    assert (np.diff(curve.probability(np.sort(scores))) >= 0).all()


def test_a_sample_of_known_pairs_gives_the_curve_of_all(rng: np.random.Generator) -> None:
    scores = rng.normal(-6, 2, 200_000).astype(np.float32)
    truth = 0.8 / (1 + np.exp(-(1.5 * scores + 5)))
    known = rng.random(len(scores)) < truth
    sampled = known & (rng.random(len(scores)) < 0.2)
    counted = sampled | ~known
    curve = fit_calibration(scores[counted], sampled[counted], 5.0)
    probability = curve.probability(scores)
    for low in np.arange(0, 0.8, 0.1):
        some = (probability >= low) & (probability < low + 0.1)
        assert probability[some].mean() == pytest.approx(truth[some].mean(), abs=0.05)
    assert curve.recorded_share == pytest.approx(0.8, abs=0.1)


def test_a_curve_moves_to_other_scores(rng: np.random.Generator) -> None:
    """Pairs keep their probability if the other scores rank them alike, however they spread."""
    scores = rng.normal(-6, 2, 20_000).astype(np.float32)
    curve = fit_calibration(scores, rng.random(len(scores)) < 1 / (1 + np.exp(-scores - 3)))
    others = (np.exp(scores / 4) * 3 + 1).astype(np.float32)
    moved = curve.moved(scores, others)
    np.testing.assert_allclose(moved.probability(others), curve.probability(scores), atol=0.05)
    noise = rng.permutation(others)  # in another order, as many pairs have each probability
    np.testing.assert_allclose(
        np.sort(curve.moved(scores, noise).probability(noise)),
        np.sort(curve.probability(scores)),
        atol=0.05,
    )


def test_scores_without_meaning_or_with_a_gap_have_probabilities(rng: np.random.Generator) -> None:
    known = np.arange(100) < 10
    for scores in (np.zeros(100), known * -5.0, known * 50.0):
        p = fit_calibration(scores.astype(np.float32), known).probability(scores.astype(np.float32))
        assert ((p > 0) & (p < 1)).all()
        if not scores.any() or scores.min() < 0:  # no meaning, or the wrong way round
            assert p == pytest.approx(0.1, abs=0.02)
    assert p[known].min() > 0.7 > 0.1 > p[~known].max()


def some_vectors(features: MetapathFeatures, seed: int) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    sizes = features.num_drugs, features.num_diseases
    rows = (torch.randn(n, 4, generator=generator) for n in sizes)
    return Vectors(*(torch.nn.functional.normalize(x, dim=1).half().numpy() for x in rows))


def test_neighbors_in_the_embeddings_join(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    """Known drugs, which the embeddings have memorized, get an imputed score instead."""
    ranker, features, _ = fitted
    asked, vectors = np.array([3, 70]), some_vectors(features, 0)
    known = features.known.toarray().T[asked] > 0
    assert sorted(known.any(axis=1)) == [False, True]
    line = ImputedScore(0.5, -2.0)
    both = replace(
        ranker,
        vectors=vectors,
        with_known=replace(ranker.with_known, weight=0.5, imputed=line),
        without_known=replace(ranker.without_known, weight=0.2),
    )
    for popularity in (True, False):
        plain = ranker.paths.scores(features, asked, popularity=popularity)
        near = vectors.neighbors(features).scores(asked, impute=True)
        part = np.log(near / near.max(axis=1, keepdims=True) + 1e-3)
        weights = np.where(known.any(axis=1), 0.5, 0.2)[:, None]
        expected = plain + weights * np.where(known, 0.5 * plain - 2, part)
        found = both.scores(features, asked, popularity=popularity)
        np.testing.assert_allclose(found, expected, atol=2e-4)


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
            vectors=some_vectors(features, 0),
            with_known=replace(ranker.with_known, imputed=ImputedScore(0.5, -2.0)),
        )
    save_ranker(tmp_path / "r.safetensors", ranker, "of a graph")
    loaded, sha256, _ = load_ranker(tmp_path / "r.safetensors")
    assert sha256 == "of a graph"
    asked = np.arange(5)
    scores = ranker.scores(features, asked)
    np.testing.assert_array_equal(loaded.scores(features, asked), scores)
    for popularity in (True, False):
        np.testing.assert_array_equal(
            loaded.probabilities(features, asked, scores, popularity=popularity),
            ranker.probabilities(features, asked, scores, popularity=popularity),
        )
    assert loaded.feature_names == features.feature_names
    assert loaded.popularity_names == features.popularity_names
    assert (loaded.vectors is not None) == with_embedding


def mlp_of(weights: Weights) -> ScoreMlp:
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    sizes = weights["popular_first.weight"].shape[1], len(weights["first.bias"])
    mlp = ScoreMlp(tensors["mean"], tensors["std"], *sizes)
    mlp.load_state_dict(tensors)
    return mlp


def test_the_activation_is_that_of_torch() -> None:
    x = np.linspace(-12, 12, 50_001, dtype=np.float32)
    wanted = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(gelu(x.copy()), wanted, rtol=2e-7, atol=1e-6)


def test_stacked_mlps_score_as_the_mlps_do(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    weights = fitted[0].paths.mlps
    mlps = [mlp_of(one) for one in weights]
    features = torch.rand(7, len(mlps[0].mean), generator=torch.Generator().manual_seed(0))
    features[:, ::3] = 0
    which = np.flatnonzero(features.any(dim=0).numpy())
    stacked = stack_mlps(weights)
    got = stacked.scores(features.T[which].numpy(), which, stacked.first_bias)
    nothing = torch.zeros(7), torch.zeros(7, mlps[0].popular_first.weight.shape[1])
    for one, mlp in zip(got, mlps, strict=True):
        with torch.no_grad():
            expected = mlp(features[None], *nothing)[0] - mlp.popular(nothing[1])
        np.testing.assert_allclose(one, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_many_diseases_have_the_scores_of_few(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    ranker, features, _ = fitted
    asked = np.arange(40)
    many, few = (ranker.scores(features, asked, many=many) for many in (True, False))
    np.testing.assert_allclose(many, few, atol=1.5 * 10.0**-DIGITS)


def test_contraindicated_drugs_are_always_negatives() -> None:
    facts = planted_facts(num_drugs=50, num_diseases=120, num_genes=15, chance=0.5)
    rng = np.random.default_rng(0)
    treats = [f for f in facts if f[1] == "indication"]
    harmful = [treats[i] for i in rng.choice(len(treats), len(treats) // 3, replace=False)]
    rest = [f for f in facts if f not in set(harmful)]
    graph = graph_of([*rest, *((a, "contraindication", b) for a, _, b in harmful)])
    features = MetapathFeatures(graph)
    counts = [len(features.contraindicated_drugs(s)) for s in features.treated.tolist()]
    asked = int(features.treated[np.argmax(counts)])
    drugs = features.contraindicated_drugs(asked)
    assert len(drugs)
    assert not set(drugs.tolist()) & set(features.known_drugs(asked).tolist())
    examples = sample_examples(features, feature_scales(features)[0], seed=0)
    (example,) = (one for one in examples if one.disease == asked)
    negatives = slice(example.num_positives, example.num_positives + len(drugs))
    assert (example.log_probability[negatives] == 0).all()  # always among the negatives


def test_popularity_can_be_left_out(
    fitted: tuple[DrugRanker, MetapathFeatures, MetapathFeatures],
) -> None:
    ranker, features, _ = fitted
    disease = int(features.treated[0])
    asked = np.array([disease])
    for n, weights in enumerate(ranker.paths.mlps):
        forms = [Form(popularity=True), Form(popularity=False)]
        both = [scores[0, n] for scores in ranker.paths.scores_by_mlp(features, asked, forms)]
        of_drugs = features.popularity(disease)
        with torch.no_grad():
            added = mlp_of(weights).popular(torch.from_numpy(of_drugs.T)).numpy()
        np.testing.assert_allclose(popular(weights, of_drugs), added, rtol=1e-4, atol=1e-5)
        difference = both[0] - both[1] - added
        np.testing.assert_allclose(difference, difference[0], atol=1e-4)  # the softmax's constant
        assert np.ptp(added) > 0.1
