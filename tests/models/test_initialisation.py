"""Vectors that training starts from: equal to a dense reference, alike for alike nodes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from closeness import off
from graphs import Fact, graph_of, node
from torch import Tensor
from torch.nn.functional import normalize

from clinical_drug_discovery.graph.adjacency import sparse_links
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models import initialisation
from clinical_drug_discovery.models.initialisation import projected_vectors, structural_vectors
from clinical_drug_discovery.models.walk_vectors import walk_vectors


def dense_step(graph: KnowledgeGraph, x: Tensor) -> Tensor:
    """The same, edge type by edge type, through dense matrices in float64."""
    total = torch.zeros_like(x)
    for r in range(len(graph.edge_types)):
        matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
        chosen = graph.edge_type == r
        matrix[graph.dst[chosen].long(), graph.src[chosen].long()] = 1
        weight = matrix.sum(dim=0).clamp(min=1) ** -0.4
        total += normalize((matrix * weight) @ x, dim=1)
    return normalize(total, dim=1)


def test_they_equal_a_dense_reference(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initialisation, "sparse_links", lambda *_: None)
    found = structural_vectors(graph, 24, torch.Generator().manual_seed(3))
    own = torch.randn(graph.num_nodes, 24, generator=torch.Generator().manual_seed(3)).double()
    near = dense_step(graph, own)
    mixed = 0.25 * normalize(own, dim=1) + near + dense_step(graph, near)
    for first, stop in pairwise(graph.type_offsets):
        if stop - first > 1:
            mixed[first:stop] -= mixed[first:stop].mean(dim=0)
    assert off(found, normalize(mixed, dim=1) * 24**0.5) < 1e-5


def test_a_hierarchy_counts_twice_as_much_as_neighbors() -> None:
    facts: list[Fact] = [
        (node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(30)
    ]
    graph = graph_of(facts)
    links = sparse_links(graph, "disease")
    assert links is not None
    found = structural_vectors(graph, 64, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)  # draws for the neighbors, then for the walks
    neighbors = normalize(projected_vectors(graph, 64, generator), dim=1)
    walks = normalize(walk_vectors(links, 64, generator), dim=1)
    assert off(found, 8 * normalize(2 * walks + neighbors, dim=1)) < 1e-5


def test_nodes_with_the_same_neighbors_are_alike_but_not_the_same(graph: KnowledgeGraph) -> None:
    z = structural_vectors(graph, 512, torch.Generator().manual_seed(0)) / 512**0.5
    cosine = z @ z.t()
    linked = torch.zeros(graph.num_nodes, graph.num_nodes)
    linked[graph.dst.long(), graph.src.long()] = 1
    shared = normalize(linked, dim=1) @ normalize(linked, dim=1).t()
    same_type = graph.node_type[:, None] == graph.node_type
    pairs = same_type & ~torch.eye(graph.num_nodes, dtype=torch.bool)
    assert cosine[pairs & (shared > 0.5)].mean() > cosine[pairs & (shared == 0)].mean() + 0.2
    assert cosine[pairs].max() < 0.999
