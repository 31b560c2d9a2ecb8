"""Collapse: figures that can be checked by hand, and against all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from graphs import Fact, node, read_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.collapse import Collapse, collapse_by_type, collapse_warnings
from clinical_drug_discovery.training.objective.disease_pairs import (
    HeldOutPairs,
    similarity_spearman,
)


def collapse_of(embeddings: torch.Tensor, graph: KnowledgeGraph) -> Collapse:
    return collapse_by_type(embeddings, graph.type_ptr.tolist(), graph.node_type_names)


def test_against_all_pairs_and_all_singular_values(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((graph.num_nodes, 12)).astype(np.float32) + 0.3
    collapse = collapse_of(torch.from_numpy(values), graph)
    assert list(collapse) == list(graph.node_type_names)
    for t, name in enumerate(graph.node_type_names):
        rows = values[graph.node_type.numpy() == t]
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        pairs = (unit @ unit.T)[~np.eye(len(rows), dtype=bool)]
        assert collapse[name]["mean_cosine"] == pytest.approx(pairs.mean(), abs=1e-6)
        share = np.linalg.svd(rows, compute_uv=False)
        share = share / share.sum()
        rank = np.exp(-(share * np.log(share)).sum())
        assert collapse[name]["effective_rank"] == pytest.approx(rank, rel=1e-5)


def test_collapsed_and_spread_out(graph: KnowledgeGraph) -> None:
    same = collapse_of(torch.ones(graph.num_nodes, 8), graph)
    spread = collapse_of(torch.eye(graph.num_nodes), graph)
    for t, name in enumerate(graph.node_type_names):
        count = int(graph.type_ptr[t + 1] - graph.type_ptr[t])
        assert same[name]["mean_cosine"] == pytest.approx(1)
        # The square root of rounding errors of the Gram matrix is what a zero looks like.
        assert same[name]["effective_rank"] == pytest.approx(1, abs=1e-3)
        assert spread[name]["mean_cosine"] == pytest.approx(0)
        assert spread[name]["effective_rank"] == pytest.approx(count)


def test_zero_rows_are_no_division_by_zero(graph: KnowledgeGraph) -> None:
    for record in collapse_of(torch.zeros(graph.num_nodes, 3), graph).values():
        assert record["effective_rank"] == 1
        assert record["mean_cosine"] == 0


def test_no_rows_have_no_figures(graph: KnowledgeGraph) -> None:
    nothing = collapse_by_type(torch.zeros(0, 3), [0, 0], ["drug"])
    assert nothing == {"drug": {"mean_cosine": None, "effective_rank": None}}


def test_a_collapsed_type_is_named_with_its_cause(tmp_path: Path) -> None:
    hub: list[Fact] = [(node("drug", i), "indication", node("disease", 0)) for i in range(20)]
    web: list[Fact] = [
        (node("gene/protein", i), "ppi", node("gene/protein", i + step))
        for i in range(20)
        for step in (1, 2)
    ]
    graph = read_facts(tmp_path, hub + web)
    values = torch.eye(graph.num_nodes)
    assert collapse_warnings(collapse_of(values, graph), graph, graph.num_nodes) == []
    drugs, genes = (graph.node_type_names.index(name) for name in ("drug", "gene/protein"))
    bounds = graph.type_ptr.tolist()
    for t in (drugs, genes):
        values[bounds[t] : bounds[t + 1]] = 0.02 * values[bounds[t] : bounds[t + 1]] + 1
    of_drugs, of_genes = collapse_warnings(collapse_of(values, graph), graph, graph.num_nodes)
    assert "'drug' have collapsed (mean_cosine 1.00" in of_drugs
    assert "at most one edge" in of_drugs
    assert "'gene/protein' have collapsed" in of_genes
    assert "learning_rate is too high" in of_genes
    # On one line, in both directions: no mean cosine shows it, the effective rank does.
    both = torch.ones(graph.num_nodes, 32)
    both[::2] *= -1
    assert len(collapse_warnings(collapse_of(both, graph), graph, 32)) == 2


def test_spearman_against_scipy(rng: np.random.Generator) -> None:
    values = torch.from_numpy(rng.standard_normal((50, 8)).astype(np.float32))
    a, b = rng.integers(0, 50, (2, 300))
    jaccard = np.maximum(rng.random(300) - 0.5, 0)  # half of them tied at 0
    cosine = torch.cosine_similarity(values[torch.from_numpy(a)], values[torch.from_numpy(b)])
    found = similarity_spearman(values, HeldOutPairs(a, b, jaccard))
    wanted = scipy.stats.spearmanr(jaccard, cosine.numpy()).statistic
    assert found == pytest.approx(wanted)
    # On one line all cosines are 1: no rank correlation, and no NaN that JSON could not hold.
    line = similarity_spearman(torch.ones(50, 8), HeldOutPairs(a, b, jaccard))
    assert line is None
    for none in (HeldOutPairs(a, b, np.zeros(300)), HeldOutPairs(a[:0], b[:0], jaccard[:0])):
        assert similarity_spearman(values, none) is None
