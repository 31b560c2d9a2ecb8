"""Areas under curves of a pool of rows, and of rows drawn again, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from clinical_drug_discovery.evaluation.metrics import pool_rows, ranking_metrics


@pytest.mark.parametrize("seed", range(4))
def test_areas_of_drawn_rows(seed: int) -> None:
    """Few distinct scores, so that many tie; a row without negatives, rows that are not drawn."""
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


def test_intervals_hold_what_they_are_of() -> None:
    rng = np.random.default_rng(0)
    known = rng.random((60, 200)) < 0.03
    row, candidate = np.nonzero(known)
    metrics = ranking_metrics(rng.random(known.shape) + 0.5 * known, known, row, candidate)
    for name in ("mrr", "hits@10", "recall@50", "auroc", "auprc", "balanced_auprc"):
        low, value, high = (metrics[name + end] for end in ("_low", "", "_high"))
        assert 0 <= low < value < high <= 1, name  # type: ignore[operator]  # never None here
