"""Shared genes and the contrastive loss, against the obvious loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from graphs import Fact, node, read_facts

from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.training.objective import disease_pairs
from clinical_drug_discovery.training.objective.disease_pairs import (
    PairSampler,
    most_sharing_pairs,
    shared_neighbor_jaccard,
)
from clinical_drug_discovery.training.objective.similarity_losses import info_nce

GENES = {"node_type": "disease", "neighbor_type": "gene/protein", "relation": "disease_protein"}


@dataclass
class Given:
    """A matrix of Jaccard indices, in blocks of a few rows."""

    matrix: scipy.sparse.csr_array
    num_rows: int = 7

    @property
    def num_nodes(self) -> int:
        return int(self.matrix.shape[0])

    def sharing(self) -> IntArray:
        return np.flatnonzero(np.diff(self.matrix.indptr))

    def blocks(self) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
        for start in range(0, self.num_nodes, self.num_rows):
            yield start, self.matrix[start : start + self.num_rows]


@pytest.mark.parametrize("most", [disease_pairs.BLOCK_PAIRS, 40, 1])
def test_jaccard_against_sets(
    graph: KnowledgeGraph, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disease_pairs, "BLOCK_PAIRS", most)
    found = shared_neighbor_jaccard(graph, **GENES)
    assert found is not None
    blocks = list(found.blocks())
    assert (len(blocks) > 1) == (most <= 40)
    jaccard = scipy.sparse.vstack([rows for _, rows in blocks]).tocsr()
    assert [start for start, _ in blocks[1:]] == np.cumsum(
        [rows.shape[0] for _, rows in blocks[:-1]]
    ).tolist()
    assert found.sharing().tolist() == np.flatnonzero(np.diff(jaccard.indptr)).tolist()
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


def random_jaccard(num_nodes: int, density: float) -> Given:
    rng = np.random.default_rng(num_nodes)
    upper = np.triu(
        rng.random((num_nodes, num_nodes)) * (rng.random((num_nodes,) * 2) < density), 1
    )
    return Given(scipy.sparse.csr_array(upper + upper.T))


@pytest.mark.parametrize(("num_nodes", "density"), [(40, 0.2), (60, 0.9), (25, 1.0), (15, 0.5)])
@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_pairs_are_alike_and_never_held_out(
    num_nodes: int, density: float, threshold: float
) -> None:
    jaccard, first = random_jaccard(num_nodes, density), 100
    dense = jaccard.matrix.toarray()
    pairs = PairSampler(jaccard, first, threshold, seed=0)
    left_out = pairs.held_out
    held_out = set(left_out.a.tolist())
    assert pairs.num_held_out_nodes == dense.any(axis=1).sum() // 10 == len(held_out) > 0
    free = np.array([first + node not in held_out for node in range(num_nodes)])
    alike = np.triu(dense >= threshold) & (dense > 0)
    assert pairs.num_similar_pairs == alike.sum()
    assert 0 < pairs.num_pairs == alike[free][:, free].sum() < pairs.num_similar_pairs
    for _ in range(20):
        batch = pairs.sample(10)
        a, b = batch.anchor - first, batch.positive - first
        assert len(set(a.tolist())) == len(a) > 0
        assert not held_out & {*batch.nodes.tolist()}
        assert (dense[a, b] >= threshold).all()
        for i in range(len(a)):
            no_negative = (dense[a[i], b] >= threshold) | (a[i] == b).numpy()
            assert batch.excluded[i].tolist() == no_negative.tolist()
    # Left out: all pairs that share something, and as many that share nothing where there are any.
    sharing = left_out.jaccard > 0
    ends = list(zip(left_out.a.tolist(), left_out.b.tolist(), strict=True))
    kept = {frozenset(ends[k]) for k in np.flatnonzero(sharing)}
    assert len(kept) == sharing.sum()
    assert kept == {
        frozenset((first + int(i), first + int(j)))
        for i, j in zip(*dense.nonzero(), strict=True)
        if {first + int(i), first + int(j)} & held_out
    }
    np.testing.assert_allclose(left_out.jaccard, dense[left_out.a - first, left_out.b - first])
    assert (left_out.a != left_out.b).all()
    num_nothing, most = (~sharing).sum(), sharing.sum()
    if density in (0.9, 1.0):
        assert num_nothing < most  # such nodes are hard to find, or not there
    else:
        assert num_nothing == most


def test_what_is_left_out_does_not_depend_on_the_training() -> None:
    a, b = (PairSampler(random_jaccard(40, 0.3), 0, threshold, 5) for threshold in (0.1, 0.9))
    for _ in range(7):
        a.sample(10)
    for name in ("a", "b", "jaccard"):
        np.testing.assert_array_equal(getattr(a.held_out, name), getattr(b.held_out, name))


def test_the_size_of_blocks_changes_no_pair() -> None:
    matrix = random_jaccard(60, 0.4).matrix
    one, other = (PairSampler(Given(matrix, size), 10, 0.3, seed=2) for size in (60, 4))
    assert one.num_similar_pairs == other.num_similar_pairs
    for name in ("a", "b", "jaccard"):
        np.testing.assert_array_equal(getattr(one.held_out, name), getattr(other.held_out, name))
    for _ in range(3):
        first, second = one.sample(12), other.sample(12)
        assert torch.equal(first.nodes, second.nodes)
        assert torch.equal(first.excluded, second.excluded)


def test_no_contrast_where_all_are_alike_or_alone() -> None:
    everyone = Given(scipy.sparse.csr_array(np.ones((12, 12)) - np.eye(12)))
    assert not PairSampler(everyone, 0, 0.5, 0).has_negatives(100)
    some = PairSampler(random_jaccard(40, 0.3), 0, 0.5, 0)
    assert some.has_negatives(2)
    assert not some.has_negatives(1)


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
