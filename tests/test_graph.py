"""The graph keeps what it promises: sorted, symmetric, and searchable without a table."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch

from clinical_drug_discovery.graph import KnowledgeGraph


def test_edges_are_sorted_distinct_and_mirrored(graph: KnowledgeGraph) -> None:
    edges = list(zip(graph.dst.tolist(), graph.edge_type.tolist(), graph.src.tolist(), strict=True))
    assert edges == sorted(set(edges))
    kinds = {kind: i for i, kind in enumerate(graph.edge_types)}
    assert list(graph.edge_types) == sorted(kinds)
    for dst, edge_type, src in edges:
        kind = graph.edge_types[edge_type]
        mirror = kinds[kind._replace(src_type=kind.dst_type, dst_type=kind.src_type)]
        assert (src, mirror, dst) in edges
        assert graph.node_type_names[graph.node_type[src]] == kind.src_type
        assert graph.node_type_names[graph.node_type[dst]] == kind.dst_type


def test_pointers(graph: KnowledgeGraph) -> None:
    assert torch.equal(graph.indptr.diff(), torch.bincount(graph.dst, minlength=graph.num_nodes))
    for t in range(len(graph.node_type_names)):
        assert (graph.node_type[graph.type_ptr[t] : graph.type_ptr[t + 1]] == t).all()
    assert graph.type_ptr[-1] == graph.num_nodes
    assert graph.nodes["node_type"].to_list() == [
        graph.node_type_names[t] for t in graph.node_type.tolist()
    ]


def test_has_edges_agrees_with_a_set(graph: KnowledgeGraph, rng: np.random.Generator) -> None:
    known = set(zip(graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True))
    src = np.concatenate([graph.src.numpy(), rng.integers(0, graph.num_nodes, 5000)])
    kind = np.concatenate([graph.edge_type.numpy(), rng.integers(0, len(graph.edge_types), 5000)])
    dst = np.concatenate([graph.dst.numpy(), rng.integers(0, graph.num_nodes, 5000)])
    asked = zip(src.tolist(), kind.tolist(), dst.tolist(), strict=True)
    expected = [triple in known for triple in asked]
    assert graph.has_edges(src, kind, dst).tolist() == expected


def test_to_moves_every_tensor_and_keeps_the_rest(graph: KnowledgeGraph) -> None:
    moved = graph.to(torch.device("meta"))
    for field in fields(graph):
        value = getattr(moved, field.name)
        if isinstance(value, torch.Tensor):
            assert value.device.type == "meta", field.name
        else:
            assert value is getattr(graph, field.name)
