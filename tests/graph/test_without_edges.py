"""`without_edges` removes edges together with their reverse edges, even all of a type."""

from __future__ import annotations

import numpy as np
import torch

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, without_edges
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, divide_equally


def test_edges_leave_with_their_reverse(graph: KnowledgeGraph, rng: np.random.Generator) -> None:
    removed = rng.random(graph.num_edges) < 0.2
    left = without_edges(graph, removed)
    edges = list(zip(graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True))
    removed_edges = {edges[i] for i in np.flatnonzero(removed)}
    removed_edges |= {(dst, graph.reverse_edge_type[r], src) for src, r, dst in removed_edges}
    expected = [edge for edge in edges if edge not in removed_edges]  # still sorted
    found = zip(left.src.tolist(), left.edge_type.tolist(), left.dst.tolist(), strict=True)
    assert list(found) == expected
    reverse = left.reverse_edges.long()
    assert torch.equal(left.src[reverse], left.dst)
    assert torch.equal(left.dst[reverse], left.src)
    assert torch.equal(left.degree, torch.bincount(left.dst, minlength=left.num_nodes))
    assert graph.num_edges == len(edges)  # the whole graph does not change


def test_an_edge_type_may_lose_all_its_edges(graph: KnowledgeGraph) -> None:
    kind = graph.edge_types.index(("drug", "indication", "disease"))
    left = without_edges(graph, (graph.edge_type == kind).numpy())
    assert left.edge_types == graph.edge_types
    assert left.reverse_edge_type == graph.reverse_edge_type
    counts = left.edge_type_counts
    assert (
        counts[kind]
        == counts[left.reverse_edge_type[kind]]
        == 0
        < counts.min(where=counts > 0, initial=9)
    )
    assert left.num_edges == graph.num_edges - 2 * graph.edge_type_counts[kind]
    assert len(left.sources[kind]) == len(left.src_of(kind)) == len(left.dst_of(kind)) == 0
    assert not left.has_edges(
        graph.src_of(kind).numpy(),
        np.full(len(graph.src_of(kind)), kind),
        graph.dst_of(kind).numpy(),
    ).any()
    assert torch.equal(left.degree, torch.bincount(left.dst, minlength=left.num_nodes))
    sizes = divide_equally(counts, 50)
    assert sum(sizes) == 50
    assert sizes[kind] == 0
    for drawn in (sizes, counts):
        batch = EdgeSampler(left, drawn, seed=0).sample()
        assert len(batch.src) == sum(drawn)
