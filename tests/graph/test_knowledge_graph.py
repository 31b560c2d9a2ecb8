"""The graph is sorted and symmetric, and edges are found by binary search."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from graphs import node, read_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph

Triple = tuple[int, int, int]


def to_triples(graph: KnowledgeGraph) -> list[Triple]:
    """Return (edge type, target, source) of every edge, read from the pointers one by one."""
    triples = []
    for r, (_, dst_type) in enumerate(graph.endpoint_types):
        indptr = graph.indptr_of(r).tolist()
        for i, (start, stop) in enumerate(pairwise(indptr)):
            dst = graph.type_offsets[dst_type] + i
            triples += [(r, dst, src) for src in graph.src[start:stop].tolist()]
    return triples


def test_edges_are_sorted_distinct_and_have_reverse_edges(graph: KnowledgeGraph) -> None:
    edges = to_triples(graph)
    assert len(edges) == graph.num_edges
    assert edges == sorted(set(edges))
    assert list(graph.edge_types) == sorted(set(graph.edge_types))
    assert len(graph.reverse_edge_type) == len(graph.edge_types)
    known = set(edges)
    for edge_type, dst, src in edges:
        kind = graph.edge_types[edge_type]
        opposite = graph.edge_types[graph.reverse_edge_type[edge_type]]
        assert opposite == (kind.dst_type, kind.relation, kind.src_type)
        assert (graph.reverse_edge_type[edge_type], src, dst) in known
        assert graph.node_type_names[graph.node_type[src]] == kind.src_type
        assert graph.node_type_names[graph.node_type[dst]] == kind.dst_type


def test_pointers(graph: KnowledgeGraph) -> None:
    cuts = graph.arrays.edge_type_ptr.tolist()
    assert (cuts[0], cuts[-1]) == (0, graph.num_edges)
    assert graph.edge_type_counts.tolist() == [stop - start for start, stop in pairwise(cuts)]
    sizes = [
        graph.type_offsets[dst + 1] - graph.type_offsets[dst] for _, dst in graph.endpoint_types
    ]
    assert graph.indptr.numel() == sum(sizes) + len(sizes)
    for r, size in enumerate(sizes):
        indptr = graph.indptr_of(r).tolist()
        assert len(indptr) == size + 1
        assert (indptr[0], indptr[-1]) == (cuts[r], cuts[r + 1])
    assert graph.type_offsets == tuple(graph.type_ptr.tolist())
    for t in range(len(graph.node_type_names)):
        assert graph.node_range(t) == graph.type_offsets[t : t + 2]
        assert (graph.node_type[graph.type_ptr[t] : graph.type_ptr[t + 1]] == t).all()
    assert graph.type_ptr[-1] == graph.num_nodes
    assert graph.nodes["node_type"].to_list() == [
        graph.node_type_names[t] for t in graph.node_type.tolist()
    ]


def test_properties_of_edges_agree_with_the_edges_one_by_one(graph: KnowledgeGraph) -> None:
    edges = to_triples(graph)
    assert graph.edge_type.tolist() == [r for r, _, _ in edges]
    assert graph.dst.tolist() == [dst for _, dst, _ in edges]
    assert graph.src.tolist() == [src for _, _, src in edges]
    degree = Counter(dst for _, dst, _ in edges)
    assert graph.degree.tolist() == [degree[i] for i in range(graph.num_nodes)]
    places = {edge: at for at, edge in enumerate(edges)}
    mirrored = [places[graph.reverse_edge_type[r], src, dst] for r, dst, src in edges]
    assert graph.reverse_edges.tolist() == mirrored
    assert graph.edge_type.dtype == graph.dst.dtype == graph.reverse_edges.dtype == torch.int32
    assert len(graph.sources) == len(graph.edge_types)
    for r, (src_type, _) in enumerate(graph.endpoint_types):
        wanted = sorted({src - graph.type_offsets[src_type] for kind, _, src in edges if kind == r})
        assert graph.sources[r].tolist() == wanted
        assert graph.sources[r].dtype == torch.int64


def test_has_edges_agrees_with_a_set(graph: KnowledgeGraph, rng: np.random.Generator) -> None:
    known = set(to_triples(graph))
    kind = rng.integers(0, len(graph.edge_types), 5000)
    first, last = np.array([graph.node_range(dst) for _, dst in graph.endpoint_types])[kind].T
    asked = np.stack([kind, rng.integers(first, last), rng.integers(0, graph.num_nodes, 5000)])
    asked = np.concatenate([asked, np.array(sorted(known)).T], axis=1)
    expected = [triple in known for triple in zip(*asked.tolist(), strict=True)]
    assert graph.has_edges(asked[2], asked[0], asked[1]).tolist() == expected
    assert any(expected[:5000])
    assert not all(expected)
    none = np.empty(0, np.int64)
    assert graph.has_edges(none, none, none).tolist() == []


def test_to_moves_every_tensor_and_keeps_the_rest(graph: KnowledgeGraph) -> None:
    moved = graph.to(torch.device("meta"))
    for name in ("node_type", "src", "indptr", "type_ptr"):
        assert getattr(moved, name).device.type == "meta", name
        assert getattr(graph, name).numpy() is not None
    for field in fields(graph):
        assert getattr(moved, field.name) is getattr(graph, field.name)


def test_to_and_back_is_the_same_graph(graph: KnowledgeGraph) -> None:
    assert graph.to(torch.device("cpu")) is graph
    copied = replace(graph, arrays=graph.arrays._replace(src=graph.arrays.src.copy()))
    assert copied.src is not graph.src
    assert to_triples(copied) == to_triples(graph)  # cached properties work in a copy too
    meta = graph.to(torch.device("meta"))
    assert meta.device.type == "meta"
    assert meta.num_nodes == graph.num_nodes
    assert meta.num_edges == graph.num_edges
    assert meta.endpoint_types == graph.endpoint_types
    assert meta.reverse_edge_type == graph.reverse_edge_type


def test_a_graph_of_one_fact(tmp_path: Path) -> None:
    graph = read_facts(tmp_path, [(node("drug", 0), "r", node("drug", 1))])
    assert to_triples(graph) == [(0, 0, 1), (0, 1, 0)]
    assert graph.reverse_edges.tolist() == [1, 0]
    ends = np.array([0, 1, 0, 1])
    found = graph.has_edges(ends, np.zeros(4, int), np.array([0, 0, 1, 1]))
    assert found.tolist() == [False, True, True, False]
