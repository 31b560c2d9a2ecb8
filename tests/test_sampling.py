"""Positives are facts, negatives are not; every edge type gets its share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from graphs import node, read_facts

from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.sampling import EdgeSampler, share_out


def test_batches_hold_facts_and_matching_negatives(graph: KnowledgeGraph) -> None:
    sampler = EdgeSampler(graph, seed=0)
    facts = {
        (src, graph.edge_types[kind].relation, dst)
        for src, kind, dst in zip(
            graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True
        )
    }
    for _ in range(20):
        batch = sampler.sample(100)
        assert batch.rows.tolist() == sorted(set(batch.rows.tolist()))
        src, dst, negative = (batch.rows[at] for at in (batch.src, batch.dst, batch.negative))
        relation = [graph.relations[r] for r in batch.relation.tolist()]
        positive = set(zip(src.tolist(), relation, dst.tolist(), strict=True))
        assert len(positive) == 100
        assert positive <= facts
        corrupted = set(zip(src.tolist(), relation, negative.tolist(), strict=True))
        assert batch.has_negative.all()
        assert not corrupted & facts
        assert (negative != src).all()
        assert torch.equal(graph.node_type[dst], graph.node_type[negative])


def test_a_source_that_knows_everyone_has_no_negative(tmp_path: Path) -> None:
    complete = [(node("drug", i), "r", node("disease", j)) for i in range(4) for j in range(3)]
    batch = EdgeSampler(read_facts(tmp_path, complete), seed=0).sample(10**6)
    assert len(batch.src) == 24
    assert not batch.has_negative.any()


def test_a_seed_repeats_its_batches(graph: KnowledgeGraph) -> None:
    a, b, other = (EdgeSampler(graph, seed) for seed in (3, 3, 4))
    first = [a.sample(50) for _ in range(3)]
    assert all(torch.equal(x.dst, b.sample(50).dst) for x in first)
    assert not torch.equal(first[0].dst, other.sample(50).dst)


def test_share_out_adds_up_and_respects_every_count(rng: np.random.Generator) -> None:
    for _ in range(2000):
        counts = rng.integers(1, 60, rng.integers(1, 9))
        total = int(rng.integers(1, 150))
        sizes = share_out(counts, total)
        assert sum(sizes) == min(total, counts.sum())
        assert (np.array(sizes) <= counts).all()
        assert min(sizes) >= 0
    assert share_out(np.array([10_000, 1_000_000]), 1_100) == [100, 1_000]
