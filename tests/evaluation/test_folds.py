"""Folds: each eligible pair, disease or area is held out once, and all ranks are pooled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from graphs import Fact, node, planted_facts, read_facts

from clinical_drug_discovery.evaluation.folds import (
    Fold,
    graph_fingerprint,
    pooled_rankers,
    pooled_relations,
)
from clinical_drug_discovery.evaluation.metrics import pair_metrics
from clinical_drug_discovery.evaluation.split import (
    Split,
    leak_count,
    split_areas,
    split_diseases,
    split_pairs,
)
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ranking.treatments import pairs_of
from clinical_drug_discovery.system.errors import InputError

SPLITS: dict[str, Callable[..., Split]] = {
    "pair": split_pairs,
    "disease": partial(split_diseases, min_drugs=2, max_drugs=7),
    "area": partial(split_areas, min_drugs=1, max_hops=1),
}


@pytest.fixture
def facts() -> list[Fact]:
    chain = [(node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(39)]
    return planted_facts() + chain


@pytest.mark.parametrize("name", SPLITS)
def test_every_eligible_pair_is_held_out_once(graph: KnowledgeGraph, name: str) -> None:
    known = pairs_of(graph)
    diseases, num_drugs = np.unique(known.disease, return_counts=True)
    eligible = diseases[(num_drugs >= 2) & (num_drugs <= 7)] if name == "disease" else diseases
    expected = known.select(np.isin(known.disease, eligible))
    seen: list[tuple[int, int]] = []
    sizes = []
    for number in range(1, 5):
        split = SPLITS[name](graph, seed=3, validation_share=0.0, fold=Fold(number, 4))
        assert not len(split.validation)
        assert leak_count(split.graph, split.test.drug, split.test.disease) == 0
        # The pairs that a training graph knows, and draws negatives with, lack the held-out ones.
        assert len(pairs_of(split.graph)) == len(known) - len(split.test)
        seen += zip(split.test.drug.tolist(), split.test.disease.tolist(), strict=True)
        sizes.append(len(split.test.diseases))
    assert len(seen) == len(set(seen)) == len(expected)
    assert set(seen) == set(zip(expected.drug.tolist(), expected.disease.tolist(), strict=True))
    if name == "disease":
        assert max(sizes) - min(sizes) <= 1
    other = SPLITS[name](graph, seed=4, validation_share=0.0, fold=Fold(1, 4))
    assert set(zip(other.test.drug, other.test.disease, strict=True)) != set(
        seen[: len(other.test)]
    )


def test_too_many_folds_are_refused(graph: KnowledgeGraph) -> None:
    with pytest.raises(InputError, match=r"folds \(got 41\) must be at most \d+, the number of"):
        SPLITS["disease"](graph, seed=0, fold=Fold(1, 41))


def test_another_graph_has_another_fingerprint(tmp_path: Path, facts: list[Fact]) -> None:
    first = graph_fingerprint(read_facts(tmp_path, facts))
    assert graph_fingerprint(read_facts(tmp_path, facts)) == first
    others = [facts[1:], [*facts[1:], (facts[0][0], "other", facts[0][2])]]
    others.append(
        [(x._replace(name=x.name + "!"), r, y._replace(name=y.name + "!")) for x, r, y in facts]
    )
    assert first not in {graph_fingerprint(read_facts(tmp_path, some)) for some in others}


def test_ranks_are_pooled_and_the_other_figures_are_means() -> None:
    rng = np.random.default_rng(0)
    ranks = pl.DataFrame(
        {
            "ranker": ["walk"] * 40,
            "disease_index": rng.integers(0, 8, 40),  # a disease may be in both folds
            "drug_index": np.arange(40),
            "rank": rng.integers(1, 200, 40).astype(float),
            "fold": [1] * 15 + [2] * 25,
        }
    )
    reports = []
    for fold, auroc in ((1, 0.5), (2, 0.7)):
        rows = ranks.filter(fold=fold)
        of_fold = pair_metrics(rows["rank"].to_numpy(), rows["disease_index"].to_numpy())
        more = {
            "auroc": auroc, "auroc_low": 0.4, "contraindicated_auroc": None if fold == 1 else 0.9,
            "num_contraindicated_pairs": fold, "num_candidates": 60,
        }  # fmt: skip
        relation = {
            "source_type": "drug", "relation": "indication", "target_type": "disease",
            "num_targets": 10 * fold, "num_candidates": 40, "mrr": auroc, "mrr_low": 0.1,
        }  # fmt: skip
        reports.append({"rankers": {"walk": {**of_fold, **more}}, "relations": [relation]})
    found = pooled_rankers(reports, ranks, seed=0)["walk"]
    values = 1 / ranks["rank"].to_numpy()
    assert found["mrr"] == pytest.approx(values.mean())
    low, high = found["mrr_low"], found["mrr_high"]
    assert low is not None
    assert high is not None
    assert low < values.mean() < high
    lists = ranks.partition_by("fold", "disease_index")
    precision = [
        np.mean([(k + 1) / (rank + k) for k, rank in enumerate(sorted(rows["rank"]))])
        for rows in lists
    ]
    assert found["map"] == pytest.approx(np.mean(precision))
    assert found["auroc"] == pytest.approx(0.6)
    assert "auroc_low" not in found
    assert found["contraindicated_auroc"] == 0.9
    assert found["num_contraindicated_pairs"] == 3
    assert found["num_pairs"] == 40
    assert found["num_diseases"] == ranks["disease_index"].n_unique()
    (relation,) = pooled_relations(reports)
    assert relation == {
        "source_type": "drug", "relation": "indication", "target_type": "disease",
        "num_targets": 30, "num_candidates": 40, "mrr": pytest.approx(0.6),
    }  # fmt: skip
