"""HGT: the whole layer against PyTorch Geometric, restricted rows, peak memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import embed_graph, random_facts, read_facts
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import HGTConv
from witness import LargestTensor

from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.hgt import Hgt, HgtLayer
from clinical_drug_discovery.ops import attention, cpu_attention, reference
from clinical_drug_discovery.typed_blocks import TypedGraph

CPU = torch.device("cpu")
DIM, HEADS = 12, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle_for(layer: HgtLayer, graph: KnowledgeGraph) -> HGTConv:
    """PyTorch Geometric's layer with the same weights."""
    names = list(graph.node_type_names)
    oracle = HGTConv(DIM, DIM, (names, [tuple(kind) for kind in graph.edge_types]), HEADS)
    oracle = oracle.to(layer.prior.dtype)
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


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str
)
def test_layer_and_all_its_gradients_equal_pyg(
    graph: KnowledgeGraph, dtype: torch.dtype, tolerance: float
) -> None:
    layer = HgtLayer(len(graph.node_type_names), len(graph.edge_types), DIM, HEADS, generator())
    with torch.no_grad():
        for parameter in (layer.kqv.bias, layer.out.bias, layer.skip, layer.prior):
            parameter.uniform_(-1, 1, generator=generator(1))
    layer = layer.to(dtype)
    oracle = oracle_for(layer, graph)
    names, bounds = list(graph.node_type_names), graph.type_ptr.tolist()
    x = torch.randn(graph.num_nodes, DIM, generator=generator(2), dtype=torch.float64).to(dtype)
    x.requires_grad_()
    # In the order of its metadata: PyTorch Geometric 2.8 errs when the two orders differ.
    edges = {
        tuple(kind): torch.stack([graph.src, graph.dst])[:, graph.edge_type == r].long()
        - torch.tensor([[bounds[names.index(kind.src_type)]], [bounds[names.index(kind.dst_type)]]])
        for r, kind in enumerate(graph.edge_types)
    }
    parts = {name: x[bounds[t] : bounds[t + 1]] for t, name in enumerate(names)}
    theirs = oracle(parts, edges)
    wanted = torch.cat([theirs[name] for name in names])
    wanted = functional.layer_norm(wanted, wanted.shape[1:], eps=1e-5)  # ours ends in one
    ours = layer(x, TypedGraph(graph).full_block(CPU))
    torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)
    direction = torch.randn(ours.shape, generator=generator(3), dtype=torch.float64).to(dtype)
    mine = torch.autograd.grad((ours * direction).sum(), [x, *layer.parameters()])
    by_name = dict(zip(["x", *dict(layer.named_parameters())], mine, strict=True))
    their_parameters = dict(oracle.named_parameters())
    got = torch.autograd.grad((wanted * direction).sum(), [x, *their_parameters.values()])
    their_gradients = dict(zip(["x", *their_parameters], got, strict=True))

    def stacked(form: str) -> Tensor:
        return torch.stack([their_gradients[form.format(name)] for name in names])

    def per_head(gradient: Tensor) -> Tensor:
        return gradient.reshape(HEADS, -1, *gradient.shape[1:]).transpose(0, 1)

    priors = [their_gradients[f"p_rel.{'__'.join(kind)}"][0] for kind in graph.edge_types]
    for name, theirs_by_name in {
        "x": their_gradients["x"],
        "kqv.weight": stacked("kqv_lin.lins.{}.weight"),
        "kqv.bias": stacked("kqv_lin.lins.{}.bias"),
        "out.weight": stacked("out_lin.lins.{}.weight"),
        "out.bias": stacked("out_lin.lins.{}.bias"),
        "skip": stacked("skip.{}")[:, 0],
        "prior": torch.stack(priors),
        "attention": per_head(their_gradients["k_rel.weight"]),
        "message": per_head(their_gradients["v_rel.weight"]),
    }.items():
        scale = float(theirs_by_name.abs().max())
        torch.testing.assert_close(
            by_name[name], theirs_by_name, rtol=tolerance, atol=tolerance * scale, msg=name
        )


def test_restricted_last_layer_gives_the_same_rows_and_gradients(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    typed = TypedGraph(graph)
    hidden = typed.full_block(CPU)
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:30]))
    model = Hgt(typed.type_ptr, len(graph.edge_types), DIM, 20, 2, HEADS, generator()).double()
    direction = torch.randn(30, 20, generator=generator(1), dtype=torch.float64)
    results = [
        [z, *torch.autograd.grad((z * direction).sum(), list(model.parameters()))]
        for z in (model(hidden, typed.row_block(rows, CPU)), model(hidden, hidden)[rows])
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        results[0][0].norm(dim=1),
        torch.full((30,), 20**0.5, dtype=torch.float64),
        rtol=1e-4,
        atol=0,
    )


@pytest.mark.parametrize("num_layers", [1, 3])
def test_layer_wise_inference_equals_the_full_forward_pass(
    graph: KnowledgeGraph, num_layers: int
) -> None:
    typed = TypedGraph(graph)
    model = Hgt(typed.type_ptr, len(graph.edge_types), DIM, 20, num_layers, HEADS, generator())
    block = typed.full_block(CPU)
    with torch.no_grad():
        expected = model(block, block)
    said: list[str] = []
    for chunk_size in (1, 7, graph.num_nodes):
        out = embed_graph(model, graph, chunk_size, said.append)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    layers = [f"Layer {i + 1}/{num_layers}" for i in range(num_layers)]
    assert said == ["Projecting each node type", *layers, "Output projection"] * 3


@pytest.mark.parametrize("backend", [cpu_attention, reference])
def test_no_edge_sized_tensor_in_forward_or_backward(
    tmp_path: Path, rng: np.random.Generator, backend: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "cpu_attention", backend)
    for function in (reference.attend, reference.attend_backward):
        monkeypatch.setattr(function, "__defaults__", (100,))
    sizes = {"drug": 60, "disease": 60, "gene/protein": 60}
    graph = read_facts(tmp_path, random_facts(rng, 5_000, sizes))
    typed = TypedGraph(graph)
    block = typed.full_block(CPU)
    model = Hgt(typed.type_ptr, len(graph.edge_types), 64, 64, 2, HEADS, generator())
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]  # torch has no types for it
        model(block, block).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # The largest are the maps of a layer to keys, queries and values, (T, 3 C, C).
    assert seen.numel <= 3 * 3 * 64 * 64 < graph.num_edges * 64 // 10
