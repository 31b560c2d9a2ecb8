"""Adjacency matrices agree with the edges one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from clinical_drug_discovery.graph import adjacency as module
from clinical_drug_discovery.graph.adjacency import (
    adjacency,
    adjacency_between,
    dense_product,
    neighbors_of,
)
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.system.errors import InputError


def test_one_edge_type(graph: KnowledgeGraph) -> None:
    for r, edge_type in enumerate(graph.edge_types):
        src_type, dst_type = graph.endpoint_types[r]
        (first_src, stop_src), (first_dst, stop_dst) = map(graph.node_range, (src_type, dst_type))
        expected = np.zeros((stop_src - first_src, stop_dst - first_dst), np.float32)
        expected[graph.src_of(r) - first_src, graph.dst_of(r) - first_dst] = 1
        matrix = adjacency(graph, edge_type)
        assert matrix.dtype == np.float32
        assert matrix.has_sorted_indices
        np.testing.assert_array_equal(matrix.toarray(), expected)


def test_several_relations_at_once(graph: KnowledgeGraph) -> None:
    kinds = [k for k in graph.edge_types if (k.src_type, k.dst_type) == ("drug", "disease")]
    assert len(kinds) == 2
    parts = [adjacency(graph, kind).toarray() for kind in kinds]
    union = adjacency_between(graph, "drug", "disease").toarray()
    np.testing.assert_array_equal(union, np.maximum(*parts))
    for kind, part in zip(kinds, parts, strict=True):
        one = adjacency_between(graph, "drug", "disease", {kind.relation, "unknown"})
        np.testing.assert_array_equal(one.toarray(), part)


def test_relations_and_types_that_a_graph_lacks(graph: KnowledgeGraph) -> None:
    with pytest.raises(InputError, match="no nodes of type 'exposure'"):
        adjacency_between(graph, "drug", "exposure")
    nothing = adjacency_between(graph, "drug", "disease", ())
    assert nothing.shape == adjacency_between(graph, "drug", "disease").shape
    assert nothing.nnz == 0


def test_the_neighbors_of_a_node(graph: KnowledgeGraph) -> None:
    matrices = {kind: adjacency(graph, kind).toarray() for kind in graph.edge_types}
    for node in range(0, graph.num_nodes, 7):
        kind = graph.node_type_names[int(graph.node_type[node])]
        first = {name: graph.node_range(i)[0] for i, name in enumerate(graph.node_type_names)}
        expected = {
            edge_type: first[edge_type.dst_type] + np.flatnonzero(matrix[node - first[kind]])
            for edge_type, matrix in matrices.items()
            if edge_type.src_type == kind and matrix[node - first[kind]].any()
        }
        found = neighbors_of(graph, node)
        assert found.keys() == expected.keys()
        assert all(found[name].tolist() == expected[name].tolist() for name in found)


@pytest.mark.parametrize("share", [0.02, 0.3])  # of the columns of a row; some or all are read
def test_both_ways_to_a_dense_product_give_the_same_bytes(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    left, right = (
        scipy.sparse.random_array(shape, density=density, format="csr", dtype=np.float32, rng=rng)
        for shape, density in (((12, 300), share), ((300, 70), 0.4))
    )
    unsorted = scipy.sparse.csr_array(left.copy())
    for start, stop in zip(unsorted.indptr, unsorted.indptr[1:], strict=False):
        unsorted.indices[start:stop] = unsorted.indices[start:stop][::-1].copy()
        unsorted.data[start:stop] = unsorted.data[start:stop][::-1].copy()
    unsorted.has_sorted_indices = False
    found = []
    for at_once in (1e-9, 1e9):  # never and always row by row
        monkeypatch.setattr(module, "_ROWS_AT_ONCE", at_once)
        found += [dense_product(left, right), dense_product(unsorted, right)]
    np.testing.assert_allclose(found[0], left.toarray() @ right.toarray(), rtol=1e-5)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
