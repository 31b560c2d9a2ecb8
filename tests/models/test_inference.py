"""Inference gives the same bits for chunks of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from backends import KERNELS, TORCH
from graphs import graph_of, random_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import LayeredModel, embed_all
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import Backend


def make(model: str, graph: KnowledgeGraph) -> LayeredModel[Any]:
    generator = torch.Generator().manual_seed(0)
    if model == "graphsage":
        return GraphSage(graph.num_nodes, 24, 20, 2, generator)
    return Hgt(graph.type_offsets, len(graph.edge_types), 24, 20, 2, 4, generator)


@pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_the_bits_do_not_depend_on_the_size_of_chunks(
    model: str, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.ops.backend.BLOCK_ROWS", 20)
    # Sources in several ranges, which would be chosen by the degrees of a chunk's rows.
    monkeypatch.setattr("clinical_drug_discovery.ops.cpu.ranges._TABLE_BYTES", 1024)
    graph = graph_of(random_facts(rng, 900, {"drug": 90, "disease": 70, "gene/protein": 120}))
    trained = make(model, graph)
    wanted, *others = (embed_all(trained, graph, size, backend) for size in (10**6, 1, 41, 130))
    for other in others:
        assert torch.equal(other, wanted)


def test_the_result_of_one_chunk_is_not_copied(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(random_facts(rng, 100, {"drug": 9, "disease": 7, "gene/protein": 5}))
    trained = make("graphsage", graph)
    made: list[torch.Tensor] = []
    apply = GraphSage.apply_stage

    def noted(*args: Any) -> torch.Tensor:
        made.append(apply(*args))
        return made[-1]

    monkeypatch.setattr(GraphSage, "apply_stage", noted)
    assert embed_all(trained, graph, 21, TORCH) is made[-1]
    assert [len(part) for part in made] == [21, 21]
