"""Collapse: figures that can be checked by hand, and against all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clinical_drug_discovery.evaluate import collapse_by_type
from clinical_drug_discovery.graph import KnowledgeGraph


def test_against_all_pairs_and_all_singular_values(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((graph.num_nodes, 12)).astype(np.float32) + 0.3
    collapse = collapse_by_type(torch.from_numpy(values), graph)
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
    same = collapse_by_type(torch.ones(graph.num_nodes, 8), graph)
    spread = collapse_by_type(torch.eye(graph.num_nodes), graph)
    for t, name in enumerate(graph.node_type_names):
        count = int(graph.type_ptr[t + 1] - graph.type_ptr[t])
        assert same[name]["mean_cosine"] == pytest.approx(1)
        # The square root of rounding errors of the Gram matrix is what a zero looks like.
        assert same[name]["effective_rank"] == pytest.approx(1, abs=1e-3)
        assert spread[name]["mean_cosine"] == pytest.approx(0)
        assert spread[name]["effective_rank"] == pytest.approx(count)


def test_zero_rows_are_no_division_by_zero(graph: KnowledgeGraph) -> None:
    for record in collapse_by_type(torch.zeros(graph.num_nodes, 3), graph).values():
        assert record["effective_rank"] == 1
        assert record["mean_cosine"] == 0
