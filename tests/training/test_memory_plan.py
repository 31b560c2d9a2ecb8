"""Budgets are parsed, kept or refused; every parameter that is said to help does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from backends import KERNELS

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.kinds.graphsage import SageSettings
from clinical_drug_discovery.models.kinds.hgt import HgtSettings
from clinical_drug_discovery.system.errors import DoesNotFitError, InputError
from clinical_drug_discovery.system.limits.memory import parse_memory
from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes
from clinical_drug_discovery.training import memory_budget
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.graph_sizes import GraphSizes
from clinical_drug_discovery.training.memory_budget import fit_plan
from clinical_drug_discovery.training.memory_plan import CHUNK_SIZES, LARGE_CHUNK_SIZES, Plan
from clinical_drug_discovery.training.objective.near_pairs import NearPairSampler
from clinical_drug_discovery.training.objective.terms import Terms
from clinical_drug_discovery.training.objective.treatment_votes import TreatmentSampler

NODE_TYPES = dict.fromkeys("abc", 30_000) | dict.fromkeys("defg", 10_000)
SIZES = GraphSizes(
    NODE_TYPES, {EdgeType(a, "r", b): 200_000 for a in "abcdef" for b in "abcdef"}, "b", "a"
)
SAGE_SETTINGS = SageSettings(512, 256, 3, 100, 0.01, 10_000, "full", None)
HGT_SETTINGS = HgtSettings(512, 256, 2, 8, 100, 0.001, 0.5, 1_000, "full", None, 0.1, 0.1)
SAGE = Plan(SIZES, SAGE_SETTINGS, KERNELS, chunk_size=4_096)
HGT = Plan(SIZES, HGT_SETTINGS, KERNELS, num_sharing=500_000, chunk_size=4_096)


def change(plan: Plan, **changed: Any) -> Plan:
    """The same plan with other settings, or other fields of its own."""
    settings = {k: v for k, v in changed.items() if k in plan.settings.__dataclass_fields__}
    own = {k: v for k, v in changed.items() if k not in settings}
    return replace(plan, settings=replace(plan.settings, **settings), **own)


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


def needed(plan: Plan, budget: str | int) -> int:
    """The bytes that a plan needs unchanged, if the budget allows it."""
    fitted = fit_plan(plan, budget, choose_chunk_size=False)
    assert replace(fitted, predicted_bytes=0) == plan
    return fitted.predicted_bytes


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_the_ranker_counts_where_it_needs_the_most(plan: Plan) -> None:
    plain = plan.bytes_needed()
    assert replace(plan, rank_fit=2**20).bytes_needed() == plain
    large = replace(plan, rank_fit=8 * GIB)
    assert plain < 8 * GIB < large.bytes_needed() < 9 * GIB
    with pytest.raises(InputError, match=r"without the ranker .*: \d\.\d\d GiB; fewer nodes"):
        fit_plan(large, "8GiB", choose_chunk_size=False)


FEWER_NODES = replace(SIZES, node_type_counts={**NODE_TYPES, "a": 10_000})
FEWER_EDGE_TYPES = replace(
    SIZES, edge_type_counts={EdgeType(a, "r", b): 200_000 for a in "abc" for b in "abc"}
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dim", 128),
        ("embedding_dim", 256),
        ("num_layers", 1),
        ("edge_batch_size", 100),
        ("graph", FEWER_NODES),
    ],
)
def test_smaller_plans_need_less(name: str, value: object) -> None:
    changed: dict[str, Any] = {name: value}
    assert change(SAGE, **changed).bytes_needed() < SAGE.bytes_needed()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dim", 128),
        ("embedding_dim", 256),
        ("num_layers", 1),
        ("edge_sample_size", 100),
        ("num_sharing", 0),
        ("graph", FEWER_NODES),
        ("graph", FEWER_EDGE_TYPES),
    ],
)
def test_smaller_plans_of_hgt_need_less(name: str, value: object) -> None:
    changed: dict[str, Any] = {name: value}
    assert change(HGT, **changed).bytes_needed() < HGT.bytes_needed()


def test_an_endless_sample_needs_no_more_than_all_edges_do(graph: KnowledgeGraph) -> None:
    """However large edge_sample_size is: an epoch has no more edges, rows and pairs than exist."""
    sizes = GraphSizes.of(graph)
    assert (sizes.num_nodes, sizes.num_edges) == (graph.num_nodes, graph.num_edges)
    plan = change(
        HGT, graph=sizes, num_sharing=0,
        edge_sample_size=max(sizes.edge_type_counts.values()),
    )  # fmt: skip
    assert change(plan, edge_sample_size=10**12).bytes_needed() == plan.bytes_needed() < GIB
    sage = change(SAGE, graph=sizes, edge_batch_size=sizes.num_edges)
    assert change(sage, edge_batch_size=10**12).bytes_needed() == sage.bytes_needed() < GIB


@pytest.mark.parametrize(("plan", "large"), [(SAGE, 10_000), (HGT, 36_000)])
def test_a_small_graph_has_fewer_positives(plan: Plan, large: int) -> None:
    """A quarter of the edges, unless the graph is tiny; a graph with 50,000 edges has all."""
    kinds = len(SIZES.edge_type_counts)
    for of_each_type, expected in ((10, 360), (100, 1_024), (200, 1_800), (1_400, large)):
        sizes = replace(SIZES, edge_type_counts=dict.fromkeys(SIZES.edge_type_counts, of_each_type))
        found = sum(change(plan, graph=sizes).positives.values())
        assert expected <= found < expected + kinds
    assert sum(plan.positives.values()) == large


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_steps_on_parts_need_less_and_on_the_whole_hardly_more(plan: Plan) -> None:
    whole = SIZES.num_nodes
    part = change(plan, training="sampled", subgraph_size=whole // 10)
    every = change(plan, training="sampled", subgraph_size=whole)
    assert part.bytes_needed() < plan.bytes_needed() <= every.bytes_needed()
    assert every.bytes_needed() < 1.25 * plan.bytes_needed()
    assert every.bytes_needed() == change(every, subgraph_size=2 * whole).bytes_needed()


@pytest.mark.parametrize("num_candidates", [4, 25, 512])  # types have 20, 30 and 40 nodes
def test_the_rows_of_a_batch_are_foreseen(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch, num_candidates: int
) -> None:
    for module in ("graph_sizes", "edge_sampler"):
        monkeypatch.setattr(
            f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", num_candidates
        )
    plan = change(HGT, graph=GraphSizes.of(graph), contrastive_weight=0)
    terms = terms_of(graph, plan)
    for size in (1, 3, 10):
        sampler = EdgeSampler(graph, np.minimum(graph.edge_type_counts, size), seed=0)
        facts = [sampler.sample() for _ in range(20)]
        drawn = np.mean([len(some.rows) for some in facts])
        foreseen = change(plan, edge_sample_size=size)
        assert drawn <= foreseen.graph.expected_rows(foreseen.positives) <= 1.5 * drawn
        evenly = replace(foreseen.graph, degrees=None)
        assert drawn <= evenly.expected_rows(foreseen.positives) <= 1.5 * drawn
        compared = [torch.cat([term.nodes for term in terms.sample()]) for _ in facts]
        assert max(map(len, compared)) <= foreseen.compared.num_rows
        rows = [len(a.including(b).rows) for a, b in zip(facts, compared, strict=True)]
        assert np.mean(rows) <= foreseen.num_rows


def terms_of(graph: KnowledgeGraph, plan: Plan) -> Terms:
    near = NearPairSampler(graph, ["drug", "disease"], 0)
    nodes = plan.graph.node_type_counts
    sizes = {name: plan.compared.near(nodes[name]) for name in near.node_types}
    names = dict.fromkeys(sizes, "near_loss")
    return Terms(near, sizes, names, TreatmentSampler(graph, plan.num_steps, 0), None)


def test_what_is_said_to_help_is_allowed() -> None:
    plan = change(HGT, hidden_dim=264)  # half of it is not a multiple of 8
    with pytest.raises(InputError) as refused:
        fit_plan(plan, needed(plan, "64GiB") - 10**8, choose_chunk_size=False)
    said = re.findall(r"hidden_dim (\d+)", str(refused.value))
    assert said
    assert all(int(value) % HGT_SETTINGS.num_heads == 0 for value in said)
    hub = replace(HGT, num_sharing=10**9)
    with pytest.raises(InputError, match="disease_gene_relation gives 1,000,000,000 pairs"):
        fit_plan(hub, "8GiB", choose_chunk_size=False)


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_a_budget_that_is_too_small_is_refused_with_what_would_do(plan: Plan) -> None:
    least = needed(plan, "64GiB")
    assert least > plan.bytes_needed()
    with pytest.raises(InputError, match=r"memory_budget .*needs \d.*: hidden_dim \d+: \d"):
        fit_plan(plan, least * 4 // 5, choose_chunk_size=False)
    with pytest.raises(InputError, match="fewer nodes"):
        fit_plan(plan, psutil.Process().memory_info().rss, choose_chunk_size=True)


@pytest.mark.parametrize("plan", [SAGE, HGT])
@pytest.mark.parametrize("read", [0, 32 * GIB])
def test_each_budget_that_a_refusal_names_is_enough(
    plan: Plan, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak of reading counts too, which no setting of the model lowers."""
    peak = peak_memory_bytes()
    monkeypatch.setattr(memory_budget, "peak_memory_bytes", lambda: max(peak, read))
    with pytest.raises(DoesNotFitError) as refused:
        fit_plan(plan, "500MB", choose_chunk_size=True)
    said = str(refused.value)
    (least,) = re.findall(r"this run needs (\d+\.\d\d GiB)", said)
    assert fit_plan(plan, least, choose_chunk_size=True).predicted_bytes >= read
    assert ("reading the graph took" in said) == (peak > 500 * 10**6 or bool(read))
    for name, value, budget in re.findall(r"([a-z_]+) (\d+): (\d+\.\d\d GiB)", said):
        assert not read, "no change lowers the peak of reading"
        fit_plan(change(plan, **{name: int(value)}), budget, choose_chunk_size=True)


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_a_refusal_speaks_of_the_budget_alone(plan: Plan) -> None:
    """Sampled training is not possible on this graph, and nobody has asked for it."""
    few = replace(SIZES, edge_type_counts={EdgeType("a", "r", "b"): 3, EdgeType("b", "r", "a"): 3})
    with pytest.raises(DoesNotFitError, match=r"^memory_budget \(got '1MB', .* is too small") as no:
        fit_plan(change(plan, graph=few), "1MB", choose_chunk_size=True)
    assert "sampled" not in str(no.value)


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_the_largest_chunks_that_fit_are_taken(plan: Plan) -> None:
    # A plan of which inference is the peak: without drugs and diseases, which the loss compares.
    plan = replace(plan, graph=replace(SIZES, drug_type="", disease_type=""))
    plan = change(plan, embedding_dim=4_096, num_layers=1, **_SMALL_BATCH[plan.settings.model])
    peaks = [needed(replace(plan, chunk_size=size), "64GiB") for size in CHUNK_SIZES]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > peaks[-1]
    slack = 2**20  # what this process takes meanwhile
    for size, peak in zip(CHUNK_SIZES, peaks, strict=True):
        fitted = fit_plan(plan, peak + slack, choose_chunk_size=True)
        assert fitted.chunk_size >= size
        assert replace(fitted, chunk_size=plan.chunk_size, predicted_bytes=0) == plan
        assert fitted.predicted_bytes <= peak + slack
    assert fitted.chunk_size < CHUNK_SIZES[0]


@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_large_chunks_do_not_raise_the_peak(plan: Plan) -> None:
    """The training takes the most memory here; with sampled training, inference does."""
    fitted = fit_plan(plan, "64GiB", choose_chunk_size=True)
    assert fitted.chunk_size in LARGE_CHUNK_SIZES
    assert fitted.predicted_bytes <= needed(replace(plan, chunk_size=1_024), "64GiB") + 2**20
    assert fitted.inference_bytes < fitted.bytes_needed()
    sampled = change(plan, training="sampled", embedding_dim=4_096)
    one_chunk = fit_plan(sampled, "64GiB", choose_chunk_size=True)  # its result is not copied
    assert one_chunk.chunk_size == LARGE_CHUNK_SIZES[0] > SIZES.num_nodes
    assert one_chunk.bytes_needed() < replace(sampled, chunk_size=CHUNK_SIZES[0]).bytes_needed()
    many = {name: 3 * count for name, count in NODE_TYPES.items()}
    sampled = change(sampled, graph=replace(SIZES, node_type_counts=many))
    assert fit_plan(sampled, "64GiB", choose_chunk_size=True).chunk_size == CHUNK_SIZES[0]


@pytest.mark.parametrize("training", ["full", "sampled"])
@pytest.mark.parametrize("plan", [SAGE, HGT])
def test_arrays_lie_in_files_only_if_they_do_not_fit(
    plan: Plan, training: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of the budget must hold this process, which may have grown in other tests.
    monkeypatch.setattr(memory_budget, "held_bytes", lambda: 2**28)
    monkeypatch.setattr(memory_budget, "peak_memory_bytes", lambda: 2**28)
    many = {name: 20 * count for name, count in NODE_TYPES.items()}
    plan = change(plan, graph=replace(SIZES, node_type_counts=many), training=training)
    least = needed(plan, "64GiB")
    options: dict[str, Any] = {"choose_chunk_size": True, "scratch_dir": tmp_path}
    in_memory = fit_plan(plan, least + 2**26, **options)
    assert (in_memory.scratch_dir, in_memory.file_bytes) == (None, 0)
    in_files = fit_plan(plan, least // 2, **options)
    assert in_files.scratch_dir == tmp_path
    assert in_files.predicted_bytes <= least // 2
    vectors = 4 * plan.graph.num_nodes * plan.settings.hidden_dim
    assert 4 * vectors <= in_files.file_bytes <= 1.2 * least  # larger chunks
    with pytest.raises(
        DoesNotFitError, match=r"; scratch_dir \(cdd embed --scratch-dir\): \d"
    ) as no:
        fit_plan(plan, least // 2, choose_chunk_size=True)
    enough = re.findall(r"scratch-dir\): (\d+\.\d\d GiB)", str(no.value))[0]
    assert fit_plan(plan, enough, **options).scratch_dir == tmp_path
    two: Any = SimpleNamespace(rank=0, size=2, local_size=2)  # which cannot use files
    with pytest.raises(DoesNotFitError) as no:
        fit_plan(replace(plan, group=two), 2**20, choose_chunk_size=True)
    assert "scratch" not in str(no.value)


_SMALL_BATCH: dict[str, dict[str, Any]] = {
    "graphsage": {"edge_batch_size": 10},
    "hgt": {"edge_sample_size": 1},
}


#: Runs in which the vectors, the hidden layers, the batches or the embeddings take the most memory.
RUNS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (
        generate_gnn_embeddings,
        {"embedding_dim": 512, "hidden_dim": 32, "num_layers": 2, "edge_batch_size": 200_000},
    ),
    (
        generate_hgt_embeddings,
        {"embedding_dim": 64, "hidden_dim": 512, "num_layers": 3, "edge_sample_size": 200},
    ),
    (
        generate_gnn_embeddings,
        {"embedding_dim": 64, "hidden_dim": 256, "num_layers": 3, "edge_batch_size": 1_000},
    ),
    (
        generate_hgt_embeddings,
        {"embedding_dim": 1024, "hidden_dim": 64, "num_layers": 2, "edge_sample_size": 2_000},
    ),
]


@pytest.mark.parametrize(("function", "sizes"), RUNS[:2], ids=["graphsage", "hgt"])
def test_the_prediction_is_an_upper_bound_and_no_idle_one(
    tmp_path: Path, function: Callable[..., Any], sizes: dict[str, Any]
) -> None:
    assert_prediction_holds(tmp_path, function, {**sizes, "ranker": False})


@pytest.mark.slow
@pytest.mark.parametrize(("function", "sizes"), RUNS[2:], ids=["graphsage", "hgt"])
def test_the_prediction_is_one_with_the_ranker_too(
    tmp_path: Path, function: Callable[..., Any], sizes: dict[str, Any]
) -> None:
    """The fit of the ranker takes the most memory of the first run, and not of the second."""
    assert_prediction_holds(tmp_path, function, sizes)


def assert_prediction_holds(
    directory: Path, function: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Measure the peak of a process that does nothing else, on one thread."""
    synthesize_graph(directory / "kg.parquet", scale=0.1)
    script = (
        f"from {function.__module__} import {function.__name__} as generate\n"
        f"s = generate('kg.parquet', 'e.npy', num_epochs=2, **{options})\n"
        'import sys; sys.stdout.write(f\'{s["predicted_memory_gib"]} {s["peak_memory_gib"]}\')'
    )
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **one_thread},
        check=True,
        capture_output=True,
        text=True,
        cwd=directory,
    )
    predicted, measured = map(float, done.stdout.split())
    assert measured <= 1.1 * predicted
    assert predicted <= 2 * measured
