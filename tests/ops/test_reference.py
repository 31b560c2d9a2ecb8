"""The torch backend: equal to the CPU's kernels, on every device that is here.

Tolerances, relative to the largest number: from the kernels in float64, where nothing is rounded to
bfloat16, 1e-9 in float64 and 1e-4 in float32; a GPU in float32 1e-4 from the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from backends import KERNELS, TORCH
from closeness import off
from graphs import Fact, to_rows
from torch import Tensor
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import MIN_KERNEL_EDGES, Backend, choose_backend
from clinical_drug_discovery.ops.blocks import full_block, range_block, row_block
from clinical_drug_discovery.ops.cpu import attention, head_maps, neighbors
from clinical_drug_discovery.system.devices import available_devices
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, RowPadding
from clinical_drug_discovery.training.objective.disease_pairs import PairBatch
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
from clinical_drug_discovery.training.objective.similarity_losses import contrastive_loss
from clinical_drug_discovery.training.optimizer import Adam

GPUS = [name for name in available_devices() if name != "cpu"]
needs_gpu = pytest.mark.skipif(not GPUS, reason="no MPS and no CUDA here")


def model_of(name: str, graph: KnowledgeGraph) -> GraphSage | Hgt:
    generator = torch.Generator().manual_seed(0)
    if name == "graphsage":
        return GraphSage(graph.num_nodes, 32, 24, 3, generator)
    return Hgt(graph.type_offsets, len(graph.edge_types), 32, 24, 2, 4, generator)


def step(
    model_name: str, graph: KnowledgeGraph, backend: Backend, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Loss, gradients and embeddings of one step from the same weights and batch."""
    here = backend.device
    model = model_of(model_name, graph).to(here, dtype)
    decoder = DistMult(len(graph.relations), 24, torch.Generator().manual_seed(0)).to(here, dtype)
    placed = graph.to(here)
    batch = EdgeSampler(graph, [6] * len(graph.edge_types), 0).sample()
    batch = RowPadding(graph, here).pad(batch)
    z = model(full_block(placed, backend), row_block(placed, batch.rows, backend))
    loss = link_prediction_loss(decoder, z, batch.to(here))
    loss.backward()
    named = {**dict(model.named_parameters()), **dict(decoder.named_parameters())}
    found = {name: w.grad.cpu() for name, w in named.items() if w.grad is not None}
    embeddings = embed_all(model, placed, 7, backend)  # type: ignore[misc]  # of either model
    return {**found, "loss": loss.detach().cpu(), "embeddings": embeddings}


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_the_torch_backend_equals_the_kernels(model: str, graph: KnowledgeGraph) -> None:
    wanted = step(model, graph, KERNELS, torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        ours = step(model, graph, TORCH, dtype)
        assert ours.keys() == wanted.keys()
        for name in wanted:
            assert off(ours[name], wanted[name]) < tolerance, (name, dtype)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_a_gpu_equals_the_same_path_on_the_cpu(
    model: str, graph: KnowledgeGraph, device: str
) -> None:
    ours = step(model, graph, Backend(torch.device(device), kernels=False))
    wanted = step(model, graph, TORCH)
    for name in wanted:
        assert off(ours[name], wanted[name]) < 1e-4, name


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_the_public_functions_run_there(tmp_path: Path, facts: list[Fact], device: str) -> None:
    edges = tmp_path / "kg.csv"
    to_rows(facts).write_csv(edges)
    for generate in (generate_gnn_embeddings, generate_hgt_embeddings):
        output = tmp_path / f"{generate.__name__}.npy"
        stats = generate(
            edges, output, embedding_dim=16, hidden_dim=16, num_layers=2, num_epochs=3,
            device=device, memory_budget="4GiB",
        )  # fmt: skip
        assert stats["device"] == device
        assert stats["device_memory_source"] in ("reported", "samples")


def test_a_small_graph_waits_for_no_compiler(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = tmp_path / "kg.csv"
    to_rows(facts).write_csv(edges)
    monkeypatch.setattr(
        "clinical_drug_discovery.training.compile_kernels.subprocess", None
    )  # not called
    for module in (neighbors, attention, head_maps):
        for name, value in vars(module).items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, None)
    for generate in (generate_gnn_embeddings, generate_hgt_embeddings):
        output = tmp_path / f"{generate.__name__}.npy"
        stats = generate(
            edges, output, embedding_dim=16, hidden_dim=16, num_layers=2, num_epochs=2,
            device="cpu",
        )  # fmt: skip
        assert stats["saved_nodes"] == stats["num_nodes"]


def test_the_choice_depends_on_the_device_and_the_size_alone() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not choose_backend(cpu, MIN_KERNEL_EDGES - 1).kernels
    assert choose_backend(cpu, MIN_KERNEL_EDGES).kernels
    assert not choose_backend(cuda, 10**9).kernels


@pytest.mark.parametrize("first", [0, 30, 55])
def test_edges_of_every_kind_of_block(graph: KnowledgeGraph, first: int) -> None:
    """Each edge of a block comes once, whatever the size of the chunks."""
    rows = torch.arange(first, min(first + 25, graph.num_nodes))
    for block in (
        full_block(graph, TORCH),
        range_block(graph, first, int(rows[-1]) + 1, TORCH),
        row_block(graph, rows, TORCH),
    ):
        targets = (
            block.rows
            if isinstance(block.rows, Tensor)
            else torch.arange(block.rows.start, block.rows.stop)
        )
        for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
            chosen = (graph.edge_type == r) & torch.isin(graph.dst.long(), targets)
            wanted = sorted(
                zip(graph.src[chosen].tolist(), graph.dst[chosen].tolist(), strict=True)
            )
            first_src, first_row = graph.type_offsets[src_type], block.row_ptr[dst_type]
            for chunk_size in (1, 8, 1_000):
                found = []
                for row, source, real in block.edges.chunks(r, chunk_size):
                    kept = slice(None) if real is None else real
                    src = (source[kept] + first_src).tolist()
                    dst = targets[row[kept] + first_row].tolist()
                    found += list(zip(src, dst, strict=True))
                assert sorted(found) == wanted


def test_doctor_plans_for_a_device_that_is_not_here(tmp_path: Path, facts: list[Fact]) -> None:
    edges = tmp_path / "kg.csv"
    to_rows(facts).write_csv(edges)
    runner = CliRunner()
    flags = ["doctor", "--plan", "--edges", str(edges), "--json"]
    plans = {}
    for device in ("cpu", "mps", "cuda"):
        result = runner.invoke(
            make_app(), [*flags, "--memory-budget", "5.33GB", "--device", device]
        )
        assert result.exit_code == 0, result.output
        plans[device] = json.loads(result.stdout)["plan"]
        for plan in plans[device].values():
            assert plan["fits"]
            assert plan["device"] == device
    assert plans["mps"]["hgt"]["hidden_dim"] == 256
    small = runner.invoke(make_app(), [*flags, "--memory-budget", "1MB"])
    assert not json.loads(small.stdout)["plan"]["hgt"]["fits"]
    for mistake in (["doctor", "--plan"], [*flags, "--memory-budget", "much"]):
        assert runner.invoke(make_app(), mistake).exit_code == 2


@pytest.mark.parametrize("model_name", ["graphsage", "hgt"])
def test_training_needs_no_value_from_the_device(model_name: str, graph: KnowledgeGraph) -> None:
    """On the meta device, where tensors have no values: to ask for one, or to mix it in, fails."""
    here = torch.device("meta")
    meta = Backend(here, kernels=False)
    model = model_of(model_name, graph).to(here)
    decoder = DistMult(len(graph.relations), 24, torch.Generator().manual_seed(0)).to(here)
    placed, padding = graph.to(here), RowPadding(graph, here)
    sampler = EdgeSampler(graph, [6] * len(graph.edge_types), 0)
    optimizer = Adam([*model.parameters(), *decoder.parameters()], 0.01)
    for _ in range(2):
        batch = padding.pad(sampler.sample())
        z = model(full_block(placed, meta), row_block(placed, batch.rows, meta))
        loss = link_prediction_loss(decoder, z, batch.to(here))
        nodes = batch.rows[:4]
        pairs = PairBatch(nodes[:2], nodes[2:], torch.eye(2, dtype=torch.bool))
        loss = loss + contrastive_loss(z[torch.searchsorted(batch.rows, pairs.nodes)], pairs, 0.1)
        loss.backward()
        optimizer.step()
        assert loss.device == here
        with pytest.raises(RuntimeError):
            loss.item()
