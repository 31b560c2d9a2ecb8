"""Training on parts of the graph: what a step sees, and that it is a step on that part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backends import KERNELS, TORCH
from graphs import Fact, to_rows

from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.training.batches import (
    FullBatch,
    SubgraphBatches,
    SubgraphSampler,
    induced_subgraph,
    max_positives,
)
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
from clinical_drug_discovery.training.optimizer import ModelOptimizer

CPU = torch.device("cpu")


def edges_of(graph: KnowledgeGraph, names: IntArray) -> list[tuple[int, int, int]]:
    """Edges in their order as (edge type, target, source), nodes by the names given."""
    ends = (graph.edge_type, names[graph.dst.numpy()], names[graph.src.numpy()])
    return list(zip(*(end.tolist() for end in ends), strict=True))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_part_has_the_edges_among_its_nodes(
    graph: KnowledgeGraph, rng: np.random.Generator, share: float
) -> None:
    nodes = np.flatnonzero(rng.random(graph.num_nodes) < share)
    one_way = rng.choice(graph.num_edges, graph.num_edges // 10, replace=False)
    hidden = np.concatenate([one_way, graph.reverse_edges.numpy()[one_way]])
    part = induced_subgraph(graph, nodes, hidden)
    inside, gone = set(nodes.tolist()), set(hidden.tolist())
    wanted = [
        edge
        for i, edge in enumerate(edges_of(graph, np.arange(graph.num_nodes)))
        if {edge[1], edge[2]} <= inside and i not in gone
    ]
    assert edges_of(part, nodes) == wanted  # in the same order
    assert part.num_nodes == len(nodes)
    assert part.node_type.tolist() == graph.node_type[nodes].tolist()
    assert (
        part.nodes["node_index"].to_list() == graph.nodes["node_index"].to_numpy()[nodes].tolist()
    )
    back = part.reverse_edges.long()
    assert torch.equal(part.src, part.dst[back])
    assert torch.equal(back[back], torch.arange(part.num_edges))


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a batch of the small graph would hold all its nodes."""
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 3)


def test_parts_are_of_one_shape_and_hold_their_batch(
    graph: KnowledgeGraph, few_candidates: None
) -> None:
    size = graph.num_nodes * 2 // 3
    draws = []
    for _ in range(2):
        edges = EdgeSampler(graph, np.minimum(graph.edge_type_counts, 1), seed=3)
        parts = SubgraphSampler(graph, size, seed=3)
        draws.append([(rows := edges.sample().rows.numpy(), parts.sample(rows)) for _ in range(4)])
    per_type = []
    for (rows, nodes), (_, again) in zip(*draws, strict=True):
        assert nodes.tolist() == again.tolist()
        assert set(rows.tolist()) <= set(nodes.tolist())
        assert (np.diff(nodes) > 0).all()
        per_type.append(np.diff(np.searchsorted(nodes, graph.type_offsets)).tolist())
    assert len({len(rows) for rows, _ in draws[0]}) > 1
    assert sum(per_type[0]) == size
    assert per_type == [per_type[0]] * 4


def test_a_batch_that_outgrows_its_share_takes_that_of_neighbors(graph: KnowledgeGraph) -> None:
    sampler = SubgraphSampler(graph, 40, seed=0)
    for size in (5, 30, 40, 6):
        rows = np.arange(size)  # all of one type, then of two
        nodes = sampler.sample(rows)
        assert len(nodes) == 40
        assert set(rows.tolist()) <= set(nodes.tolist())


def test_a_batch_larger_than_a_part_is_refused(graph: KnowledgeGraph) -> None:
    sampler = SubgraphSampler(graph, 10, seed=0)
    assert len(sampler.sample(np.arange(4))) == 10
    with pytest.raises(InputError, match=r"subgraph_size \(got 10\)"):
        sampler.sample(np.arange(11))


def test_the_graph_does_not_keep_what_batches_compute(
    graph: KnowledgeGraph, few_candidates: None
) -> None:
    """The reverse edges take 4 bytes per edge, and nothing needs them after the training."""
    edges = EdgeSampler(graph, np.minimum(graph.edge_type_counts, 1), seed=3)
    parts = SubgraphBatches(graph, KERNELS, graph.num_nodes * 2 // 3, seed=3)
    whole = FullBatch(graph, KERNELS)
    parts.next(edges.sample())
    assert whole.next(edges.sample()).graph.reverse_edges is not None
    assert "reverse_edges" not in vars(graph)


@pytest.mark.parametrize("generate", [generate_gnn_embeddings, generate_hgt_embeddings])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": "half"}, r"training \(got 'half'\) must be 'full' or 'sampled'"),
        ({"subgraph_size": 50}, r"subgraph_size \(got 50\) needs training 'sampled'"),
        ({"training": "sampled", "subgraph_size": 0}, r"subgraph_size \(got 0\)"),
        (
            {"training": "sampled", "subgraph_size": 30},
            r"subgraph_size \(got 30\) must be at least",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path,
    facts: list[Fact],
    generate: Callable[..., object],
    options: dict[str, Any],
    message: str,
) -> None:
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    with pytest.raises(InputError, match=message):
        generate(tmp_path / "kg.csv", tmp_path / "new" / "e.npy", 16, 16, cache=False, **options)
    assert not (tmp_path / "new").exists()


def test_every_edge_type_is_seen_however_few_edges_it_has(
    graph: KnowledgeGraph, few_candidates: None
) -> None:
    """A step asks for a quarter of them at most, in either direction."""
    sizes = np.minimum(max_positives(graph.edge_type_counts, "sampled"), 10**6)
    batches = SubgraphBatches(graph, KERNELS, graph.num_nodes, seed=0)
    part = batches.next(EdgeSampler(graph, sizes, seed=0).sample()).graph
    left = part.edge_type_counts / graph.edge_type_counts
    assert left.min() >= 0.5
    with pytest.raises(InputError, match="no edge type has 4 edges"):
        max_positives(np.array([1, 3, 3]), "sampled")


def test_the_learning_rate_falls_to_nothing(graph: KnowledgeGraph) -> None:
    generator = torch.Generator().manual_seed(0)
    model, decoder = make("graphsage", graph, generator), DistMult(3, 12, generator)
    learner = ModelOptimizer(model, decoder, 0.1, 5, lazy=True)
    nodes, moves = torch.arange(4), []
    for _ in range(5):
        before = model.node_embedding.detach()[0, 0].item(), decoder.relation.detach()[0, 0].item()
        taken = learner.vectors(nodes)
        taken.grad, decoder.relation.grad = (
            torch.ones_like(taken),
            torch.ones_like(decoder.relation),
        )
        learner.step()
        after = model.node_embedding.detach()[0, 0].item(), decoder.relation.detach()[0, 0].item()
        moves.append([a - b for a, b in zip(before, after, strict=True)])
    wanted = [0.1 * (1 + np.cos(np.pi * step / 5)) / 2 for step in range(5)]
    for got in zip(*moves, strict=True):
        assert list(got) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("model_name", ["graphsage", "hgt"])
def test_a_step_of_the_torch_backend_is_the_same(
    model_name: str, graph: KnowledgeGraph, few_candidates: None
) -> None:
    found = []
    for backend in (KERNELS, TORCH):
        generator = torch.Generator().manual_seed(0)
        model = make(model_name, graph, generator).double()
        decoder = DistMult(len(graph.relations), 12, generator).double()
        edges = EdgeSampler(graph, np.minimum(graph.edge_type_counts, 1), seed=1)
        batches = SubgraphBatches(graph, backend, graph.num_nodes, seed=1)
        view = batches.next(edges.sample()).to_device()
        vectors = ModelOptimizer(model, decoder, 0.01, 1, lazy=True).vectors(view.nodes)
        loss = link_prediction_loss(
            decoder, model(view.all_nodes, view.targets, vectors), view.facts
        )
        loss.backward()
        grads = [weight.grad for weight in (vectors, *decoder.parameters())]
        found.append([loss.detach(), *(grad for grad in grads if grad is not None)])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model_name", ["graphsage", "hgt"])
def test_a_step_is_one_on_the_part_without_its_facts(
    model_name: str, graph: KnowledgeGraph, few_candidates: None
) -> None:
    """The same embeddings and gradients as of a model of the part alone, given its vectors."""
    generator = torch.Generator().manual_seed(0)
    edges = EdgeSampler(graph, np.minimum(graph.edge_type_counts, 1), seed=1)
    batches = SubgraphBatches(graph, KERNELS, graph.num_nodes * 2 // 3, seed=1)
    view = batches.next(edges.sample()).to_device()
    assert view.nodes is not None
    part = view.all_nodes.graph
    facts = zip(
        graph.edge_type[view.facts.edge].tolist(), view.facts.dst, view.facts.src, strict=True
    )
    within = {(kind, int(view.rows[dst]), int(view.rows[src])) for kind, dst, src in facts}
    assert within <= set(edges_of(graph, np.arange(graph.num_nodes)))
    assert not within & set(edges_of(part, view.nodes.numpy()))
    model, alone = (make(model_name, g, generator) for g in (graph, part))
    shared = {k: v for k, v in model.state_dict().items() if k != "node_embedding"}
    alone.load_state_dict({**shared, "node_embedding": model.node_embedding.detach()[view.nodes]})
    learner = ModelOptimizer(
        model, DistMult(len(graph.relations), 12, generator), 0.01, 1, lazy=True
    )
    vectors = learner.vectors(view.nodes)
    z = model(view.all_nodes, view.targets, vectors)
    rows = torch.searchsorted(view.nodes, view.rows)
    other = alone(full_block(part, KERNELS), row_block(part, rows, KERNELS))
    assert torch.equal(z, other)
    by_z = torch.randn(z.shape, generator=generator)
    (z * by_z).sum().backward()
    (other * by_z).sum().backward()
    assert vectors.grad is not None
    assert alone.node_embedding.grad is not None
    assert torch.equal(vectors.grad, alone.node_embedding.grad)


def make(model_name: str, graph: KnowledgeGraph, generator: torch.Generator) -> GraphSage | Hgt:
    if model_name == "graphsage":
        return GraphSage(graph.num_nodes, 16, 12, 3, generator)
    return Hgt(graph.type_offsets, len(graph.edge_types), 16, 12, 2, 4, generator)
