"""GPUs prepare operations for each shape: there are a handful, and they change no result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from closeness import off
from mps.audited_paths import audited_paths
from mps.witnesses import Operations
from torch import Tensor

from clinical_drug_discovery.graph.chunks import steady_size
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import device_path, windows
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, SteadyRows
from clinical_drug_discovery.training.losses import link_prediction_loss
from clinical_drug_discovery.training.optimizer import Adam

#: What Metal, cuBLAS and oneDNN prepare for each shape.
HEAVY = (
    "mm", "addmm", "addmm_", "bmm", "index_add_", "scatter_reduce_.two", "native_layer_norm",
    "native_layer_norm_backward", "gelu", "gelu_backward", "embedding", "embedding_dense_backward",
    "_log_softmax", "_log_softmax_backward_data", "bucketize.Tensor", "cat", "constant_pad_nd",
)  # fmt: skip
MOST_HEAVY = 8
#: Of any operation. What is beyond a handful are mostly gathers and element-wise operations: two
#: heights, of all nodes and of a batch's, times the widths of a model.
MOST = {
    "graphsage training": 9,
    "graphsage training in bfloat16": 10,
    "graphsage training on parts": 11,
    "graphsage inference": 6,
    "hgt training": 14,
    "hgt training in bfloat16": 14,
    "hgt training on parts": 16,
    "hgt inference": 9,
}
#: They reserve memory, and compute nothing.
RESERVING = ("new_empty", "empty_like", "empty.memory_format")
MODELS = ["graphsage", "hgt"]
TRAINING = ["training", "training in bfloat16", "training on parts"]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small graph as many chunks as of a large one, and batches of some of its nodes."""
    sizes = {
        "mps.audited_paths._SCALE": 0.03,
        "mps.audited_paths._PART": 0.5,
        "mps.audited_paths._SAGE_FACTS": 100,
        "mps.audited_paths._HGT_FACTS": 3,
        "clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES": 24,
        "clinical_drug_discovery.graph.chunks.MOST_ROWS": 64,
        "clinical_drug_discovery.ops.edge_chunks._CHUNK_COST": 64,
        "clinical_drug_discovery.graph.knowledge_graph._SOURCE_CHUNK": 128,
        "clinical_drug_discovery.graph.knowledge_graph._CHUNK_COST": 16,
        "clinical_drug_discovery.ops.reference.EDGE_CHUNK": 1024,
        "clinical_drug_discovery.ops.listwise.FACT_CHUNK": 64,
        "clinical_drug_discovery.training.optimizer._WIDE_CHUNK": 1 << 12,
        "clinical_drug_discovery.training.optimizer._FEW_CHUNKS": 32,
    }
    for name, size in sizes.items():
        monkeypatch.setattr(name, size)


def too_many_shapes(model: str, part: str, num_epochs: int) -> dict[str, int]:
    """How many shapes of arguments and results operations see that see more than they may."""
    (path,) = (p for p in audited_paths(num_epochs) if p.name == f"{model} {part}")
    with device_path(), Operations() as seen:
        path.run()
    most = MOST[path.name]
    counts = {name: len(found) for name, found in seen.shapes.items() if name not in RESERVING}
    return {name: n for name, n in counts.items() if n > (MOST_HEAVY if name in HEAVY else most)}


def test_the_audited_graph_has_all_types_of_primekg(tmp_path: Path) -> None:
    synthesize_graph(tmp_path / "kg.parquet", scale=0.01)
    graph = read_graph(tmp_path / "kg.parquet")
    assert len(graph.node_type_names) == 10
    assert len(graph.relations) == 30
    assert len(graph.edge_types) == 50


@pytest.mark.parametrize("part", TRAINING)
@pytest.mark.parametrize("model", MODELS)
def test_training_sees_a_handful_of_shapes(model: str, part: str, small_chunks: None) -> None:
    """However many types of nodes and edges there are, and epochs."""
    assert too_many_shapes(model, part, 4) == {}


@pytest.mark.parametrize("model", MODELS)
def test_in_a_small_graph_there_are_no_more(model: str) -> None:
    assert too_many_shapes(model, "training", 2) == {}


@pytest.mark.parametrize("model", MODELS)
def test_inference_sees_a_handful_of_shapes(model: str) -> None:
    assert too_many_shapes(model, "inference", 2) == {}


def two_steps(model_name: str, graph: KnowledgeGraph) -> dict[str, Tensor]:
    """Weights after two steps along the path of devices, in float64."""
    with device_path():
        generator = torch.Generator().manual_seed(0)
        model: GraphSage | Hgt = (
            GraphSage(graph.num_nodes, 16, 12, 3, generator)
            if model_name == "graphsage"
            else Hgt(graph.type_offsets, len(graph.edge_types), 16, 12, 2, 4, generator)
        )
        model, decoder = (
            model.double(),
            DistMult(len(graph.relations), 12, torch.Generator().manual_seed(0)).double(),
        )
        optimizer = Adam([*model.parameters(), *decoder.parameters()], 0.01)
        sampler = EdgeSampler(graph, [6] * len(graph.edge_types), 0)
        steady = SteadyRows(graph, graph.device)
        for _ in range(2):
            batch = steady.fill(sampler.sample())
            z = model(full_block(graph), row_block(graph, batch.rows))
            link_prediction_loss(decoder, z, batch).backward()
            optimizer.step()
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("model", MODELS)
def test_no_result_depends_on_the_sizes(
    model: str, graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = two_steps(model, graph)
    graph.__dict__.pop("room"), graph.__dict__.pop("source_chunks", None)
    for name, size in {
        "chunks.MOST_ROWS": 7,
        "chunks.FEW_ROWS": 2,
        "graph._SOURCE_CHUNK": 4,
        "ops.reference.EDGE_CHUNK": 8,
        "ops.reference._GROUP": 2,
        "ops.listwise.FACT_CHUNK": 5,
        "optimizer._WIDE_CHUNK": 50,
    }.items():
        monkeypatch.setattr(name, size)
    for name, weight in two_steps(model, graph).items():
        assert off(weight, wanted[name]) < 1e-9, name


@pytest.mark.parametrize("num_rows", [1, 5, 12, 13, 30])
def test_windows_take_each_row_once(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinical_drug_discovery.graph.chunks.MOST_ROWS", 12)
    for start in range(num_rows + 1):
        for stop in range(start, num_rows + 1):
            taken = torch.zeros(num_rows, 1)
            written = torch.zeros(num_rows, 1)
            with device_path():
                for window in windows(taken, start, stop):
                    taken[window.rows] += window.only(torch.ones_like(taken[window.rows]))
                    window.put(written, written[window.rows] + 1)
                    assert len(taken[window.rows]) == min(num_rows, 12)
            wanted = torch.zeros(num_rows, 1)
            wanted[start:stop] = 1
            assert torch.equal(taken, wanted)
            assert torch.equal(written, wanted)


def test_the_cheapest_size() -> None:
    assert steady_size([], 1024, 100) == 1024
    assert steady_size([1] * 50, 1024, 100) == 64
    assert steady_size([10**6, 10**6, 3], 1024, 100) == 1024


def test_joined_weights_move_as_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinical_drug_discovery.training.optimizer._WIDE_CHUNK", 16)
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 4), (3, 5), (), (7,), (2, 2)]
    ours, theirs = (
        [torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in shapes]
        for _ in range(2)
    )
    with device_path():
        optimizer = Adam(ours, 0.1)
        wanted = torch.optim.Adam(theirs, 0.1)
        for _ in range(3):
            for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
                mine.grad = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
                other.grad = mine.grad.clone()
            optimizer.step()
            wanted.step()
            assert all(weight.grad is None for weight in ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
