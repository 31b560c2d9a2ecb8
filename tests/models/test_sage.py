"""GraphSAGE: parity with PyTorch Geometric, restricted rows, layer-wise inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backends import KERNELS, SLOW_EXACT_KERNELS, TORCH
from closeness import BFLOAT16, off
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import SAGEConv

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage, SageLayer
from clinical_drug_discovery.ops import backend as backend_module
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, divide_equally
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle_for(layer: SageLayer, dtype: torch.dtype) -> SAGEConv:
    """PyTorch Geometric's layer with the same weights."""
    oracle = SAGEConv(layer.weight_self.shape[1], layer.weight_self.shape[0]).to(dtype)
    with torch.no_grad():
        layer.bias.uniform_(-1, 1, generator=generator(4))
        oracle.lin_l.weight.copy_(layer.weight_neighbor)
        oracle.lin_l.bias.copy_(layer.bias)
        oracle.lin_r.weight.copy_(layer.weight_self)
    return oracle


def to_index(graph: KnowledgeGraph) -> Tensor:
    """The edges as PyTorch Geometric takes them."""
    return torch.stack([graph.src, graph.dst]).long()


def layer_and_oracle(
    graph: KnowledgeGraph,
    in_dim: int,
    out_dim: int,
    restricted: bool,
    dtype: torch.dtype,
    backend: Backend,
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and all gradients of ours, in float32 or float64, and of theirs in float64."""
    ours = SageLayer(in_dim, out_dim, generator()).to(dtype)
    theirs = oracle_for(ours, torch.float64)
    x = torch.randn(graph.num_nodes, in_dim, generator=generator(1)).to(dtype).requires_grad_()
    double = x.detach().double().requires_grad_()
    rows, block = torch.arange(graph.num_nodes), full_block(graph, backend)
    if restricted:
        rows = torch.randperm(graph.num_nodes, generator=generator(2))[:20].sort().values
        block = row_block(graph, rows, backend)
    out = ours(x, block)
    expected = theirs(double, to_index(graph))[rows]
    weight = torch.randn(out.shape, generator=generator(3)).to(dtype)
    leaves = (x, ours.weight_neighbor, ours.bias, ours.weight_self)
    their_leaves = (double, theirs.lin_l.weight, theirs.lin_l.bias, theirs.lin_r.weight)
    return (
        [out, *torch.autograd.grad((out * weight).sum(), leaves)],
        [expected, *torch.autograd.grad((expected * weight).sum(), their_leaves)],
    )


BOTH = pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
EXACT = pytest.mark.parametrize("backend", [SLOW_EXACT_KERNELS, TORCH], ids=["kernels", "torch"])
SHAPES = [(8, 8), (8, 5), (5, 12), (33, 16), (64, 64)]


@BOTH
@pytest.mark.parametrize("restricted", [False, True])
def test_layer_equals_pyg(graph: KnowledgeGraph, restricted: bool, backend: Backend) -> None:
    for in_dim, out_dim in SHAPES:
        ours, theirs = layer_and_oracle(graph, in_dim, out_dim, restricted, torch.float64, backend)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@EXACT
@pytest.mark.parametrize("restricted", [False, True])
def test_layer_equals_pyg_to_float32(
    graph: KnowledgeGraph, restricted: bool, backend: Backend
) -> None:
    for in_dim, out_dim in SHAPES:
        ours, theirs = layer_and_oracle(graph, in_dim, out_dim, restricted, torch.float32, backend)
        for value, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("restricted", [False, True])
def test_layer_equals_pyg_to_bfloat16(graph: KnowledgeGraph, restricted: bool) -> None:
    for in_dim, out_dim in SHAPES:
        ours, theirs = layer_and_oracle(graph, in_dim, out_dim, restricted, torch.float32, KERNELS)
        for value, wanted in zip(ours, theirs, strict=True):
            assert off(value, wanted) < BFLOAT16


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_layout_of_an_incoming_gradient_is_read_and_kept(
    backend: Backend, dtype: torch.dtype
) -> None:
    """A sum repeats one number, and autograd may give the same gradient to two functions."""
    layer = SageLayer(16, 16, generator()).to(dtype)
    wide = torch.randn(20, 32, generator=generator(1)).to(dtype)
    mean, own = (wide[:, at : at + 16].clone().requires_grad_() for at in (0, 16))

    def gradients(grad: Tensor) -> list[Tensor]:
        out = layer.map(mean, own, backend, norm=True)
        return list(torch.autograd.grad(out, [mean, own, *layer.parameters()], grad))

    for grad in (wide[:, :16], wide[:, :16].t().contiguous().t(), wide[0, :16].expand(20, 16)):
        before = grad.clone(memory_format=torch.contiguous_format)
        for value, wanted in zip(gradients(grad), gradients(before.clone()), strict=True):
            assert torch.equal(value, wanted)
        assert torch.equal(grad, before)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_restricted_last_layer_gives_the_same_loss_and_gradients(
    graph: KnowledgeGraph, num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 4)
    batch = EdgeSampler(graph, divide_equally(graph.edge_type_counts, 15), seed=0).sample()
    assert len(batch.rows) < graph.num_nodes
    results = []
    for restricted in (True, False):
        model = GraphSage(graph.num_nodes, 16, 24, num_layers, generator()).double()
        decoder = DistMult(len(graph.relations), 24, torch.Generator().manual_seed(0)).double()
        hidden = full_block(graph, KERNELS)
        if restricted:
            z = model(hidden, row_block(graph, batch.rows, KERNELS))
        else:
            z = model(hidden, hidden)[batch.rows]
        loss = link_prediction_loss(decoder, z, batch)
        parameters = [*model.parameters(), *decoder.parameters()]
        results.append([loss, *torch.autograd.grad(loss, parameters)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def plain_embeddings(model: GraphSage, graph: KnowledgeGraph, oracles: list[SAGEConv]) -> Tensor:
    """The model as its docstring says it, of PyTorch Geometric's layers."""

    def norm(x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[1:], eps=1e-5)

    x: Tensor = model.node_embedding
    for oracle in oracles[:-1]:
        x = x + norm(oracle(x, to_index(graph)).relu())
    return norm(oracles[-1](x, to_index(graph)))


@BOTH
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_model_and_its_gradients_equal_a_stack_of_pyg(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch, num_layers: int, backend: Backend
) -> None:
    monkeypatch.setattr(backend_module, "MOST_ROWS", 16)
    monkeypatch.setattr(backend_module, "FEW_ROWS", 4)
    model = GraphSage(graph.num_nodes, 20, 24, num_layers, generator()).double()
    oracles = [oracle_for(layer, torch.float64) for layer in model._layers()]
    plain = plain_embeddings(model, graph, oracles)
    block = full_block(graph, backend)
    lean = model(block, block)
    torch.testing.assert_close(lean, plain, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(lean)
    theirs = [model.node_embedding]
    for oracle in oracles:
        theirs += [oracle.lin_r.weight, oracle.lin_l.weight, oracle.lin_l.bias]
    wanted = torch.autograd.grad((plain * weight).sum(), theirs)
    parameters = list(model.parameters())
    ours = torch.autograd.grad((lean * weight).sum(), parameters, retain_graph=True)
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    if num_layers > 1:
        with pytest.raises(AttributeError):  # what the first pass overwrote is not used again
            torch.autograd.grad((lean * weight).sum(), parameters)


def assert_inference_equals_the_forward_pass(
    graph: KnowledgeGraph, num_layers: int, dtype: torch.dtype, tolerance: float, backend: Backend
) -> None:
    model = GraphSage(graph.num_nodes, 16, 24, num_layers, generator()).to(dtype)
    with torch.no_grad():
        block = full_block(graph, backend)
        expected = model(block, block)
    said: list[str] = []
    for chunk_size in (1, 7, graph.num_nodes - 1, graph.num_nodes, 10**6):
        out = embed_all(model, graph, chunk_size, backend, said.append)
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    assert said == [f"Layer {i + 1}/{num_layers}" for i in range(num_layers)] * 5


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


def test_embeddings_have_length_sqrt_dim_and_differ(graph: KnowledgeGraph) -> None:
    z = embed_all(GraphSage(graph.num_nodes, 16, 24, 3, generator()), graph, 64, TORCH)
    np.testing.assert_allclose(z.norm(dim=1).numpy(), 24**0.5, rtol=1e-3)
    cosine = (z @ z.t() / 24).fill_diagonal_(0)
    assert cosine.max() < 0.999
