"""Hidden treatments are hidden, vectors go where the edges say, a planted mechanism is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import Fact, graph_of, node, planted_facts, random_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.ranking.calibration import fit_weight
from clinical_drug_discovery.ranking.propagation import Propagation
from clinical_drug_discovery.ranking.treatment_decoder import (
    TreatmentDecoder,
    decode,
    fit_decoders,
    fit_treatment_decoder,
)

DRUG, DISEASE = PRIMEKG.drug_type, PRIMEKG.disease_type

NONE = np.array([], np.int64)


def facts_with_more() -> list[Fact]:
    """Random facts; half of the indications stand under another relation too."""
    facts = random_facts(np.random.default_rng(3), num_facts=300)
    treats = [f for f in facts if f[1] == "indication"]
    more = [(x, "contraindication", y) for x, _, y in treats[::2]]
    return [*facts, *more, *((x, "palliation", y) for x, _, y in treats[:3])]


def some_decoder(propagation: Propagation, dim: int = 5) -> TreatmentDecoder:
    """One with weights unlike those that training starts from."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(propagation.num_drugs, 8, generator=generator)
    decoder = TreatmentDecoder(propagation, embeddings, dim, generator)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.copy_(torch.rand(weight.shape, generator=generator))
    return decoder


def test_propagation_equals_that_by_dense_matrices() -> None:
    graph = graph_of(facts_with_more())
    propagation = Propagation(graph, 3)
    decoder = some_decoder(propagation)
    x = decoder.drugs().detach().requires_grad_()
    hidden = np.arange(len(propagation.drug)) % 3 == 0
    adjacencies = propagation.adjacencies(hidden)
    given = (x, decoder.edge_weights, decoder.self_weights)
    got = propagation.propagate(x, adjacencies, decoder.edge_weights, decoder.self_weights)

    def size(name: str) -> int:
        first, stop = node_range_of(graph, name)
        return stop - first

    at = {t: torch.zeros(size(t), x.shape[1]) for t in propagation.node_types} | {DRUG: x}
    for step in range(3):
        after = {
            t: at[t] * decoder.self_weights[step, i] for i, t in enumerate(propagation.node_types)
        }
        for i, link in enumerate(adjacencies):
            matrix = link.matrix.to_dense()
            assert torch.equal(matrix.T, link.transpose.to_dense())
            moved = (matrix @ at[link.src_type]) * decoder.edge_weights[step, i]
            after[link.dst_type] = after[link.dst_type] + moved
        at = after
    torch.testing.assert_close(got, at[DISEASE])
    told = torch.randn(got.shape, generator=torch.Generator().manual_seed(2))
    mine, theirs = (torch.autograd.grad((y * told).sum(), given) for y in (got, at[DISEASE]))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_an_edge_counts_by_the_roots_of_its_ends_degrees() -> None:
    graph = graph_of(facts_with_more())
    ends = {"drug_protein": (DRUG, "gene/protein"), "disease_protein": (DISEASE, "gene/protein")}
    for kind in graph.edge_types:
        if ends.get(kind.relation) != (kind.src_type, kind.dst_type):
            continue
        r = graph.edge_types.index(kind)
        dense = torch.zeros(*(node_range_of(graph, t)[1] for t in (kind.dst_type, kind.src_type)))
        dense[graph.dst_of(r).long(), graph.src_of(r).long()] = 1
        dense = dense[
            slice(*node_range_of(graph, kind.dst_type)), slice(*node_range_of(graph, kind.src_type))
        ]
        roots = [dense.sum(dim=d, keepdim=True).clamp(min=1).sqrt() for d in (0, 1)]
        link = next(
            link
            for link in Propagation(graph, 2).adjacencies()
            if (link.src_type, link.dst_type) == (kind.src_type, kind.dst_type)
        )
        torch.testing.assert_close(link.matrix.to_dense(), dense / roots[0] / roots[1])


def without(graph: KnowledgeGraph, facts: list[Fact], drug: int, disease: int) -> list[Fact]:
    """The facts without any of a pair; drugs and diseases are numbered within their type."""
    gone = {
        (kind, graph.nodes["node_id"][node_range_of(graph, kind)[0] + number])
        for kind, number in ((DRUG, drug), (DISEASE, disease))
    }
    return [f for f in facts if {(x.type, x.id) for x in (f[0], f[2])} != gone]


def test_a_hidden_pair_is_scored_as_if_no_edge_joined_it() -> None:
    facts = facts_with_more()
    graph = graph_of(facts)
    propagation = Propagation(graph, 4)
    decoder = some_decoder(propagation)
    drugs = decoder.drugs().detach()
    with torch.no_grad():
        every = decoder.diseases(drugs, propagation, None)
    num_compared = 0
    for k in range(0, len(propagation.drug), 7):
        drug, disease = int(propagation.drug[k]), int(propagation.disease[k])
        other = graph_of(without(graph, facts, drug, disease))
        if other.nodes["node_id"].to_list() != graph.nodes["node_id"].to_list():
            continue  # the pair was all that was said of one of the two
        hidden = np.arange(len(propagation.drug)) == k
        apart = Propagation(other, 4)
        if apart.num_edge_types != propagation.num_edge_types:
            continue
        with torch.no_grad():
            masked = decoder.diseases(drugs, propagation, hidden)
            absent = decoder.diseases(drugs, apart, None)
        torch.testing.assert_close(masked, absent)
        assert not torch.allclose(masked[disease], every[disease])
        num_compared += 1
    assert num_compared > 5
    with torch.no_grad():  # and nothing was changed for good
        torch.testing.assert_close(decoder.diseases(drugs, propagation, None), every)


def test_known_pairs_are_scored_as_if_they_were_not_known() -> None:
    graph = graph_of(planted_facts(chance=0.7))
    propagation = Propagation(graph, 4)
    decoder = some_decoder(propagation)
    score = decode(decoder, propagation)
    drugs, factor = decoder.drugs().detach(), 5 * decoder.factor.detach()
    disease = int(propagation.disease[0])
    logits = score.diseases[disease] @ score.drugs.T
    of_it = np.flatnonzero(propagation.disease == disease)
    assert len(of_it) > 1
    for k in of_it.tolist():
        hidden = np.arange(len(propagation.drug)) % 10 == k % 10
        with torch.no_grad():
            vector = decoder.diseases(drugs, propagation, hidden)[disease] * factor
        logits[propagation.drug[k]] = vector @ drugs[propagation.drug[k]]
    expected = torch.log_softmax(logits, dim=0).numpy()
    np.testing.assert_allclose(score.log_softmax(np.array([disease]))[0], expected, rtol=1e-4)


@pytest.fixture(scope="module")
def planted() -> tuple[KnowledgeGraph, np.ndarray]:
    """The planted graph without all pairs of six diseases and single pairs of others; the truth."""
    facts = planted_facts()
    whole = graph_of(facts)
    treats = [f for f in facts if f[1] == "indication"]
    out = {node("disease", i) for i in range(6)}
    hidden = {f for i, f in enumerate(treats) if f[2] in out or i % 9 == 0}
    graph = graph_of([f for f in facts if f not in hidden])
    assert graph.num_nodes == whole.num_nodes
    truth = np.zeros((60, 40), bool)
    propagation = Propagation(whole, 1)
    truth[propagation.drug, propagation.disease] = True
    return graph, truth


def test_a_planted_mechanism_is_found(planted: tuple[KnowledgeGraph, np.ndarray]) -> None:
    graph, truth = planted
    propagation = Propagation(graph, 4)
    random = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    decoder = fit_treatment_decoder(propagation, random, left_out=NONE, dim=32, seed=1)
    scores = decode(decoder, propagation).log_softmax(np.arange(40))
    known = np.zeros_like(truth)
    known[propagation.drug, propagation.disease] = True
    ranks = [
        1 + (scores[s][~truth[:, s]] > scores[s, d]).sum() for d, s in np.argwhere(truth & ~known)
    ]
    assert np.mean(1 / np.array(ranks)) > 0.8  # by chance it is 0.08


def test_the_same_seed_gives_the_same_decoders(planted: tuple[KnowledgeGraph, np.ndarray]) -> None:
    graph, _ = planted
    embeddings = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    out = [np.array([7, 8]), np.array([9])]
    state = torch.get_rng_state()
    first, second = (
        fit_decoders(graph, embeddings, left_out=out, asked=out, seed=4) for _ in range(2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.score.diseases, second.score.diseases)
    assert torch.equal(first.score.known_score, second.score.known_score)
    assert [part.shape for part in first.with_known] == [(2, 60), (1, 60)]


def test_what_treats_a_left_out_disease_changes_no_weight() -> None:
    of_it = node("disease", 20)
    facts = [f for f in planted_facts() if f[1] != "indication" or f[2] != of_it]
    embeddings = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    decoders = []
    for drugs in ((1, 2), (30, 40)):
        graph = graph_of([*facts, *((node("drug", i), "indication", of_it) for i in drugs)])
        ids = graph.nodes[slice(*node_range_of(graph, DISEASE))]["node_id"].to_list()
        left_out = np.array([ids.index("20")])
        propagation = Propagation(graph, 4)
        decoders.append(
            fit_treatment_decoder(propagation, embeddings, left_out=left_out, num_epochs=3, seed=2)
        )
    for one, other in zip(*(decoder.parameters() for decoder in decoders), strict=True):
        torch.testing.assert_close(one, other)


def test_a_helpful_second_opinion_gets_a_weight_and_noise_gets_none(
    rng: np.random.Generator,
) -> None:
    truth = rng.normal(size=(200, 50))
    first, second = (
        (truth + rng.normal(size=truth.shape) * size).astype(np.float32) for size in (1.0, 0.5)
    )
    noise = rng.normal(size=truth.shape).astype(np.float32)
    known = truth >= np.sort(truth, axis=1)[:, -2:-1]
    assert fit_weight(first, second, known) == pytest.approx(4, rel=0.3)  # by their variances
    assert fit_weight(first, 100 * second, known) == pytest.approx(0.04, rel=0.3)
    assert fit_weight(first, noise, known) < 0.1
    assert fit_weight(-first, second, known) == 10  # no more, however wrong the first is
    assert fit_weight(first, -first - second, known) == 0
    assert fit_weight(first, np.zeros_like(first), known) == 0
