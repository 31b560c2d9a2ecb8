"""Shared genes and the contrastive loss, against the obvious loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Fact, node, read_facts

from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.losses import info_nce
from clinical_drug_discovery.similarity import shared_neighbor_jaccard


def test_jaccard_against_sets(graph: KnowledgeGraph) -> None:
    jaccard = shared_neighbor_jaccard(graph)
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


def test_a_graph_without_such_facts_has_no_pairs(tmp_path: Path) -> None:
    facts: list[Fact] = [(node("drug", 0), "indication", node("disease", 0))]
    assert shared_neighbor_jaccard(read_facts(tmp_path, facts)) is None


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
