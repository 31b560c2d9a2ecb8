"""The sample of treatments of a step, and the loss of votes against loops over pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from graphs import Fact, graph_of, node, planted_facts
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.training.objective import treatment_votes
from clinical_drug_discovery.training.objective.similarity_losses import nearness_loss, vote_loss
from clinical_drug_discovery.training.objective.treatment_votes import (
    Treatments,
    TreatmentSampler,
    has_treatments,
)


@pytest.fixture
def planted() -> KnowledgeGraph:
    return graph_of(planted_facts(chance=0.8))


def known_pairs(graph: KnowledgeGraph) -> set[tuple[int, int]]:
    """Return (disease, drug) of all indications, as nodes of the graph."""
    (r,) = (
        r
        for r, kind in enumerate(graph.edge_types)
        if kind.relation == "indication" and kind.src_type == "drug"
    )
    return set(zip(graph.dst_of(r).tolist(), graph.src_of(r).tolist(), strict=True))


def slow_loss(z: Tensor, graph: KnowledgeGraph, batch: Treatments) -> Tensor:
    """All sums over the known pairs of the graph, one pair after the other."""
    known = known_pairs(graph)

    def kernel(nodes: Tensor) -> dict[tuple[int, int], Tensor]:
        unit = functional.normalize(z[nodes] - z[nodes].mean(dim=0), dim=1)
        cosine = torch.exp(unit @ unit.t() / 0.1)
        order = nodes.tolist()
        return {(a, b): cosine[i, j] for i, a in enumerate(order) for j, b in enumerate(order)}

    of_diseases, of_drugs = kernel(batch.voters), kernel(batch.drugs)
    voters, drugs = batch.voters.tolist(), batch.drugs.tolist()
    pairs = [(d, m) for d, m in known if d in voters]
    asked_drugs = batch.drugs[batch.own].tolist()
    votes, nears = [], []
    for at in batch.asked.tolist():
        disease = voters[at]
        own = [m for d, m in known if d == disease]
        others = torch.stack([of_diseases[disease, v] for v in voters if v != disease]).sum()
        near = {
            one: sum(of_drugs[one, o] for o in own if o != one)
            + 1e-4 * sum(of_drugs[one, o] for o in asked_drugs)
            for one in drugs
        }
        for drug in own:
            vote = sum(of_diseases[disease, d] for d, m in pairs if d != disease and m == drug)
            every = sum(of_diseases[disease, d] for d, m in pairs if d != disease)
            popular = 2e-3 * sum(m == drug for _, m in pairs) / len(pairs)
            loss = -torch.log((vote / others + popular) / (every / others + 2e-3))
            votes.append((len(own) ** -0.5, loss))
            if len(own) > 1:
                nears.append(
                    (len(own) ** -0.5, -torch.log(torch.as_tensor(near[drug] / sum(near.values()))))
                )
    return sum(
        (sum(w * x for w, x in some) / sum(w for w, _ in some) for some in (votes, nears)),
        torch.zeros(()),
    )


def test_the_loss_and_its_gradient_equal_loops_over_pairs(planted: KnowledgeGraph) -> None:
    batch = TreatmentSampler(planted, num_parts=1, seed=0).sample()
    z = torch.randn(planted.num_nodes, 6, generator=torch.Generator().manual_seed(0))
    fast, slow = (z.double().requires_grad_() for _ in range(2))
    exact = replace(batch, known=batch.known.double(), num_drugs=batch.num_drugs.double())
    found = vote_loss(fast[batch.voters], exact) + nearness_loss(fast[batch.drugs], exact)
    wanted = slow_loss(slow, planted, batch)
    found.backward()
    wanted.backward()
    assert math.isclose(found.item(), wanted.item(), rel_tol=1e-9)
    assert fast.grad is not None
    assert slow.grad is not None
    assert torch.allclose(fast.grad, slow.grad, atol=1e-9)


def test_a_step_has_few_drugs_and_diseases(
    planted: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("ASKED", 9), ("VOTERS", 20), ("OWN", 12), ("DRUGS", 30)):
        monkeypatch.setattr(treatment_votes, f"MAX_{name}", size)
    known, sampler = known_pairs(planted), TreatmentSampler(planted, num_parts=1, seed=0)
    asked = set[int]()
    for _ in range(30):
        batch = sampler.sample()
        assert (len(batch.voters), len(batch.drugs)) == (20, 30)
        assert len({*batch.voters.tolist(), *batch.drugs.tolist()}) == 50
        diseases, own = batch.voters[batch.asked].tolist(), batch.drugs[batch.own].tolist()
        assert 1 <= len(diseases) <= 9
        assert len(own) <= 12 or len(diseases) == 1
        pairs = zip(batch.pair_disease.tolist(), batch.pair_drug.tolist(), strict=True)
        assert {(diseases[a], own[b]) for a, b in pairs} == {p for p in known if p[0] in diseases}
        asked.update(diseases)
    assert len(asked) > 20


def test_steps_share_an_epoch(planted: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treatment_votes, "MAX_VOTERS", 20)
    assert len(TreatmentSampler(planted, num_parts=4, seed=0).sample().voters) == 5


def test_one_treated_disease_has_no_other_to_vote() -> None:
    facts: list[Fact] = [
        (node("drug", 0), "indication", node("disease", 0)),
        (node("drug", 1), "drug_protein", node("gene/protein", 0)),
    ]
    assert not has_treatments(graph_of(facts))
    facts.append((node("drug", 0), "indication", node("disease", 1)))
    assert has_treatments(graph_of(facts))
    assert not has_treatments(graph_of([(node("x", 0), "indication", node("y", 0))]))
