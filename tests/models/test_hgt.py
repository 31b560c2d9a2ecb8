"""HGT: the whole layer against PyTorch Geometric, restricted rows, peak memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from allocations import LargestTensor
from backends import KERNELS, SLOW_EXACT_KERNELS, TORCH
from closeness import BFLOAT16, off
from graphs import random_facts, read_facts
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import HGTConv

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.hgt import Hgt, HgtLayer
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.ops.cpu import head_maps as cpu_heads

DIM, HEADS = 12, 4
BOTH = pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
EXACT = pytest.mark.parametrize("backend", [SLOW_EXACT_KERNELS, TORCH], ids=["kernels", "torch"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle_for(layer: HgtLayer, graph: KnowledgeGraph) -> HGTConv:
    """PyTorch Geometric's layer with the same weights, in float64."""
    names = list(graph.node_type_names)
    heads, dim = layer.prior.shape[1], layer.out.weight.shape[1]
    oracle = HGTConv(dim, dim, (names, [tuple(kind) for kind in graph.edge_types]), heads).double()
    with torch.no_grad():
        for t, name in enumerate(names):
            oracle.kqv_lin.lins[name].weight.copy_(layer.kqv.weight[t])
            oracle.kqv_lin.lins[name].bias.copy_(layer.kqv.bias[t])
            oracle.out_lin.lins[name].weight.copy_(layer.out.weight[t])
            oracle.out_lin.lins[name].bias.copy_(layer.out.bias[t])
            oracle.skip[name].copy_(layer.skip[t])
        for r, kind in enumerate(graph.edge_types):
            oracle.p_rel["__".join(kind)].copy_(layer.prior[r][None])
        oracle.k_rel.weight.copy_(layer.attention.transpose(0, 1).flatten(0, 1))
        oracle.v_rel.weight.copy_(layer.message.transpose(0, 1).flatten(0, 1))
    return oracle


def layer_and_oracle(
    graph: KnowledgeGraph, heads: int, dim: int, dtype: torch.dtype, backend: Backend
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Output and all gradients by name, of ours and, in float64, of the oracle."""
    layer = HgtLayer(len(graph.node_type_names), len(graph.edge_types), dim, heads, generator())
    with torch.no_grad():
        for parameter in (layer.kqv.bias, layer.out.bias, layer.skip, layer.prior):
            parameter.uniform_(-1, 1, generator=generator(1))
    layer = layer.to(dtype)
    oracle = oracle_for(layer, graph)
    names, bounds = list(graph.node_type_names), graph.type_ptr.tolist()
    x = torch.randn(graph.num_nodes, dim, generator=generator(2)).to(dtype).requires_grad_()
    double = x.detach().double().requires_grad_()
    # In the order of its metadata: PyTorch Geometric 2.8 errs when the two orders differ.
    edges = {
        tuple(kind): torch.stack([graph.src, graph.dst])[:, graph.edge_type == r].long()
        - torch.tensor([[bounds[names.index(kind.src_type)]], [bounds[names.index(kind.dst_type)]]])
        for r, kind in enumerate(graph.edge_types)
    }
    parts = {name: double[bounds[t] : bounds[t + 1]] for t, name in enumerate(names)}
    theirs = oracle(parts, edges)
    wanted = torch.cat([theirs[name] for name in names])
    wanted = functional.layer_norm(wanted, wanted.shape[1:], eps=1e-5)  # ours ends in one
    ours = layer(x, full_block(graph, backend))
    direction = torch.randn(ours.shape, generator=generator(3)).to(dtype)
    mine = torch.autograd.grad((ours * direction).sum(), [x, *layer.parameters()])
    by_name = dict(zip(["x", *dict(layer.named_parameters())], mine, strict=True))
    their_parameters = dict(oracle.named_parameters())
    got = torch.autograd.grad((wanted * direction).sum(), [double, *their_parameters.values()])
    their_gradients = dict(zip(["x", *their_parameters], got, strict=True))

    def stacked(form: str) -> Tensor:
        return torch.stack([their_gradients[form.format(name)] for name in names])

    def per_head(gradient: Tensor) -> Tensor:
        return gradient.reshape(heads, -1, *gradient.shape[1:]).transpose(0, 1)

    priors = [their_gradients[f"p_rel.{'__'.join(kind)}"][0] for kind in graph.edge_types]
    their_names = {
        "x": their_gradients["x"],
        "kqv.weight": stacked("kqv_lin.lins.{}.weight"),
        "kqv.bias": stacked("kqv_lin.lins.{}.bias"),
        "out.weight": stacked("out_lin.lins.{}.weight"),
        "out.bias": stacked("out_lin.lins.{}.bias"),
        "skip": stacked("skip.{}")[:, 0],
        "prior": torch.stack(priors),
        "attention": per_head(their_gradients["k_rel.weight"]),
        "message": per_head(their_gradients["v_rel.weight"]),
    }
    assert by_name.keys() == their_names.keys()
    return {"output": ours, **by_name}, {"output": wanted, **their_names}


SHAPES = [(4, 12), (1, 20), (3, 24), (2, 32), (8, 128)]  # heads and width


def assert_layer_equals_pyg(
    graph: KnowledgeGraph, dtype: torch.dtype, tolerance: float, backend: Backend
) -> None:
    for heads, dim in SHAPES:
        ours, theirs = layer_and_oracle(graph, heads, dim, dtype, backend)
        for name, wanted in theirs.items():
            assert off(ours[name], wanted) < tolerance, (heads, dim, name)


@BOTH
def test_layer_and_all_its_gradients_equal_pyg(graph: KnowledgeGraph, backend: Backend) -> None:
    assert_layer_equals_pyg(graph, torch.float64, 1e-9, backend)


@EXACT
def test_layer_and_all_its_gradients_equal_pyg_to_float32(
    graph: KnowledgeGraph, backend: Backend
) -> None:
    assert_layer_equals_pyg(graph, torch.float32, 1e-4, backend)


def test_layer_and_all_its_gradients_equal_pyg_to_bfloat16(graph: KnowledgeGraph) -> None:
    # Gradients of a whole layer pass through numbers that are rounded four times.
    assert_layer_equals_pyg(graph, torch.float32, 3 * BFLOAT16, KERNELS)


def test_restricted_last_layer_gives_the_same_rows_and_gradients(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    hidden = full_block(graph, KERNELS)
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:30]))
    model = Hgt(graph.type_offsets, len(graph.edge_types), DIM, 20, 2, HEADS, generator()).double()
    direction = torch.randn(30, 20, generator=generator(1), dtype=torch.float64)
    results = [
        [z, *torch.autograd.grad((z * direction).sum(), list(model.parameters()))]
        for z in (model(hidden, row_block(graph, rows, KERNELS)), model(hidden, hidden)[rows])
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        results[0][0].norm(dim=1),
        torch.full((30,), 20**0.5, dtype=torch.float64),
        rtol=1e-4,
        atol=0,
    )


def assert_inference_equals_the_forward_pass(
    graph: KnowledgeGraph, num_layers: int, dtype: torch.dtype, tolerance: float, backend: Backend
) -> None:
    model = Hgt(graph.type_offsets, len(graph.edge_types), DIM, 20, num_layers, HEADS, generator())
    model = model.to(dtype)
    block = full_block(graph, backend)
    with torch.no_grad():
        expected = model(block, block)
    said: list[str] = []
    for chunk_size in (1, 7, graph.num_nodes):
        out = embed_all(model, graph, chunk_size, backend, said.append)
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    layers = [f"Layer {i + 1}/{num_layers}" for i in range(num_layers)]
    assert said == ["Projecting each node type", *layers, "Output projection"] * 3


@BOTH
@pytest.mark.parametrize("num_layers", [1, 3])
def test_layer_wise_inference_equals_the_full_forward_pass(
    graph: KnowledgeGraph, num_layers: int, backend: Backend
) -> None:
    assert_inference_equals_the_forward_pass(graph, num_layers, torch.float64, 1e-12, backend)
    # In bfloat16 a last place may fall to either side of a tie that chunks add up differently.
    assert_inference_equals_the_forward_pass(graph, num_layers, torch.float32, 2**-6, backend)


@EXACT
@pytest.mark.parametrize("num_layers", [1, 3])
def test_layer_wise_inference_equals_it_to_float32(
    graph: KnowledgeGraph, num_layers: int, backend: Backend
) -> None:
    assert_inference_equals_the_forward_pass(graph, num_layers, torch.float32, 1e-5, backend)


def test_a_second_backward_pass_is_refused(graph: KnowledgeGraph) -> None:
    block = full_block(graph, KERNELS)
    model = Hgt(graph.type_offsets, len(graph.edge_types), DIM, 20, 1, HEADS, generator()).double()
    total = model(block, block).sum()
    total.backward(retain_graph=True)
    with pytest.raises(AttributeError):  # what the first pass overwrote is not used again
        total.backward()


@BOTH
def test_no_edge_sized_tensor_in_forward_or_backward(
    tmp_path: Path, rng: np.random.Generator, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (reference.attend, reference.attend_backward):
        monkeypatch.setattr(function, "__defaults__", (100,))
    sizes = {"drug": 120, "disease": 120, "gene/protein": 120}
    graph = read_facts(tmp_path, random_facts(rng, 12_000, sizes))
    block = full_block(graph, backend)
    model = Hgt(graph.type_offsets, len(graph.edge_types), 64, 64, 2, HEADS, generator())
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]  # torch has no types for it
        model(block, block).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # The largest are a type's shares, and the parts of the gradient by the matrices of its heads.
    shares = int(graph.edge_type_counts.max()) * 2 * HEADS
    assert seen.numel <= max(cpu_heads._PARTS * 2 * 64 * 16, shares) < graph.num_edges * 64 // 10
