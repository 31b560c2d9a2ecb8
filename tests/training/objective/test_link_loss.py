"""The loss against autograd on all scores at once; the decoder by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from closeness import off
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.training.edge_sampler import EdgeBatch, EdgeSampler, divide_equally
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss


def batch_of(graph: KnowledgeGraph, num_facts: int) -> EdgeBatch:
    return EdgeSampler(graph, divide_equally(graph.edge_type_counts, num_facts), seed=0).sample()


def slow_loss(decoder: DistMult, z: Tensor, batch: EdgeBatch) -> Tensor:
    """One fact after the other: a softmax of its target among the candidates that count."""
    losses = []
    for fact in range(len(batch.src)):
        (kind,) = (
            t
            for t in range(len(batch.candidates))
            if batch.fact_ptr[t] <= fact < batch.fact_ptr[t + 1]
        )
        others = batch.candidates[kind][~batch.excluded[fact]]
        nodes = torch.cat([batch.dst[fact : fact + 1], others])
        same = torch.ones_like(nodes)
        scores = decoder(z, batch.src[fact] * same, batch.relation[fact] * same, nodes)
        losses.append(functional.cross_entropy(scores[None], torch.zeros(1, dtype=torch.int64)))
    means = [
        z[batch.candidates[t]].mean(dim=0)
        for t in range(len(batch.candidates))
        if batch.fact_ptr[t] < batch.fact_ptr[t + 1]
    ]
    uncentred = torch.stack(means).square().sum(dim=1).mean() / z.shape[1]
    return torch.stack(losses).mean() + 3 * uncentred


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_loss_and_gradients_equal_the_slow_ones(
    graph: KnowledgeGraph, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.ops.listwise.FACT_CHUNK", chunk)
    batch = batch_of(graph, 60)
    generator = torch.Generator().manual_seed(0)
    found = []
    for loss_of in (link_prediction_loss, slow_loss):
        decoder = DistMult(len(graph.relations), 12, torch.Generator().manual_seed(0)).double()
        z = torch.randn(len(batch.rows), 12, generator=generator.manual_seed(1))
        z = z.double().requires_grad_()
        loss = loss_of(decoder, z, batch)
        (2 * loss).backward()
        found.append([loss.detach(), z.grad, decoder.relation.grad])
    for ours, wanted in zip(*found, strict=True):
        assert wanted is not None
        assert ours is not None
        assert off(ours, wanted) < 1e-12


def test_gradients_in_bfloat16_are_close_also_if_all_embeddings_are_alike(
    graph: KnowledgeGraph,
) -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = DistMult(len(graph.edge_types), 64, generator)
    batch = batch_of(graph, 300)
    z = torch.randn(1, 64, generator=generator)
    z = (z + 0.01 * torch.randn(len(batch.rows), 64, generator=generator)).requires_grad_()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        loss = link_prediction_loss(decoder, z, batch, dtype)
        found.append(torch.autograd.grad(loss, (z, decoder.relation)))
    for rounded, exact in zip(*found, strict=True):
        assert (rounded - exact).norm() / exact.norm() < 1e-2


def test_types_without_a_fact_are_not_centred(graph: KnowledgeGraph) -> None:
    sizes = [4 if dst == 0 else 0 for _, dst in graph.endpoint_types]
    batch = EdgeSampler(graph, sizes, seed=0).sample()
    assert sum(first < last for first, last in pairwise(batch.fact_ptr)) == 1
    decoder = DistMult(len(graph.relations), 12, torch.Generator().manual_seed(0)).double()
    z = torch.randn(len(batch.rows), 12, generator=torch.Generator().manual_seed(1)).double()
    ours, slow = (loss(decoder, z, batch) for loss in (link_prediction_loss, slow_loss))
    assert ours.item() == pytest.approx(slow.item(), rel=1e-12)


def test_the_weights_of_relations_start_spread_around_half_of_their_deviation() -> None:
    weight = DistMult(30, 512, torch.Generator().manual_seed(0)).relation.detach()
    assert weight.square().mean().sqrt().item() == pytest.approx(3, rel=0.02)
    assert (weight.mean() / weight.std()).item() == pytest.approx(0.5, abs=0.03)


def test_loss_of_a_model_that_knows_nothing(graph: KnowledgeGraph) -> None:
    batch = batch_of(graph, 40)
    loss = link_prediction_loss(
        DistMult(len(graph.relations), 8, torch.Generator().manual_seed(0)),
        torch.zeros(len(batch.rows), 8),
        batch,
    )
    wanted = (1 + (~batch.excluded).sum(dim=1)).double().log().mean()
    assert loss.item() == pytest.approx(wanted.item())


def test_loss_of_no_facts_is_0(graph: KnowledgeGraph) -> None:
    batch = EdgeSampler(graph, [0] * len(graph.edge_types), seed=0).sample()
    z = torch.randn(len(batch.rows), 8, requires_grad=True)
    loss = link_prediction_loss(
        DistMult(len(graph.relations), 8, torch.Generator().manual_seed(0)), z, batch
    )
    loss.backward()
    assert loss.item() == 0


def test_a_second_backward_pass_fails(graph: KnowledgeGraph) -> None:
    batch = batch_of(graph, 40)
    z = torch.randn(len(batch.rows), 8, requires_grad=True)
    loss = link_prediction_loss(
        DistMult(len(graph.relations), 8, torch.Generator().manual_seed(0)), z, batch
    )
    loss.backward(retain_graph=True)
    with pytest.raises(AttributeError, match="grads"):
        loss.backward()


def test_decoder_by_hand() -> None:
    decoder = DistMult(2, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoder.relation.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 1]]))
    z = torch.tensor([[1.0, 1, 2, 0], [3.0, 1, 1, 5]])
    a, b, first, second = (torch.tensor([number]) for number in (0, 1, 0, 1))
    score = decoder(z, a, first, b)
    assert score.item() == pytest.approx((3 + 2 + 6) / math.sqrt(4))
    assert torch.equal(score, decoder(z, b, first, a))
    assert decoder(z, a, second, b).item() == 0
