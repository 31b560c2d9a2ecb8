"""GraphSAGE: parity with PyTorch Geometric, restricted rows, layer-wise inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graphs import embed_graph
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.losses import DistMult, link_prediction_loss
from clinical_drug_discovery.sage import GraphSage, SageLayer
from clinical_drug_discovery.sampling import EdgeSampler, share_out

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("in_dim", "out_dim"), [(8, 8), (8, 5), (5, 12)])
@pytest.mark.parametrize("restricted", [False, True])
def test_layer_equals_pyg(
    graph: KnowledgeGraph, in_dim: int, out_dim: int, restricted: bool
) -> None:
    ours = SageLayer(in_dim, out_dim, generator())
    theirs = SAGEConv(in_dim, out_dim)
    with torch.no_grad():
        ours.bias.uniform_(-1, 1)
        theirs.lin_l.weight.copy_(ours.weight_neighbor)
        theirs.lin_l.bias.copy_(ours.bias)
        theirs.lin_r.weight.copy_(ours.weight_self)
    x = torch.randn(graph.num_nodes, in_dim, generator=generator(1), requires_grad=True)
    rows = torch.arange(graph.num_nodes)
    block = full_block(graph)
    if restricted:
        rows = torch.randperm(graph.num_nodes, generator=generator(2))[:20]
        block = row_block(graph, rows, CPU)
    out = ours(x, block)
    expected = theirs(x, torch.stack([graph.src, graph.dst]).long())[rows]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(out.shape, generator=generator(3))
    leaves = (x, ours.weight_neighbor, ours.bias, ours.weight_self)
    their_leaves = (x, theirs.lin_l.weight, theirs.lin_l.bias, theirs.lin_r.weight)
    for gradient, wanted in zip(
        torch.autograd.grad((out * weight).sum(), leaves),
        torch.autograd.grad((expected * weight).sum(), their_leaves),
        strict=True,
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_restricted_last_layer_gives_the_same_loss_and_gradients(
    graph: KnowledgeGraph, num_layers: int
) -> None:
    batch = EdgeSampler(graph, share_out(graph.edge_type_counts, 15), seed=0).sample()
    assert len(batch.rows) < graph.num_nodes
    results = []
    for restricted in (True, False):
        model = GraphSage(graph.num_nodes, 16, 24, num_layers, generator()).double()
        decoder = DistMult(len(graph.relations), 24).double()
        hidden = full_block(graph)
        if restricted:
            z = model(hidden, row_block(graph, batch.rows, CPU))
        else:
            z = model(hidden, hidden)[batch.rows]
        loss = link_prediction_loss(decoder, z, batch)
        parameters = [*model.parameters(), *decoder.parameters()]
        results.append([loss, *torch.autograd.grad(loss, parameters)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def test_lean_hidden_layers_equal_autograd(graph: KnowledgeGraph, monkeypatch: Any) -> None:
    monkeypatch.setattr("clinical_drug_discovery.sage._CHUNK_ROWS", 17)
    model = GraphSage(graph.num_nodes, 16, 24, 3, generator()).double()
    block = full_block(graph)
    plain: Tensor = model.node_embedding
    for index in range(3):
        plain = model.apply_stage(index, plain, block)
    lean = model(block, block)
    torch.testing.assert_close(lean, plain, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(lean)
    parameters = list(model.parameters())
    wanted = torch.autograd.grad((plain * weight).sum(), parameters)
    ours = torch.autograd.grad((lean * weight).sum(), parameters, retain_graph=True)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)
    with pytest.raises(AttributeError):  # what the first pass overwrote is not used again
        torch.autograd.grad((lean * weight).sum(), parameters)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_layer_wise_inference_equals_the_full_forward_pass(
    graph: KnowledgeGraph, num_layers: int
) -> None:
    model = GraphSage(graph.num_nodes, 16, 24, num_layers, generator())
    with torch.no_grad():
        expected = model(full_block(graph), full_block(graph))
    said: list[str] = []
    for chunk_size in (1, 7, graph.num_nodes - 1, graph.num_nodes, 10**6):
        out = embed_graph(model, graph, chunk_size, said.append)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert said == [f"Layer {i + 1}/{num_layers}" for i in range(num_layers)] * 5


def test_embeddings_have_length_sqrt_dim_and_differ(graph: KnowledgeGraph) -> None:
    z = embed_graph(GraphSage(graph.num_nodes, 16, 24, 3, generator()), graph, 64)
    np.testing.assert_allclose(z.norm(dim=1).numpy(), 24**0.5, rtol=1e-3)
    cosine = (z @ z.t() / 24).fill_diagonal_(0)
    assert cosine.max() < 0.999


def test_decoder_and_loss_by_hand() -> None:
    decoder = DistMult(2, 4)
    with torch.no_grad():
        decoder.relation.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 1]]))
        decoder.bias.copy_(torch.tensor([0.25, 0]))
    a, b = torch.tensor([[1.0, 1, 2, 0]]), torch.tensor([[3.0, 1, 1, 5]])
    score = decoder(a, torch.tensor([0]), b)
    assert score.item() == pytest.approx((3 + 2 + 6 + 0 + 4 * 0.25) / 2)
    assert torch.equal(score, decoder(b, torch.tensor([0]), a))
    assert decoder(a, torch.tensor([1]), b).item() == 0


def test_loss_of_a_model_that_knows_nothing_is_ln_2(graph: KnowledgeGraph) -> None:
    batch = EdgeSampler(graph, share_out(graph.edge_type_counts, 40), seed=0).sample()
    z = torch.zeros(len(batch.rows), 8)
    decoder = DistMult(len(graph.relations), 8)
    nn.init.zeros_(decoder.bias)
    loss = link_prediction_loss(decoder, z, batch)
    assert loss.item() == pytest.approx(np.log(2))
