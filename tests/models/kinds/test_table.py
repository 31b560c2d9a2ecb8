"""Every entry of the table of models keeps the promises that the other rooms rely on."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from importlib import import_module
from typing import Any

import pytest
import torch
from backends import TORCH

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.kinds.interface import Settings, Sizes
from clinical_drug_discovery.models.kinds.table import MODELS, entry_of, kind_of
from clinical_drug_discovery.ops.blocks import full_block
from clinical_drug_discovery.system.errors import InputError

SIZES = Sizes(
    num_nodes=10_000, num_edges=80_000, num_node_types=3, num_edge_types=4, largest_type=6_000,
    largest_edge_type=40_000, step_nodes=10_000, step_rows=3_000, loss_bytes=10**6,
    is_sampled=False, stored=2, edge_chunk=0, chunk_nodes=4_096,
)  # fmt: skip


@pytest.fixture(params=MODELS)
def settings(request: pytest.FixtureRequest) -> Settings:
    small = {"embedding_dim": 12, "hidden_dim": 16, "num_layers": 2}
    return settings_of(request.param, small)


def test_names_agree(settings: Settings) -> None:
    entry, kind = MODELS[settings.model], kind_of(settings.model)
    assert kind.settings.__name__ == entry.settings
    names = {field.name for field in fields(kind.settings)}
    assert settings.positives.name in names
    assert getattr(settings, settings.positives.name) == settings.positives.number
    assert settings.hidden_dim % settings.hidden_unit == 0
    if entry.function is not None:
        module, name = entry.function
        function = getattr(import_module(f"clinical_drug_discovery.{module}"), name)
        assert names <= set(inspect.signature(function).parameters)


def test_the_stages_are_the_model(settings: Settings, graph: KnowledgeGraph) -> None:
    generator = torch.Generator().manual_seed(1)
    kind = kind_of(settings.model)
    model = kind.make(graph.type_offsets, len(graph.edge_types), settings, generator)
    assert model.node_embedding.shape == (graph.num_nodes, 16)
    assert model.stages[-1][1] == 12
    whole = full_block(graph, TORCH)
    with torch.no_grad():
        z = model(whole, whole)
    torch.testing.assert_close(embed_all(model, graph, 7, TORCH), z)


def test_larger_models_and_steps_need_more(settings: Settings) -> None:
    needs = kind_of(settings.model).needs
    few = needs(SIZES, settings)
    changed: list[tuple[Sizes, Any]] = [
        (SIZES, replace(settings, hidden_dim=64)),
        (SIZES, replace(settings, num_layers=4)),
        (replace(SIZES, step_nodes=20_000, step_rows=9_000), settings),
    ]
    for sizes, other in changed:
        assert needs(sizes, other).step > few.step
    assert needs(SIZES, replace(settings, embedding_dim=64)).weights > few.weights
    assert needs(replace(SIZES, chunk_nodes=6_000), settings).inference > few.inference


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"model \(got 'gcn'\) must be one of graphsage, hgt"):
        entry_of("gcn")
