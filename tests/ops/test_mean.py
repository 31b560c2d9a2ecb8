"""The edge-sized operations against dense matrices, in every chunking, forward and backward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from allocations import LargestTensor
from backends import KERNELS, TORCH, mean_neighbors
from graphs import Fact, node, random_facts, read_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import full_block, range_block, row_block


def dense_mean(graph: KnowledgeGraph) -> torch.Tensor:
    """The (N, N) matrix whose product is the mean over neighbours; parallel edges count each."""
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for src, dst in zip(graph.src.tolist(), graph.dst.tolist(), strict=True):
        matrix[dst, src] += 1
    return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)


BACKENDS = pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])


@BACKENDS
def test_a_hub_and_isolated_nodes(tmp_path: Path, backend: Backend) -> None:
    hub: list[Fact] = [(node("gene/protein", 0), "r", node("drug", i)) for i in range(50_000)]
    graph = read_facts(tmp_path, hub)
    x = torch.randn(graph.num_nodes, 4, dtype=torch.float64)
    mean = mean_neighbors(x, full_block(graph, backend))
    centre = int(graph.degree.argmax())
    others = torch.arange(graph.num_nodes) != centre
    torch.testing.assert_close(mean[centre], x[others].mean(dim=0))
    torch.testing.assert_close(mean[others], x[centre].expand(50_000, -1))
    alone = read_facts(tmp_path, [(node("drug", 0), "r", node("drug", 1))])
    block = row_block(alone, torch.tensor([1]), backend)
    assert mean_neighbors(torch.ones(2, 3), block).tolist() == [[1.0, 1.0, 1.0]]


@BACKENDS
def test_blocks_equal_rows_of_the_dense_product_and_of_its_gradient(
    graph: KnowledgeGraph, rng: np.random.Generator, backend: Backend
) -> None:
    matrix = dense_mean(graph)
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:25]))
    everything = torch.arange(graph.num_nodes)
    for block, picked in (
        (full_block(graph, backend), everything),
        (row_block(graph, rows, backend), rows),
    ):
        x = torch.randn(graph.num_nodes, 6, dtype=torch.float64, requires_grad=True)
        out = mean_neighbors(x, block)
        torch.testing.assert_close(out, matrix[picked] @ x)
        weight = torch.randn_like(out)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
        torch.testing.assert_close(gradient, matrix[picked].t() @ weight)
        assert torch.autograd.gradcheck(lambda x, block=block: mean_neighbors(x, block), x)
    x = torch.randn(graph.num_nodes, 6, dtype=torch.float64)
    block = range_block(graph, 10, 31, backend)
    torch.testing.assert_close(mean_neighbors(x, block), matrix[10:31] @ x)


@BACKENDS
def test_no_tensor_of_the_edges_times_the_dimension_exists(
    tmp_path: Path, rng: np.random.Generator, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "EDGE_CHUNK", 256)
    sizes = {"drug": 60, "disease": 60, "gene/protein": 60}
    graph = read_facts(tmp_path, random_facts(rng, 5_000, sizes))
    x = torch.randn(graph.num_nodes, 64, requires_grad=True)
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]  # torch has no types for it
        mean_neighbors(x, full_block(graph, backend)).sum().backward()
    assert x.grad is not None
    assert graph.num_nodes * 64 <= seen.numel < 20_000 < graph.num_edges * 64 // 10
