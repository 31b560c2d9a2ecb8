"""Where known contraindications rank: counted by hand, and left out where they say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, graph_of, node

from clinical_drug_discovery.evaluation.measures.contraindications import (
    contraindicated_drugs,
    contraindication_metrics,
)
from clinical_drug_discovery.evaluation.split import RankingTask, ranking_task, split_pairs
from clinical_drug_discovery.graph.knowledge_graph import node_range_of


def test_the_figures_are_those_counted_by_hand() -> None:
    # Two diseases, six drugs. Drug 0 treats both diseases and drug 5 treats the first.
    known = np.zeros((2, 6), bool)
    known[:, 0] = known[0, 5] = True
    task = RankingTask(np.array([10, 11]), known, np.array([0, 1]), np.array([0, 0]))
    scores = np.array([[5.0, 9.0, 1.0, 2.0, 3.0, 99.0], [4.0, 0.0, 4.0, 3.0, 2.0, 1.0]])
    row, column = np.array([0, 0, 1]), np.array([1, 2, 2])
    found = contraindication_metrics(scores, task, row, column)
    # Disease 10: drugs 3 and 4 are compared with; drug 1 is above both, drug 2 below both.
    # Disease 11: drugs 1, 3, 4 and 5 are compared with; drug 2 is above all of them.
    fractions = [0 / 2, 2 / 2, 0 / 4]
    assert found == {
        "contraindicated_rank_fraction": np.median(fractions),
        "contraindicated@50": 1.0,
        # Drug 0 scores above one of two in disease 10, and the same as the only one in disease 11.
        "contraindicated_auroc": (1 / 2 + 1 / 2) / 2,
        "num_contraindicated_pairs": 3,
        "num_contraindicated_diseases": 2,
    }


def test_without_contraindications_the_figures_are_none() -> None:
    none = np.array([], np.int64)
    task = RankingTask(np.array([3]), np.zeros((1, 2), bool), np.array([0]), np.array([1]))
    found = contraindication_metrics(np.zeros((1, 2)), task, none, none)
    assert [found[name] for name in list(found)[:3]] == [None, None, None]
    assert found["num_contraindicated_pairs"] == found["num_contraindicated_diseases"] == 0


@pytest.mark.parametrize("harmful", ["contraindication", "contraindicates"])
def test_pairs_of_the_training_graph_count_unless_the_drug_also_treats(
    tmp_path: Path, harmful: str
) -> None:
    drugs, diseases = ([node(kind, i) for i in range(6)] for kind in ("drug", "disease"))
    facts: list[Fact] = [(x, "indication", y) for x in drugs[:3] for y in diseases[:2]]
    facts += [(x, harmful, y) for x in drugs[2:5] for y in diseases[:3]]
    facts += [(drugs[5], "drug_drug", drugs[4]), (diseases[5], "disease_disease", diseases[4])]
    facts += [(drugs[5], "off-label use", y) for y in diseases]
    split = split_pairs(graph_of(facts), share=0.5, seed=0, validation_share=0)
    graph, task = split.graph, ranking_task(split, split.test)
    row, column = contraindicated_drugs(graph, task)
    names = graph.nodes["node_name"].to_list()
    first = node_range_of(graph, "drug")[0]
    found = {(names[first + c], names[task.diseases[r]]) for r, c in zip(row, column, strict=True)}
    asked = {names[disease] for disease in task.diseases.tolist()}
    # Drug 2 treats diseases 0 and 1, so it is left out; disease 2 has no held-out drug.
    assert found == {(x.name, y.name) for x in drugs[3:5] for y in diseases[:2] if y.name in asked}
