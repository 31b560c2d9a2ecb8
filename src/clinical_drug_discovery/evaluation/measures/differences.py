"""Differences between rankers on the same pairs, with intervals."""

from __future__ import annotations

import polars as pl

from ..baselines import WALK
from ..metrics import Metrics, bootstrap_interval, pair_values

_METRICS = ("mrr", "recall@50")
_PAIR = ("disease_index", "drug_index")


def differences(ranks: pl.DataFrame, *, base: str = WALK, seed: int = 0) -> dict[str, Metrics]:
    """Return the metrics of each ranker minus those of a base ranker.

    The bootstrap resamples diseases with the ranks of both rankers. So an interval of a difference
    is much narrower than the intervals of the two rankers, if both find the same pairs easy.

    Args:
        ranks: columns `ranker`, `disease_index`, `drug_index` and `rank`; all rankers have the
            same pairs.
        base: name of the ranker to subtract.
        seed: seed of the bootstrap.

    Returns:
        For each other ranker, the difference of `mrr` and `recall@50`, and the 95% interval `_low`
        to `_high` of each. Empty if the base was not ranked.
    """
    tables = {
        str(name): rows.sort(_PAIR)
        for (name,), rows in ranks.group_by("ranker", maintain_order=True)
    }
    found: dict[str, Metrics] = {}
    if base not in tables:
        return found
    subtracted = tables.pop(base)
    cluster = subtracted["disease_index"].to_numpy()
    for name, rows in tables.items():
        assert rows.select(_PAIR).equals(subtracted.select(_PAIR)), name
        found[name] = {}
        for metric in _METRICS:
            values = pair_values(metric, rows["rank"].to_numpy())
            values = values - pair_values(metric, subtracted["rank"].to_numpy())
            low, high = bootstrap_interval(values, cluster, seed=seed)
            found[name] |= {
                metric: float(values.mean()), f"{metric}_low": low, f"{metric}_high": high
            }  # fmt: skip
    return found
