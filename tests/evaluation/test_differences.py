"""Paired differences between rankers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clinical_drug_discovery.evaluation.measures.differences import differences
from clinical_drug_discovery.evaluation.metrics import Metrics, pair_metrics


def table(**ranks: np.ndarray) -> pl.DataFrame:
    """30 diseases with 4 drugs each; the rows of each ranker are in another order."""
    parts = []
    for seed, (name, values) in enumerate(ranks.items()):
        rows = pl.DataFrame(
            {
                "ranker": [name] * 120,
                "disease_index": np.arange(120) // 4,
                "drug_index": np.arange(120),
                "rank": values,
            }
        )
        parts.append(rows.sample(fraction=1, shuffle=True, seed=seed))
    return pl.concat(parts)


def value(figures: Metrics, name: str) -> float:
    found = figures[name]
    assert found is not None
    return found


def test_pairs_are_compared_with_themselves() -> None:
    rng = np.random.default_rng(0)
    walk = np.exp(rng.normal(2, 2, 30)).repeat(4) + rng.random(120) + 1
    ranks = table(better=1 + (walk - 1) * 0.8, walk=walk, same=walk)
    found = differences(ranks)
    assert list(found) == ["better", "same"]
    assert set(found["same"].values()) == {0}
    mrr = {
        name: pair_metrics(values, np.arange(120) // 4)
        for name, values in (("better", 1 + (walk - 1) * 0.8), ("walk", walk))
    }
    gain = value(found["better"], "mrr")
    assert gain == pytest.approx((1 / (1 + (walk - 1) * 0.8)).mean() - (1 / walk).mean())
    # A small gain on each pair is certain, although each figure alone is not.
    assert 0 < value(found["better"], "mrr_low") < gain < value(found["better"], "mrr_high")
    assert value(mrr["better"], "mrr_low") < value(mrr["walk"], "mrr")


def test_without_the_walk_nothing_is_subtracted() -> None:
    ranks = table(one=np.ones(120), two=np.arange(120) + 1.0)
    assert differences(ranks) == {}
    assert value(differences(ranks, base="one")["two"], "mrr") < 0
