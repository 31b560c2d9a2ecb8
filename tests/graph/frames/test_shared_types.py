"""A graph with the types of another graph: the same nodes and edges, and the embeddings of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graphs import Fact, graph_of, to_triples

from clinical_drug_discovery.graph.frames.shared_types import with_types_of
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, without_edges
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import choose_backend
from clinical_drug_discovery.system.errors import InputError


@pytest.fixture
def part(facts: list[Fact]) -> KnowledgeGraph:
    return graph_of([fact for fact in facts if "disease" not in (fact[0].type, fact[2].type)])


def test_nodes_and_edges_stay(graph: KnowledgeGraph, part: KnowledgeGraph) -> None:
    found = with_types_of(part, graph)
    assert found.node_type_names == graph.node_type_names
    assert found.edge_types == graph.edge_types
    assert to_triples(found) == to_triples(part)
    assert torch.equal(found.dst[: part.num_edges], part.dst)
    assert torch.equal(found.degree, part.degree)
    with pytest.raises(InputError, match="must not have the node type disease: the model lacks"):
        with_types_of(graph, part)


def make(model: str, graph: KnowledgeGraph) -> Any:
    generator = torch.Generator().manual_seed(3)
    if model == "hgt":
        return Hgt(graph.type_offsets, len(graph.edge_types), 8, 8, 2, 2, generator)
    return GraphSage(graph.num_nodes, 8, 8, 2, generator)


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_a_model_computes_as_if_the_missing_types_were_alone(
    graph: KnowledgeGraph, part: KnowledgeGraph, model: str
) -> None:
    small = with_types_of(part, graph)
    key = ("node_type", "node_id")
    number = {one: row for row, one in enumerate(graph.nodes.select(key).rows())}
    rows = torch.tensor([number[one] for one in part.nodes.select(key).rows()])
    kinds = [r for r, kind in enumerate(graph.edge_types) if "disease" in kind]
    cut = without_edges(graph, np.isin(graph.edge_type.numpy(), kinds))
    first, second = (make(model, one) for one in (cut, small))
    vectors = first.node_embedding.detach()[rows]
    second.load_state_dict({**first.state_dict(), "node_embedding": vectors})
    backend = choose_backend(torch.device("cpu"), 1)
    whole, some = (
        embed_all(made, one, 1024, backend) for made, one in ((first, cut), (second, small))
    )
    assert torch.allclose(whole[rows], some, atol=1e-5)
