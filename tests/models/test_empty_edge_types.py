"""Both models compute finite gradients on a graph with an edge type that has no edges."""

from __future__ import annotations

import pytest
import torch
from backends import KERNELS, TORCH
from closeness import off

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, without_edges
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss


@pytest.mark.parametrize("kind", ["sage", "hgt"])
def test_models_take_an_edge_type_without_edges(kind: str, graph: KnowledgeGraph) -> None:
    empty = graph.edge_types.index(("gene/protein", "protein_protein", "gene/protein"))
    left = without_edges(graph, (graph.edge_type == empty).numpy())
    generator = torch.Generator().manual_seed(0)
    model = (
        GraphSage(left.num_nodes, 32, 32, 2, generator)
        if kind == "sage"
        else Hgt(left.type_offsets, len(left.edge_types), 32, 32, 2, 4, generator)
    )
    batch = EdgeSampler(left, left.edge_type_counts, seed=0).sample()
    found = []
    for backend, dtype in (
        (TORCH, torch.float64), (KERNELS, torch.float64), (KERNELS, torch.float32)
    ):  # fmt: skip
        model.to(dtype).zero_grad()
        z = model(full_block(left, backend), row_block(left, batch.rows, backend))
        link_prediction_loss(
            DistMult(len(left.relations), 32, torch.Generator().manual_seed(0)).to(dtype), z, batch
        ).backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        found.append([z.detach(), *(gradient.clone() for gradient in gradients)])
    for exact, double, single in zip(*found, strict=True):
        assert torch.isfinite(exact).all()
        assert torch.isfinite(single).all()
        assert off(double, exact) < 1e-9
