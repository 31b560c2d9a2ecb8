"""Ranks and metrics against plain loops, areas under curves against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.evaluation.metrics import (
    Known,
    average_precision,
    bootstrap_interval,
    filtered_ranks,
    pair_metrics,
    pool_rows,
    ranking_metrics,
    top_entropy,
)
from clinical_drug_discovery.system.errors import InputError

Case = tuple[Scores, Known, np.ndarray, np.ndarray]


def random_case(seed: int, num_rows: int = 9, num_candidates: int = 70) -> Case:
    """Few distinct scores, so that many tie; some rows without a held-out pair."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-3, 4, (num_rows, num_candidates)) / 8).astype(np.float32)
    known = rng.random(scores.shape) < 0.2
    row, candidate = np.nonzero(known & (rng.random(scores.shape) < 0.3))
    kept = row != 4
    shuffled = rng.permutation(int(kept.sum()))
    return scores, known, row[kept][shuffled], candidate[kept][shuffled]


def rivals(case: Case, i: int) -> list[int]:
    """Candidates of a row that are neither known nor held out."""
    scores, known, row, candidate = case
    held_out = set(candidate[row == i].tolist())
    return [j for j in range(scores.shape[1]) if not known[i, j] and j not in held_out]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_against_loops(seed: int) -> None:
    case = scores, known, row, candidate = random_case(seed)
    expected = []
    for i, j in zip(row.tolist(), candidate.tolist(), strict=True):
        greater = sum(bool(scores[i, k] > scores[i, j]) for k in rivals(case, i))
        equal = sum(bool(scores[i, k] == scores[i, j]) for k in rivals(case, i))
        expected.append(1 + greater + equal / 2)
    ranks = filtered_ranks(*case)
    np.testing.assert_array_equal(ranks, expected)
    assert len(set(expected)) > 5
    # It does not matter whether the held-out pairs themselves are marked as known.
    unmarked = known.copy()
    unmarked[row, candidate] = False
    np.testing.assert_array_equal(filtered_ranks(scores, unmarked, row, candidate), ranks)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_depend_on_the_order_only(seed: int) -> None:
    scores, known, row, candidate = random_case(seed)
    ranks = filtered_ranks(scores, known, row, candidate)
    per_row = np.exp(scores.astype(np.float64) * 3) + np.linspace(0, 5, len(scores))[:, None]
    np.testing.assert_array_equal(filtered_ranks(per_row, known, row, candidate), ranks)
    new = np.random.default_rng(seed).permutation(scores.shape[1])
    moved = np.argsort(new)[candidate]
    np.testing.assert_array_equal(filtered_ranks(scores[:, new], known[:, new], row, moved), ranks)
    # The scores of known drugs do not matter.
    others = known.copy()
    others[row, candidate] = False
    np.testing.assert_array_equal(
        filtered_ranks(np.where(others, np.float32(99), scores), known, row, candidate), ranks
    )


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_without_ties_is_that_of_scikit_learn(seed: int) -> None:
    _, known, row, candidate = random_case(seed)
    scores = np.random.default_rng(seed).permutation(known.size).reshape(known.shape) / 7.0
    case = scores, known, row, candidate
    expected = []
    for i in sorted(set(row.tolist())):
        mine = scores[i, candidate[row == i]]
        listed = np.concatenate([mine, scores[i, rivals(case, i)]])
        expected.append(average_precision_score(np.arange(len(listed)) < len(mine), listed))
    ranks = filtered_ranks(*case)
    np.testing.assert_allclose(average_precision(ranks, row), expected)
    metrics = pair_metrics(ranks, row)
    assert metrics["map"] == pytest.approx(np.mean(expected))
    # Two lists of one disease are two lists, and one sample of the bootstrap.
    twice = pair_metrics(np.r_[ranks, ranks], np.r_[row, row], ranking=np.r_[row, row + 99])
    assert twice == pytest.approx(metrics)


def test_a_constant_score_is_chance() -> None:
    _, known, row, candidate = case = random_case(0)
    ranks = filtered_ranks(np.ones(known.shape), known, row, candidate)
    middle = [1 + len(rivals(case, i)) / 2 for i in row.tolist()]
    np.testing.assert_array_equal(ranks, middle)
    metrics = ranking_metrics(np.ones(known.shape), known, row, candidate)
    assert metrics["auroc"] == metrics["balanced_auroc"] == metrics["balanced_auprc"] == 0.5
    assert metrics["hits@10"] == 0


def test_nothing_to_compare_with() -> None:
    one = np.zeros(1, np.int64)
    for scores, known in (
        (np.ones((1, 1)), np.ones((1, 1), bool)),  # a single candidate
        (np.ones((1, 7)), np.ones((1, 7), bool)),  # all are known
    ):
        assert filtered_ranks(scores, known, one, one).tolist() == [1]
        metrics = ranking_metrics(scores, known, one, one)
        assert metrics["mrr"] == metrics["hits@10"] == metrics["mrr_low"] == 1
        for name in ("auroc", "auprc", "balanced_auroc", "balanced_auprc"):
            assert metrics[name] is None
        assert metrics["entropy@50"] == 0
    assert ranking_metrics(np.ones((1, 1)), known[:, :1], one, one)["normalized_entropy@50"] is None


@pytest.mark.parametrize("seed", range(3))
def test_metrics_against_loops(seed: int) -> None:
    case = scores, _, row, candidate = random_case(seed, num_candidates=300)
    metrics = ranking_metrics(*case, seed=1)
    ranks = filtered_ranks(*case)
    assert metrics["mrr"] == pytest.approx(sum(1 / ranks) / len(ranks))
    for name, most in (("hits@10", 10), ("recall@50", 50), ("recall@100", 100)):
        assert metrics[name] == pytest.approx(sum(rank <= most for rank in ranks) / len(ranks))
    truth, pooled = [], []
    for i in sorted(set(row.tolist())):
        for j in rivals(case, i):
            truth.append(False)
            pooled.append(scores[i, j])
    negatives = np.array(pooled)
    truth += [True] * len(row)
    pooled += scores[row, candidate].tolist()
    assert metrics["auroc"] == pytest.approx(roc_auc_score(truth, pooled))
    assert metrics["auprc"] == pytest.approx(average_precision_score(truth, pooled))
    above = [(negatives < s).mean() + (negatives == s).mean() / 2 for s in scores[row, candidate]]
    assert metrics["auroc"] == pytest.approx(np.mean(above))
    assert (metrics["num_pairs"], metrics["num_diseases"]) == (len(row), len(set(row.tolist())))
    assert metrics["num_diseases"] == 8
    assert metrics["num_candidates"] == 300
    assert metrics["mrr_low"] < metrics["mrr"] < metrics["mrr_high"]  # type: ignore[operator]  # never None
    assert ranking_metrics(*case, seed=1) == metrics != ranking_metrics(*case, seed=2)


def test_the_order_of_the_pairs_does_not_matter() -> None:
    scores, known, row, candidate = random_case(3)
    order = np.lexsort((candidate, row))
    sorted_ = ranking_metrics(scores, known, row[order], candidate[order])
    for name, value in ranking_metrics(scores, known, row, candidate).items():
        assert value == pytest.approx(sorted_[name]), name


def test_balanced_negatives_come_from_the_same_row() -> None:
    # Row 0 scores all near 0 and row 1 all near 10: only within a row are positives better.
    rng = np.random.default_rng(0)
    scores = rng.random((2, 500)) + np.array([[0], [10]])
    scores[:, :100] += 2
    known = np.zeros(scores.shape, bool)
    row, candidate = np.repeat([0, 1], [90, 10]), np.r_[:90, :10]
    metrics = ranking_metrics(scores, known, row, candidate)
    # If negatives came from random rows, nearly half of them would rank above all of row 0.
    assert metrics["balanced_auroc"] > 0.8  # type: ignore[operator]  # never None here
    assert metrics["auroc"] < 0.6  # type: ignore[operator]  # never None here


def test_perfect_scores() -> None:
    scores, known, row, candidate = random_case(1)
    best = scores.copy()
    best[row, candidate] = 5
    metrics = ranking_metrics(best, known, row, candidate)
    for name in ("mrr", "hits@10", "auroc", "auprc", "balanced_auroc", "balanced_auprc"):
        assert metrics[name] == 1


def test_entropy_of_the_top_positions() -> None:
    row = np.arange(4)
    known = np.zeros((4, 40), bool)
    same = np.tile(np.arange(40.0), (4, 1))
    entropy, share = top_entropy(same, known, row, row, top=5)
    assert entropy == pytest.approx(math.log(5))
    assert share == pytest.approx(math.log(5) / math.log(40))
    apart = np.stack([np.roll(same[0], 10 * i) for i in range(4)])
    assert top_entropy(apart, known, row, row, top=10) == pytest.approx((math.log(40), 1))
    # All tie: every candidate gets the same fraction of the positions.
    assert top_entropy(np.ones((4, 40)), known, row, row, top=5)[1] == pytest.approx(1)
    # Known candidates are not ranked; held-out ones are.
    known[:, 35:] = True
    assert top_entropy(same, known, row, np.full(4, 39), top=1)[0] == 0
    assert top_entropy(same, known, row, row + 35, top=1)[0] == pytest.approx(math.log(4))


def test_bootstrap_draws_clusters() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(200), 5)
    values = np.repeat(rng.normal(3, 1, 200), 5)  # five equal values in each cluster
    low, high = bootstrap_interval(values, cluster, seed=1)
    error = values[::5].std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 3)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 3)
    assert bootstrap_interval(values, cluster, seed=1) == (low, high)
    assert bootstrap_interval(values, cluster, seed=2) != (low, high)
    # Cluster numbers are only names, and the mean is over pairs, not over cluster means.
    assert bootstrap_interval(values, 7 * cluster + 3, seed=1) == (low, high)
    mean = bootstrap_interval(np.array([0.0, 0, 1]), np.array([4, 4, 4]))
    assert mean == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    scores, known, row, candidate = random_case(0)
    scores[2, 5] = bad
    for function in (filtered_ranks, ranking_metrics, top_entropy):
        with pytest.raises(InputError, match=rf"scores \(got {bad} at row 2, column 5\)"):
            function(scores, known, row, candidate)


def test_faults() -> None:
    scores, known, row, candidate = random_case(0)
    for arguments, text in (
        ((scores[:, 1:], known, row, candidate), "scores"),
        ((scores, known.astype(np.int8), row, candidate), "known"),
        ((scores, known, row[1:], candidate), "row"),
        ((scores, known, row - 1, candidate), "row"),
        ((scores, known, row, candidate + 70), "candidate"),
        ((scores, known, row[:0], candidate[:0]), "no pairs"),
    ):
        with pytest.raises(InputError, match=text):
            ranking_metrics(*arguments)


@pytest.mark.parametrize("seed", range(4))
def test_areas_of_drawn_rows(seed: int) -> None:
    """Few distinct scores give many ties; one row has no negatives, some rows are not sampled."""
    rng = np.random.default_rng(seed)
    positives = [rng.integers(0, 6, rng.integers(1, 5)) / 4 for _ in range(7)]
    negatives = [rng.integers(-2, 5, size) / 4 for size in (9, 30, 0, 12, 5, 40, 21)]
    weights = rng.multinomial(7, np.full(7, 1 / 7), 20).astype(float)
    roc, precision = pool_rows(positives, negatives).areas(weights)
    truth = np.repeat([True, False], [sum(map(len, part)) for part in (positives, negatives)])
    scores = np.concatenate([*positives, *negatives])
    rows = np.concatenate([np.repeat(range(7), list(map(len, p))) for p in (positives, negatives)])
    for drawn, *areas in zip(weights, roc, precision, strict=True):
        for area, oracle in zip(areas, (roc_auc_score, average_precision_score), strict=True):
            assert area == pytest.approx(oracle(truth, scores, sample_weight=drawn[rows]))


def test_intervals_contain_their_metric() -> None:
    rng = np.random.default_rng(0)
    known = rng.random((60, 200)) < 0.03
    row, candidate = np.nonzero(known)
    metrics = ranking_metrics(rng.random(known.shape) + 0.5 * known, known, row, candidate)
    for name in ("mrr", "hits@10", "recall@50", "auroc", "auprc", "balanced_auprc"):
        low, value, high = (metrics[name + end] for end in ("_low", "", "_high"))
        assert 0 <= low < value < high <= 1, name  # type: ignore[operator]  # never None here
