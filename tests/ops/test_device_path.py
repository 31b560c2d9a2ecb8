"""The path of other devices: equal to the CPU's kernels, on every device that is here.

Without a GPU the path itself still runs, on the CPU. Tolerances, relative to the largest number:
from the CPU's kernels in float64, which round nothing to bfloat16, 1e-9 in float64 and 1e-4 in
float32; a GPU in float32 1e-4 from the same path on the CPU. With stored rows and products in
bfloat16, 2**-4 of the length of each gradient from the same path in float32: the CPU's kernels,
which round as often, are as far from it.
"""

from __future__ import annotations

import json
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import off, off_in_all
from graphs import Fact, graph_of, node, to_rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import device_path, in_bfloat16
from clinical_drug_discovery.ops.blocks import full_block, range_block, row_block
from clinical_drug_discovery.ops.mean import add_mean
from clinical_drug_discovery.system.devices import available_devices
from clinical_drug_discovery.training.disease_pairs import PairBatch
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, SteadyRows
from clinical_drug_discovery.training.losses import contrastive_loss, link_prediction_loss
from clinical_drug_discovery.training.optimizer import Adam

GPUS = [name for name in available_devices() if name != "cpu"]
needs_gpu = pytest.mark.skipif(not GPUS, reason="no MPS and no CUDA here")
BFLOAT16_STEP = 2**-4


def step(
    model_name: str,
    graph: KnowledgeGraph,
    device: str,
    path: bool,
    dtype: torch.dtype = torch.float32,
    bfloat16: bool = False,
) -> dict[str, Tensor]:
    """Loss, gradients and embeddings of one step from the same weights and batch."""
    here = torch.device(device)
    context: AbstractContextManager[None] = device_path() if path else nullcontext()
    with context, in_bfloat16(bfloat16):
        generator = torch.Generator().manual_seed(0)
        model: GraphSage | Hgt = (
            GraphSage(graph.num_nodes, 32, 24, 3, generator)
            if model_name == "graphsage"
            else Hgt(graph.type_offsets, len(graph.edge_types), 32, 24, 2, 4, generator)
        )
        model = model.to(here, dtype)
        decoder = DistMult(len(graph.relations), 24, torch.Generator().manual_seed(0)).to(
            here, dtype
        )
        placed = graph.to(here)
        batch = EdgeSampler(graph, [6] * len(graph.edge_types), 0).sample()
        batch = SteadyRows(graph, here).fill(batch)
        z = model(full_block(placed), row_block(placed, batch.rows))
        loss = link_prediction_loss(decoder, z, batch.to(here))
        loss.backward()
        named = {**dict(model.named_parameters()), **dict(decoder.named_parameters())}
        found = {name: w.grad.cpu() for name, w in named.items() if w.grad is not None}
        embeddings = embed_all(model, placed, 7)  # type: ignore[misc]  # of either model
    return {**found, "loss": loss.detach().cpu(), "embeddings": embeddings}


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_the_device_path_equals_the_kernels(model: str, graph: KnowledgeGraph) -> None:
    wanted = step(model, graph, "cpu", False, torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        ours = step(model, graph, "cpu", True, dtype)
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
    ours, wanted = step(model, graph, device, False), step(model, graph, "cpu", True)
    for name in wanted:
        assert off(ours[name], wanted[name]) < 1e-4, name


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_in_bfloat16_a_step_is_nearly_the_same(model: str, graph: KnowledgeGraph) -> None:
    wanted = step(model, graph, "cpu", True)
    ours = step(model, graph, "cpu", True, bfloat16=True)
    for name in wanted:
        assert ours[name].dtype == torch.float32
        assert 0 < off_in_all(ours[name], wanted[name]) < BFLOAT16_STEP, name
    in_double = step(model, graph, "cpu", True, torch.float64, bfloat16=True)
    exact = step(model, graph, "cpu", True, torch.float64)
    for name in exact:  # of which nothing is rounded
        assert off(in_double[name], exact[name]) < 1e-12, name


class Halved(TorchDispatchMode):
    """Records the types of what is multiplied, and whether rows are gathered in bfloat16."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
        self.products: set[torch.dtype] = set()
        self.gathers = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "addmm", "addmm_", "bmm"):
            self.products |= {tensor.dtype for tensor in args if isinstance(tensor, Tensor)}
        self.gathers |= name == "index" and args[0].dtype == torch.bfloat16
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model_name", ["graphsage", "hgt"])
def test_products_and_stored_rows_are_bfloat16_in_whatever_thread_the_backward_pass_runs(
    model_name: str, graph: KnowledgeGraph
) -> None:
    """Autograd has threads of its own for CUDA: they do not see what the caller has chosen."""
    generator = torch.Generator().manual_seed(0)
    model: GraphSage | Hgt = (
        GraphSage(graph.num_nodes, 32, 24, 3, generator)
        if model_name == "graphsage"
        else Hgt(graph.type_offsets, len(graph.edge_types), 32, 24, 2, 4, generator)
    )
    rows = torch.arange(5, graph.num_nodes, 3)
    by_z = torch.randn(len(rows), 24, generator=generator)

    def train(backward: Any, bfloat16: bool = True) -> tuple[Halved, dict[str, Tensor]]:
        model.zero_grad()
        with device_path(), in_bfloat16(bfloat16), Halved() as forward:
            z = model(full_block(graph), row_block(graph, rows))
        backward(z)
        return forward, {name: w.grad for name, w in model.named_parameters() if w.grad is not None}

    seen = Halved()

    def watched(z: Tensor) -> None:
        with seen:  # of this thread alone
            z.backward(by_z)

    def elsewhere(z: Tensor) -> None:
        thread = threading.Thread(target=watched, args=(z,))
        thread.start()
        thread.join()

    forward, ours = train(elsewhere)
    for pass_ in (forward, seen):
        assert pass_.products == {torch.bfloat16}
        assert pass_.gathers
    ours = {name: grad.clone() for name, grad in ours.items()}
    _, here = train(lambda z: z.backward(by_z))
    assert ours.keys() == here.keys() == dict(model.named_parameters()).keys()
    for name in ours:
        assert ours[name].dtype == torch.float32
        assert off(ours[name], here[name]) < 1e-6, name
    seen = Halved()
    forward, _ = train(elsewhere, bfloat16=False)
    assert forward.products == seen.products == {torch.float32}
    assert not forward.gathers | seen.gathers


@pytest.mark.skipif("cuda" not in GPUS, reason="no CUDA here")
@pytest.mark.gpu
@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_cuda_in_bfloat16_is_near_the_same_path_on_the_cpu(
    model: str, graph: KnowledgeGraph
) -> None:
    ours = step(model, graph, "cuda", False, bfloat16=True)
    wanted = step(model, graph, "cpu", True)
    for name in wanted:
        assert ours[name].dtype == torch.float32
        assert 0 < off_in_all(ours[name], wanted[name]) < BFLOAT16_STEP, name


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_the_public_functions_run_there(tmp_path: Path, facts: list[Fact], device: str) -> None:
    edges = tmp_path / "kg.csv"
    to_rows(facts).write_csv(edges)
    for generate in (generate_gnn_embeddings, generate_hgt_embeddings):
        stats = generate(
            edges, tmp_path / "e.npy", embedding_dim=16, hidden_dim=16, num_layers=2, num_epochs=3,
            device=device, memory_budget="4GiB",
        )  # fmt: skip
        assert stats["device"] == device
        assert stats["device_memory_source"] in ("reported", "samples")


@pytest.mark.parametrize("first", [0, 30, 55])
def test_edges_of_every_kind_of_block(graph: KnowledgeGraph, first: int) -> None:
    """Each edge of a block comes once, whatever the size of the chunks."""
    rows = torch.arange(first, min(first + 25, graph.num_nodes))
    for block in (
        full_block(graph),
        range_block(graph, first, int(rows[-1]) + 1),
        row_block(graph, rows),
    ):
        targets = (
            block.rows
            if isinstance(block.rows, Tensor)
            else torch.arange(block.rows.start, block.rows.stop)
        )
        for r in range(len(graph.endpoint_types)):
            chosen = (graph.edge_type == r) & torch.isin(graph.dst.long(), targets)
            wanted = sorted(
                zip(graph.src[chosen].tolist(), graph.dst[chosen].tolist(), strict=True)
            )
            for chunk_size in (1, 8, 1_000):
                found = []
                for row, source, real in block.edges.chunks(range(r, r + 1), chunk_size):
                    kept = slice(None) if real is None else real
                    src, dst = source[kept].tolist(), targets[row[kept]].tolist()
                    found += list(zip(src, dst, strict=True))
                assert sorted(found) == wanted


def test_means_of_ranges_whose_edge_types_follow_each_other() -> None:
    """Of the later nodes alone, both relations' edges lie side by side: nodes before have one."""
    ring = [(node("gene/protein", i), "r1", node("gene/protein", i + 1)) for i in range(10, 21)]
    late = [(node("gene/protein", i), "r2", node("gene/protein", 20)) for i in range(16, 20)]
    graph = graph_of(ring + late)
    x = torch.arange(2.0 * graph.num_nodes).view(-1, 2)
    with device_path():
        whole = add_mean(x, full_block(graph), torch.zeros_like(x))
        joined = 0
        for start in range(graph.num_nodes):
            block = range_block(graph, start, graph.num_nodes)
            joined += start > 0 and block.edges.joined
            found = add_mean(x, block, torch.zeros(block.num_rows, 2))
            assert torch.equal(found, whole[start:])
    assert joined


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
    generator = torch.Generator().manual_seed(0)
    model: GraphSage | Hgt = (
        GraphSage(graph.num_nodes, 32, 24, 3, generator)
        if model_name == "graphsage"
        else Hgt(graph.type_offsets, len(graph.edge_types), 32, 24, 2, 4, generator)
    )
    model, decoder = (
        model.to(here),
        DistMult(len(graph.relations), 24, torch.Generator().manual_seed(0)).to(here),
    )
    placed, steady = graph.to(here), SteadyRows(graph, here)
    sampler = EdgeSampler(graph, [6] * len(graph.edge_types), 0)
    optimizer = Adam([*model.parameters(), *decoder.parameters()], 0.01)
    for _ in range(2):
        batch = steady.fill(sampler.sample())
        z = model(full_block(placed), row_block(placed, batch.rows))
        loss = link_prediction_loss(decoder, z, batch.to(here))
        nodes = batch.rows[:4]
        pairs = PairBatch(nodes[:2], nodes[2:], torch.eye(2, dtype=torch.bool))
        loss = loss + contrastive_loss(z, batch.rows, pairs, 0.1)
        loss.backward()
        optimizer.step()
        assert loss.device == here
        with pytest.raises(RuntimeError):
            loss.item()
