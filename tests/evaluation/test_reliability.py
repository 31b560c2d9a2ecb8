"""The reliability curve finds the probabilities that made the pairs."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_drug_discovery.evaluation.measures.reliability import pooled_reliability, reliability


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_true_probabilities_lie_on_the_diagonal(rng: np.random.Generator, fraction: float) -> None:
    """Some treatments are hidden; only diseases with a hidden one are seen.

    The rest of the record has fewer treatments, and the ranker knows the probabilities in that.
    """
    curves, kept = [], 1 - fraction if fraction < 1 else 1
    for _ in range(4):
        probability = rng.beta(0.3, 3, size=(400, 300)).astype(np.float32)
        treats = rng.random(probability.shape) < probability
        hidden = treats & (rng.random(treats.shape) < fraction)
        asked = np.flatnonzero(hidden.any(axis=1))
        row, candidate = np.nonzero(hidden[asked])
        known, trained = treats[asked], (treats & ~hidden)[asked]
        curves.append(
            reliability(
                kept * probability[asked], known, trained, row, candidate, fraction=fraction
            )
        )
    pooled = pooled_reliability(curves)
    assert len(pooled) >= 7
    for one in pooled:
        assert one["low"] <= one["predicted"] <= one["high"]
        if one["num_pairs"] >= 1000:
            # Listed pairs are not counted, so the mean of a wide bin moves slightly.
            assert one["recorded"] == pytest.approx(one["predicted"], abs=0.05)
    for name in ("num_held_out", "num_pairs"):
        assert sum(one[name] for one in pooled) == sum(o[name] for curve in curves for o in curve)


@pytest.mark.parametrize("other_part", [0.0, 0.3])
@pytest.mark.parametrize("fraction", [1 / 6, 0.5])
def test_weights_count_every_pair_once_on_average(
    rng: np.random.Generator, fraction: float, other_part: float
) -> None:
    """Many diseases have one, two or three treatments; those with one are never counted.

    Treatments of the validation part count as if the record lacked them.
    """
    treats = np.arange(20) < rng.integers(1, 4, size=(300, 1))
    probability = rng.random(treats.shape, np.float32)
    weights, positives, wanted = [], [], []
    for _ in range(200):
        other = treats & (rng.random(treats.shape) < other_part)
        left = treats & ~other
        hidden = left & (rng.random(treats.shape) < fraction)
        asked = np.flatnonzero(hidden.any(axis=1))
        row, candidate = np.nonzero(hidden[asked])
        masks = treats[asked], (left & ~hidden)[asked]
        curve = reliability(probability[asked], *masks, row, candidate, fraction=fraction)
        weights.append(sum(one["weight"] for one in curve))
        positives.append(sum(one["weight"] * one["recorded"] for one in curve))
        several = left.sum(axis=1) > 1
        wanted.append(((1 - fraction) * left[several].sum(), (~other)[several].sum()))
    counted, size = np.mean(wanted, axis=0)
    assert np.mean(positives) == pytest.approx(counted, rel=0.03)
    assert np.mean(weights) == pytest.approx(size, rel=0.03)


def test_wrong_probabilities_leave_the_diagonal(rng: np.random.Generator) -> None:
    probability = np.full((50, 100), 0.55, np.float32)
    treats = rng.random(probability.shape) < 0.2
    row, candidate = np.nonzero(treats)
    trained = np.zeros_like(treats)
    (one,) = reliability(probability, treats, trained, row, candidate, fraction=1.0)
    assert one["predicted"] == pytest.approx(0.55)
    assert one["recorded"] == pytest.approx(0.2, abs=0.03)
    assert one["num_pairs"] == probability.size
