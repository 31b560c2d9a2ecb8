"""Positives are facts, negatives are not; every edge type gets its share."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import node, read_facts

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, divide_equally
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a batch of the small graph would hold all its nodes."""
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 4)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_batches_hold_facts_and_nodes_that_make_none(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler._PIECE_EDGES", piece)
    monkeypatch.setattr("clinical_drug_discovery.training.edge_sampler.NUM_CANDIDATES", 9)
    sampler = EdgeSampler(graph, divide_equally(graph.edge_type_counts, 100), seed=0)
    facts = {
        (src, graph.edge_types[kind].relation, dst)
        for src, kind, dst in zip(
            graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True
        )
    }
    seen: set[int] = set()
    for _ in range(20):
        batch = sampler.sample()
        assert batch.rows.tolist() == sorted(set(batch.rows.tolist()))
        src, dst, candidates = (
            batch.rows[at].tolist() for at in (batch.src, batch.dst, batch.candidates)
        )
        relation = [graph.relations[r] for r in batch.relation.tolist()]
        positive = list(zip(src, relation, dst, strict=True))
        assert len(set(positive)) == 100
        assert set(positive) <= facts
        for t, (first, last) in enumerate(pairwise(batch.fact_ptr)):
            drawn = min(9, graph.type_offsets[t + 1] - graph.type_offsets[t])
            for fact in range(first, last):
                assert graph.node_type[dst[fact]] == t
                for k, other in enumerate(candidates[t]):
                    known = (src[fact], relation[fact], other) in facts or other == src[fact]
                    assert bool(batch.excluded[fact, k]) == (known or k >= drawn)
            if last > first:
                assert len(set(candidates[t][:drawn])) == drawn
                assert {int(graph.node_type[other]) for other in candidates[t][:drawn]} == {t}
                seen.update(candidates[t][:drawn])
    assert seen == set(range(graph.num_nodes))


def test_a_source_that_knows_everyone_has_no_candidates(tmp_path: Path) -> None:
    complete = [(node("drug", i), "r", node("disease", j)) for i in range(4) for j in range(3)]
    graph = read_facts(tmp_path, complete)
    batch = EdgeSampler(graph, divide_equally(graph.edge_type_counts, 10**6), seed=0).sample()
    assert len(batch.src) == 24
    assert batch.excluded.all()
    decoder = DistMult(len(graph.relations), 8, torch.Generator().manual_seed(0))
    z = torch.zeros(len(batch.rows), 8, requires_grad=True)  # centred
    loss = link_prediction_loss(decoder, z, batch)
    loss.backward()
    assert loss.item() == 0
    assert decoder.relation.grad is not None
    assert not decoder.relation.grad.any()


def test_a_seed_repeats_its_batches(graph: KnowledgeGraph) -> None:
    sizes = divide_equally(graph.edge_type_counts, 50)
    a, b, other = (EdgeSampler(graph, sizes, seed) for seed in (3, 3, 4))
    first = [a.sample() for _ in range(3)]
    assert all(torch.equal(x.dst, b.sample().dst) for x in first)
    assert not torch.equal(first[0].dst, other.sample().dst)


def test_every_edge_type_gives_the_number_that_is_asked_for(graph: KnowledgeGraph) -> None:
    sizes = np.minimum(graph.edge_type_counts, 7)
    batch = EdgeSampler(graph, sizes, seed=0).sample()
    src, dst = batch.rows[batch.src], batch.rows[batch.dst]
    name = graph.node_type_names
    drawn = Counter(
        EdgeType(name[a], graph.relations[relation], name[b])
        for a, relation, b in zip(
            graph.node_type[src].tolist(),
            batch.relation.tolist(),
            graph.node_type[dst].tolist(),
            strict=True,
        )
    )
    assert drawn == dict(zip(graph.edge_types, sizes.tolist(), strict=True))


def test_more_rows_leave_the_facts_as_they_are(graph: KnowledgeGraph, few_candidates: None) -> None:
    batch = EdgeSampler(graph, [1] * len(graph.edge_types), seed=0).sample()
    assert len(batch.rows) < graph.num_nodes / 2
    nodes = torch.tensor([[0, graph.num_nodes - 1], [5, 5]])
    more = batch.including(nodes)
    assert set(more.rows.tolist()) == {*batch.rows.tolist(), *nodes.flatten().tolist()}
    assert more.rows.tolist() == sorted(set(more.rows.tolist()))
    for name in ("src", "dst", "candidates"):
        assert torch.equal(more.rows[getattr(more, name)], batch.rows[getattr(batch, name)])
    assert torch.equal(more.relation, batch.relation)


def test_divide_equally_adds_up_and_respects_every_count(rng: np.random.Generator) -> None:
    for _ in range(2000):
        counts = rng.integers(1, 60, rng.integers(1, 9))
        total = int(rng.integers(1, 150))
        sizes = divide_equally(counts, total)
        assert sum(sizes) == min(total, counts.sum())
        assert (np.array(sizes) <= counts).all()
        assert min(sizes) >= 0
        short = [size for size, count in zip(sizes, counts, strict=True) if size < count]
        assert not short or max(sizes) - min(short) <= 1
    assert divide_equally(np.array([10_000, 30, 1_000_000]), 1_030) == [500, 30, 500]
