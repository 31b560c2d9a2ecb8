"""Strata of ranked pairs against plain loops."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from graphs import Fact

from clinical_drug_discovery.evaluation.measures.strata import (
    STRATA,
    known_counts,
    strata_metrics,
    stratum_name,
)
from clinical_drug_discovery.evaluation.split import split_pairs
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph


def test_counts_are_those_of_the_training_graph(facts: list[Fact], graph: KnowledgeGraph) -> None:
    split = split_pairs(graph, share=0.3, seed=1)
    ids = graph.nodes["node_id"].to_list()
    held_out = {
        (ids[a], ids[b]) for a, b in zip(split.held_out.drug, split.held_out.disease, strict=True)
    }
    treats = {(x.id, y.id) for x, relation, y in facts if relation == "indication"}
    left = treats - held_out
    counts = known_counts(split.graph, split.test)
    expected = [
        (sum(x == ids[a] for x, _ in left), sum(y == ids[b] for _, y in left))
        for a, b in zip(split.test.drug, split.test.disease, strict=True)
    ]
    assert list(zip(*counts.values(), strict=True)) == expected
    assert 0 in counts["diseases_of_drug"]


def test_each_pair_is_in_one_stratum_of_each_kind() -> None:
    numbers = np.arange(15)
    ranks = pl.DataFrame(
        {
            "ranker": ["a"] * 15 + ["b"] * 15,
            "disease_index": [*(numbers // 2), *(numbers // 2)],
            "drug_index": [*numbers, *numbers],
            "rank": [*(1.0 + numbers), *(61.0 - numbers)],
            "diseases_of_drug": [*numbers, *numbers],
            "drugs_of_disease": [*numbers, *numbers],
        }
    )
    found = strata_metrics(ranks)
    assert list(found) == ["a", "b"]
    members = {
        "diseases_of_drug": {
            "0": [0],
            "1": [1],
            "2-3": [2, 3],
            "4-8": range(4, 9),
            "9+": range(9, 15),
        },
        "drugs_of_disease": {"0": [0], "1-2": [1, 2], "3+": range(3, 15)},
    }
    for column, strata in members.items():
        assert [stratum_name(*bounds) for bounds in STRATA[column]] == list(strata)
        for name, at in strata.items():
            figures = found["b"][column][name]
            own = 61.0 - np.array(at)
            assert figures["num_pairs"] == len(own)
            assert figures["mrr"] == pytest.approx((1 / own).mean())
            assert figures["recall@50"] == pytest.approx((own <= 50).mean())
            low, high = figures["mrr_low"], figures["mrr_high"]
            assert low is not None
            assert high is not None
            assert low - 1e-9 <= (1 / own).mean() <= high + 1e-9
    none = strata_metrics(ranks.filter(pl.col("diseases_of_drug") > 0))
    assert none["a"]["diseases_of_drug"]["0"] == {
        "num_pairs": 0,
        **dict.fromkeys(("mrr", "mrr_low", "mrr_high")),
        **dict.fromkeys(("recall@50", "recall@50_low", "recall@50_high")),
    }
