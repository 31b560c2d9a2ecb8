"""Budgets are parsed, kept or refused; every parameter that is said to help does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.memory import HgtPlan, Plan, SagePlan, check_budget, parse_memory
from clinical_drug_discovery.runtime import GIB
from clinical_drug_discovery.sampling import EdgeSampler
from clinical_drug_discovery.synthetic import synthesize_graph

PRIMEKG = SagePlan(129_375, 8_100_498, 256, 512, 3, 10_000)
NODE_TYPES = dict.fromkeys("abc", 30_000) | dict.fromkeys("defg", 10_000)
HGT = HgtPlan(
    node_type_counts=NODE_TYPES,
    edge_type_counts={EdgeType(a, "r", b): 200_000 for a in "abcdef" for b in "abcdef"},
    num_sharing=500_000,
    num_diseases=20_000,
    hidden_dim=256,
    embedding_dim=512,
    num_layers=2,
    num_heads=8,
    edge_sample_size=1_000,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GiB", 4 * GIB),
        ("5.33 GB", 5_330_000_000),
        ("512mib", GIB // 2),
        ("1000", 1000),
        (123, 123),
    ],
)
def test_amounts(text: str | int, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "four", "4 GiBs", "-1GiB", "0", 0, "1e9", "nan"])
def test_what_is_no_amount(text: str | int) -> None:
    with pytest.raises(InputError, match="memory_budget"):
        parse_memory(text)


def test_none_is_most_of_what_is_free() -> None:
    assert 0 < parse_memory(None) < psutil.virtual_memory().total


@pytest.mark.parametrize(
    "name",
    ["hidden_dim", "embedding_dim", "num_layers", "edge_batch_size", "num_nodes", "num_edges"],
)
def test_smaller_plans_need_less(name: str) -> None:
    smaller = replace(PRIMEKG, **{name: getattr(PRIMEKG, name) // 2})
    assert smaller.bytes_needed() < PRIMEKG.bytes_needed()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dim", 128),
        ("embedding_dim", 256),
        ("num_layers", 1),
        ("edge_sample_size", 100),
        ("num_sharing", 0),
        ("edge_type_counts", {EdgeType(a, "r", b): 200_000 for a in "abc" for b in "abc"}),
        ("node_type_counts", {**NODE_TYPES, "a": 10_000}),
    ],
)
def test_smaller_plans_of_hgt_need_less(name: str, value: object) -> None:
    changed: dict[str, Any] = {name: value}
    assert replace(HGT, **changed).bytes_needed() < HGT.bytes_needed()


def test_an_endless_sample_needs_no_more_than_all_edges_do(graph: KnowledgeGraph) -> None:
    """However large edge_sample_size is: an epoch has no more edges, rows and pairs than exist."""
    counts = dict(zip(graph.node_type_names, graph.type_ptr.diff().tolist(), strict=True))
    edges = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
    plan = replace(
        HGT, node_type_counts=counts, edge_type_counts=edges, num_sharing=0, num_diseases=20,
        edge_sample_size=max(edges.values()),
    )  # fmt: skip
    assert replace(plan, edge_sample_size=10**12).bytes_needed() == plan.bytes_needed() < GIB


def test_the_rows_of_a_batch_are_foreseen(graph: KnowledgeGraph) -> None:
    counts = dict(zip(graph.node_type_names, graph.type_ptr.diff().tolist(), strict=True))
    edges = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
    plan = replace(HGT, node_type_counts=counts, edge_type_counts=edges, num_diseases=0)
    for size in (1, 3, 10):
        sampler = EdgeSampler(graph, np.minimum(graph.edge_type_counts, size), seed=0)
        drawn = np.mean([len(sampler.sample().rows) for _ in range(20)])
        assert drawn <= replace(plan, edge_sample_size=size).num_rows() <= 1.5 * drawn


def test_what_is_said_to_help_is_allowed() -> None:
    plan = replace(HGT, hidden_dim=264)  # of which the half is no multiple of 8
    needed = check_budget(plan, "64GiB")
    with pytest.raises(InputError) as refused:
        check_budget(plan, needed - 10**8)
    said = re.findall(r"hidden_dim (\d+)", str(refused.value))
    assert said
    assert all(int(value) % plan.num_heads == 0 for value in said)
    hub = replace(HGT, num_sharing=10**9)
    with pytest.raises(InputError, match="1,000,000,000 pairs that share by disease_gene_relation"):
        check_budget(hub, "8GiB")


@pytest.mark.parametrize("plan", [PRIMEKG, HGT])
def test_a_budget_that_is_too_small_is_refused_with_what_would_do(plan: Plan) -> None:
    needed = check_budget(plan, "64GiB")
    assert needed > plan.bytes_needed()
    with pytest.raises(InputError, match=r"memory_budget .*needs \d+\.\d\d GiB; hidden_dim \d+ "):
        check_budget(plan, needed * 4 // 5)
    with pytest.raises(InputError, match="use fewer nodes"):
        check_budget(plan, psutil.Process().memory_info().rss)


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        (
            generate_gnn_embeddings,
            {"embedding_dim": 512, "hidden_dim": 32, "num_layers": 2, "edge_batch_size": 200_000},
        ),
        (
            generate_gnn_embeddings,
            {"embedding_dim": 64, "hidden_dim": 256, "num_layers": 3, "edge_batch_size": 1_000},
        ),
        (
            generate_hgt_embeddings,
            {"embedding_dim": 64, "hidden_dim": 512, "num_layers": 3, "edge_sample_size": 200},
        ),
        (
            generate_hgt_embeddings,
            {"embedding_dim": 1024, "hidden_dim": 64, "num_layers": 2, "edge_sample_size": 2_000},
        ),
    ],
)
def test_the_prediction_is_an_upper_bound_and_no_idle_one(
    tmp_path: Path, function: Callable[..., Any], sizes: dict[str, int]
) -> None:
    synthesize_graph(tmp_path / "kg.parquet", scale=0.1)
    script = (
        f"from {function.__module__} import {function.__name__} as generate\n"
        f"s = generate('kg.parquet', 'e.npy', num_epochs=2, **{sizes})\n"
        'import sys; sys.stdout.write(f\'{s["predicted_memory_gib"]} {s["peak_memory_gib"]}\')'
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    predicted, measured = map(float, done.stdout.split())
    assert measured <= 1.1 * predicted
    assert predicted <= 2 * measured
