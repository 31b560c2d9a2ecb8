"""Shared genes and the contrastive loss, against the obvious loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Fact, node, read_facts

from clinical_drug_discovery.contrast import PairSampler
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.losses import info_nce
from clinical_drug_discovery.similarity import most_sharing_pairs, shared_neighbor_jaccard

GENES = {"node_type": "disease", "neighbor_type": "gene/protein", "relation": "disease_protein"}


def test_jaccard_against_sets(graph: KnowledgeGraph) -> None:
    jaccard = shared_neighbor_jaccard(graph, **GENES)
    assert jaccard is not None
    kind = graph.edge_types.index(("gene/protein", "disease_protein", "disease"))
    start, stop = graph.type_ptr[0].item(), graph.type_ptr[1].item()
    assert graph.node_type_names[0] == "disease"
    genes = [
        {
            src
            for src, r, dst in zip(
                graph.src.tolist(), graph.edge_type.tolist(), graph.dst.tolist(), strict=True
            )
            if r == kind and dst == disease
        }
        for disease in range(int(start), int(stop))
    ]
    expected = np.array(
        [[len(a & b) / len(a | b) if a is not b and a & b else 0.0 for b in genes] for a in genes]
    )
    np.testing.assert_allclose(jaccard.toarray(), expected)
    assert expected.any()
    # At most: pairs that share several neighbours count several times, and each node with itself.
    sharing = sum(len(a & b) for a in genes for b in genes)
    assert most_sharing_pairs(graph, **GENES) == sharing > jaccard.nnz


def test_a_graph_without_such_facts_has_no_pairs(tmp_path: Path) -> None:
    facts: list[Fact] = [(node("drug", 0), "indication", node("disease", 0))]
    assert shared_neighbor_jaccard(read_facts(tmp_path, facts), **GENES) is None


@pytest.mark.parametrize("threshold", [0.05, 0.3, 1.0])
def test_pairs_are_alike_and_never_held_out(graph: KnowledgeGraph, threshold: float) -> None:
    jaccard = shared_neighbor_jaccard(graph, **GENES)
    assert jaccard is not None
    dense, first = jaccard.toarray(), int(graph.type_ptr[0])
    pairs = PairSampler(jaccard, first, threshold, seed=0)
    left_out = pairs.left_out()
    held_out = set(left_out.a.tolist())
    assert pairs.num_held_out_nodes == len(dense.any(axis=1).nonzero()[0]) // 10 == len(held_out)
    free = np.array([node not in held_out for node in range(len(dense))])
    assert pairs.num_pairs == (np.triu(dense) >= threshold)[free][:, free].sum()
    for _ in range(20 if pairs.num_pairs else 0):
        batch = pairs.sample(10)
        a, b = batch.anchor - first, batch.positive - first
        assert len(set(a.tolist())) == len(a) > 0
        assert not held_out & {*batch.nodes.tolist()}
        assert (dense[a, b] >= threshold).all()
        for i in range(len(a)):
            alike = (dense[a[i], b] >= threshold) | (a[i] == b).numpy()
            assert batch.excluded[i].tolist() == alike.tolist()
    # Left out: all pairs that share something, and about as many that share nothing.
    kept = {frozenset(pair) for pair in zip(left_out.a.tolist(), left_out.b.tolist(), strict=True)}
    sharing = {
        frozenset((int(i), int(j)))
        for i, j in zip(*dense.nonzero(), strict=True)
        if {int(i), int(j)} & held_out
    }
    assert sharing <= kept
    np.testing.assert_allclose(left_out.jaccard, dense[left_out.a - first, left_out.b - first])
    assert (left_out.jaccard > 0).sum() == len(sharing)
    assert (left_out.a != left_out.b).all()


def test_info_nce_by_hand() -> None:
    torch.manual_seed(0)
    anchor, positive = torch.randn(5, 3), torch.randn(5, 3)
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[0, 1] = excluded[2, 2] = True  # the diagonal is the positive itself and stays
    terms = []
    for i in range(5):
        scores = [
            torch.cosine_similarity(anchor[i], positive[j], dim=0) / 0.1
            for j in range(5)
            if not excluded[i, j] or i == j
        ]
        own = torch.cosine_similarity(anchor[i], positive[i], dim=0) / 0.1
        terms.append(torch.logsumexp(torch.stack(scores), dim=0) - own)
    loss = info_nce(anchor, positive, excluded, 0.1)
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    same = torch.ones(7, 3)
    nothing = torch.zeros(7, 7, dtype=torch.bool)
    assert info_nce(same, same, nothing, 0.1).item() == pytest.approx(np.log(7), rel=1e-5)
