"""The reliability curve: of the pairs with a probability of p, how many were recorded treatments?

Only held-out pairs and unlisted pairs can be counted, and only diseases with a held-out pair are
ranked. If a fraction h of the treatments was held out at random, diseases that lost all their
treatments are left out: they have few for sure, unlike other diseases without known drugs. Each
pair gets the weight 1 / (the probability that it is counted), where k is the number of treatments
of its disease (Horvitz and Thompson, 1952):

- a held-out pair: h (1 - h^(k - 1)), since another treatment of the disease must stay
- an unlisted pair: 1 - (1 - h)^k - h^k, since some but not all treatments must be held out

The curve is thus that of the diseases with at least two treatments. A probability is that of a
treatment in the record that the ranker was fitted on, and that record lacks the fraction h. So the
share of recorded treatments is 1 - h times the share of held-out pairs. If whole diseases are held
out (h = 1), each pair counts once, since the record of other diseases is whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ...ranking.treatments import Pairs, mask_of, pairs_of, treatments
from ..metrics import Known
from ..split import RankingTask

NUM_BINS = 10
Bin = dict[str, float | int]  #: one bin of `reliability`


def reliability(
    probability: Floats,
    known: Known,
    trained: Known,
    row: IntArray,
    candidate: IntArray,
    *,
    fraction: float,
) -> list[Bin]:
    """Return ten bins of equal width; bins without pairs are left out.

    Args:
        probability: shape (n, M), from 0 to 1.
        known: shape (n, M), True for known and for held-out candidates, also those of the other
            part (validation or test), which count as if the record lacked them.
        trained: shape (n, M), True for the candidates that are known in the training graph.
        row: shape (K,), row of each held-out pair.
        candidate: shape (K,), column of each held-out pair.
        fraction: h, the fraction of the treatments that was held out.

    Returns:
        One dict per bin: `low` and `high` (its ends), `num_pairs` (held out or unlisted),
        `num_held_out`, `weight` (of all pairs), `predicted` (the mean probability) and `recorded`
        (the share of recorded treatments), both weighted.
    """
    held_out = np.zeros_like(known)
    held_out[row, candidate] = True
    num_treatments = (trained | held_out).sum(axis=1, keepdims=True)
    counted, weight, kept = held_out | ~known, np.ones(known.shape), 1.0
    if fraction < 1:
        kept = 1 - fraction
        counted &= trained.any(axis=1, keepdims=True)
        k = np.maximum(num_treatments, 2)  # rows with fewer are not counted
        of_unlisted = 1 / (1 - (1 - fraction) ** k - fraction**k)
        weight = np.where(held_out, 1 / (fraction * (1 - fraction ** (k - 1))), of_unlisted)
    p, positive, w = probability[counted].astype(float), held_out[counted], weight[counted]
    bins = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    found: list[Bin] = []
    for number in np.unique(bins).tolist():
        at = bins == number
        total = float(w[at].sum())
        found.append(
            {
                "low": number / NUM_BINS,
                "high": (number + 1) / NUM_BINS,
                "num_pairs": int(at.sum()),
                "num_held_out": int(positive[at].sum()),
                "weight": total,
                "predicted": float((w[at] * p[at]).sum()) / total,
                "recorded": kept * float(w[at][positive[at]].sum()) / total,
            }
        )
    return found


def trained_pairs(graph: KnowledgeGraph, task: RankingTask) -> Known:
    """Return which drugs treat the diseases of a task in the training graph, shape (n, M)."""
    first, _ = node_range_of(graph, graph.vocabulary.disease_type)
    return mask_of(treatments(graph), task.diseases - first)


def held_out_fraction(graph: KnowledgeGraph, trained: Known, pairs: Pairs) -> float:
    """Return the fraction of all treatments that was held out; 1 if whole diseases were held out.

    Treatments of the other part (validation or test) do not count.

    Args:
        graph: the training graph, on the CPU.
        trained: see `trained_pairs`.
        pairs: the held-out pairs that are ranked.
    """
    return len(pairs) / (len(pairs) + len(pairs_of(graph))) if trained.any() else 1.0


def pooled_reliability(curves: Sequence[Sequence[Bin]]) -> list[Bin]:
    """Pool the curves of several folds, each bin weighted by its pairs."""
    found: list[Bin] = []
    for low in sorted({one["low"] for curve in curves for one in curve}):
        same = [one for curve in curves for one in curve if one["low"] == low]
        total = float(sum(one["weight"] for one in same))
        pooled: Bin = {"low": low, "high": same[0]["high"]}
        for name in ("num_pairs", "num_held_out"):
            pooled[name] = int(sum(one[name] for one in same))
        pooled["weight"] = total
        for name in ("predicted", "recorded"):
            pooled[name] = float(sum(one[name] * one["weight"] for one in same)) / total
        found.append(pooled)
    return found
