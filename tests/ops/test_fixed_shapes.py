"""On GPUs the shapes of operations stop changing after the first steps, and change no result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backends import TORCH
from closeness import off
from graphs import graph_of, random_facts
from mps.witnesses import Operations
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.ops.fixed_shapes import FixedSizes, filled_size
from clinical_drug_discovery.training.batches import FullBatch, SubgraphBatches
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, RowPadding
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
from clinical_drug_discovery.training.optimizer import ModelOptimizer
from clinical_drug_discovery.training.train import training_step

FIXED = "clinical_drug_discovery.ops.fixed_shapes.DEVICE_TYPES"
CPU = torch.device("cpu")
MODELS = pytest.mark.parametrize("model", ["graphsage", "hgt"])
#: They reserve memory, and compute nothing.
RESERVING = ("new_empty", "empty_like", "empty.memory_format")
WARM_UP, STEPS = 6, 24


@pytest.fixture(scope="module")
def larger() -> KnowledgeGraph:
    """A graph whose batches hold some of its nodes."""
    sizes = {"drug": 300, "disease": 200, "gene/protein": 500}
    return graph_of(random_facts(np.random.default_rng(0), 4_000, sizes))


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU fills up as GPUs do, and batches have few candidates."""
    monkeypatch.setattr(FIXED, ("cpu",))
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 24)


def model_of(name: str, graph: KnowledgeGraph) -> GraphSage | Hgt:
    generator = torch.Generator().manual_seed(0)
    if name == "graphsage":
        return GraphSage(graph.num_nodes, 16, 12, 2, generator)
    return Hgt(graph.type_offsets, len(graph.edge_types), 16, 12, 2, 2, generator)


def shapes_by_step(model_name: str, graph: KnowledgeGraph, *, whole: bool) -> list[int]:
    """The number of shapes that operations have seen after each step."""
    model, generator = model_of(model_name, graph), torch.Generator().manual_seed(0)
    decoder = DistMult(len(graph.relations), 12, generator)
    sampler = EdgeSampler(graph, [4] * len(graph.edge_types), 0)
    batches = FullBatch(graph, TORCH) if whole else SubgraphBatches(graph, TORCH, 400, 0)
    optimizer = ModelOptimizer(model, decoder, 0.01, STEPS, lazy=not whole)
    counts, seen = [], Operations()
    for _ in range(STEPS):
        batch = batches.next(sampler.sample())
        with seen:
            training_step(model, decoder, optimizer, batch)
        shapes = (found for name, found in seen.shapes.items() if name not in RESERVING)
        counts.append(sum(len(found) for found in shapes))
    return counts


@MODELS
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "parts"])
@pytest.mark.usefixtures("on_gpus")
def test_shapes_stop_growing(model: str, whole: bool, larger: KnowledgeGraph) -> None:
    counts = shapes_by_step(model, larger, whole=whole)
    assert counts[-1] <= 1.02 * counts[WARM_UP]


@MODELS
@pytest.mark.parametrize("planted", ["rows", "chunks"])
@pytest.mark.usefixtures("on_gpus")
def test_without_filling_they_grow_with_every_step(
    model: str, planted: str, larger: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted == "rows":
        monkeypatch.setattr(FixedSizes, "fit", lambda self, counts: counts)
    else:
        name = "clinical_drug_discovery.ops.blocks.filled_size"
        monkeypatch.setattr(name, lambda count, most, device: count)
    counts = shapes_by_step(model, larger, whole=True)
    assert counts[-1] > 1.2 * counts[WARM_UP]


@MODELS
def test_filling_changes_no_result(
    model: str, graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 4)
    wanted = gradients(model, graph)
    monkeypatch.setattr(FIXED, ("cpu",))
    monkeypatch.setattr("clinical_drug_discovery.ops.reference.EDGE_CHUNK", 8)
    monkeypatch.setattr("clinical_drug_discovery.ops.fixed_shapes._LEAST_EDGES", 4)
    for name, gradient in gradients(model, graph).items():
        assert off(gradient, wanted[name]) < 1e-9, name


def gradients(model_name: str, graph: KnowledgeGraph) -> dict[str, Tensor]:
    """Gradients of one step in float64."""
    model, generator = model_of(model_name, graph).double(), torch.Generator().manual_seed(0)
    decoder = DistMult(len(graph.relations), 12, generator).double()
    batch = EdgeSampler(graph, [2] * len(graph.edge_types), 0).sample()
    batch = RowPadding(graph, CPU).pad(batch)
    z = model(full_block(graph, TORCH), row_block(graph, batch.rows, TORCH))
    link_prediction_loss(decoder, z, batch).backward()
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.usefixtures("on_gpus")
def test_filled_batches_keep_their_facts(larger: KnowledgeGraph) -> None:
    sampler, padding = EdgeSampler(larger, [1] * len(larger.edge_types), 0), RowPadding(larger, CPU)
    batches = [sampler.sample() for _ in range(8)]
    filled = [padding.pad(batch) for batch in batches]
    for batch, more in zip(batches, filled, strict=True):
        assert torch.equal(more.rows, more.rows.unique())
        assert torch.equal(batch.relation, more.relation)
        for end in ("src", "dst", "candidates"):
            assert torch.equal(batch.rows[getattr(batch, end)], more.rows[getattr(more, end)])
    assert len({len(batch.rows) for batch in filled}) < len({len(b.rows) for b in batches})


def test_the_cpu_fills_nothing_up(graph: KnowledgeGraph) -> None:
    batch = EdgeSampler(graph, [1] * len(graph.edge_types), 0).sample()
    assert RowPadding(graph, CPU).pad(batch) is batch
    assert filled_size(77, 1_000, CPU) == 77


def test_chunks_are_powers_of_two() -> None:
    mps = torch.device("mps")
    sizes = [filled_size(count, 1_000, mps) for count in (1, 64, 65, 128, 600, 1_000)]
    assert sizes == [64, 64, 128, 128, 1_000, 1_000]
