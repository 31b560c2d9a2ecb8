"""Both models equal their plain twins on both backends: embeddings and all gradients."""

from __future__ import annotations

import pytest
import torch
from backends import EXACT_KERNELS, KERNELS, TORCH
from closeness import off
from plain_models import PlainGraphSage, PlainHgt
from torch import Tensor, nn

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import full_block, row_block

HIDDEN, DIM, HEADS = 12, 20, 4
PRECISIONS = pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        (KERNELS, torch.float64, 1e-9),
        (TORCH, torch.float64, 1e-9),
        pytest.param(EXACT_KERNELS, torch.float32, 1e-4, marks=pytest.mark.slow),
        (TORCH, torch.float32, 1e-4),
    ],
    ids=["kernels-64", "torch-64", "kernels-32", "torch-32"],
)


def assert_equal(
    ours: nn.Module, plain: nn.Module, z: Tensor, wanted: Tensor, tolerance: float
) -> None:
    """Compare embeddings and the gradients of a random sum of them."""
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    (z * direction.to(z.dtype)).sum().backward()
    (wanted * direction.double()).sum().backward()
    assert off(z, wanted) < tolerance
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in ours.named_parameters():
        exact = gradients.pop(name)
        assert weight.grad is not None, name
        assert exact is not None, name
        assert off(weight.grad, exact) < tolerance, name
    assert not gradients


def shuffle_weights(model: nn.Module) -> None:
    """Move the weights that start at 0 or 1 away from there."""
    generator = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if name.endswith(("bias", "skip", "prior")):
            weight.data.add_(torch.rand(weight.shape, generator=generator))


@PRECISIONS
@pytest.mark.parametrize("num_layers", [1, 3])
def test_graphsage(
    graph: KnowledgeGraph, num_layers: int, backend: Backend, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = GraphSage(graph.num_nodes, HIDDEN, DIM, num_layers, generator)
    shuffle_weights(ours)
    plain = PlainGraphSage(graph.num_nodes, HIDDEN, DIM, num_layers).double()
    plain.load_state_dict(ours.to(dtype).state_dict())
    rows = torch.arange(0, graph.num_nodes, 3)
    z = ours(full_block(graph, backend), row_block(graph, rows, backend))
    wanted = plain(graph.src.long(), graph.dst.long())[rows]
    assert_equal(ours, plain, z, wanted, tolerance)


@PRECISIONS
@pytest.mark.parametrize("num_layers", [1, 2])
def test_hgt(
    graph: KnowledgeGraph, num_layers: int, backend: Backend, dtype: torch.dtype, tolerance: float
) -> None:
    generator, num_edge_types = torch.Generator().manual_seed(0), len(graph.edge_types)
    sizes = num_edge_types, HIDDEN, DIM, num_layers, HEADS
    ours = Hgt(graph.type_offsets, *sizes, generator)
    shuffle_weights(ours)
    plain = PlainHgt(graph.node_type, *sizes).double()
    plain.load_state_dict(ours.to(dtype).state_dict())
    rows = torch.arange(0, graph.num_nodes, 3)
    z = ours(full_block(graph, backend), row_block(graph, rows, backend))
    edges = [(graph.src_of(r).long(), graph.dst_of(r).long()) for r in range(num_edge_types)]
    assert_equal(ours, plain, z, plain(edges)[rows], tolerance)
