"""Input vectors of new nodes: those of their neighbors, edge type by edge type."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.new_nodes import vectors_with_new_nodes


def slowly(
    graph: KnowledgeGraph, vectors: torch.Tensor, known: np.ndarray, node: int
) -> torch.Tensor:
    """The direction of one new node, edge type by edge type."""
    total = torch.zeros(vectors.shape[1])
    for r in range(len(graph.edge_types)):
        src, dst = graph.src_of(r).numpy(), graph.dst_of(r).numpy()
        near = src[(dst == node) & known[src]]
        if len(near):
            total += normalize(vectors[near].mean(dim=0), dim=0)
    return normalize(total, dim=0)


def test_new_nodes_have_the_direction_of_their_neighbors(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    every = torch.randn(graph.num_nodes, 6, generator=torch.Generator().manual_seed(1))
    known = rng.random(graph.num_nodes) < 0.8
    number = np.flatnonzero(known)
    found, alone = vectors_with_new_nodes(graph, every[number], number)
    assert torch.equal(found[number], every[number])
    lengths = every.norm(dim=1).numpy()
    for node in set(np.flatnonzero(~known)) - set(alone):
        expected = slowly(graph, found, known, int(node))
        if expected.norm():  # else it only has new neighbors
            assert torch.allclose(normalize(found[node], dim=0), expected, atol=1e-5)
        first, stop = graph.node_range(int(graph.node_type[node]))
        of_type = lengths[first:stop][known[first:stop]]
        assert np.isclose(found[node].norm(), of_type.mean(), rtol=1e-4)
    assert set(alone) == set(np.flatnonzero(~known & (graph.degree.numpy() == 0)))


def test_new_neighbors_of_new_nodes_follow(graph: KnowledgeGraph) -> None:
    number = np.array([int(graph.degree.argmax())])
    found, alone = vectors_with_new_nodes(graph, torch.ones(1, 4), number)
    linked = np.setdiff1d(np.flatnonzero(graph.degree.numpy()), alone)
    assert len(linked) > graph.num_nodes / 2
    assert torch.allclose(found[linked], torch.ones(len(linked), 4), atol=1e-5)
