"""Metapath features: equal to counting paths one by one, and blind to the pair's own edges."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial

import numpy as np
import pytest
from graphs import Fact, graph_of, node, random_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ranking import listwise_examples
from clinical_drug_discovery.ranking.drug_similarity import (
    co_indicated_features,
    co_indicated_features_without,
)
from clinical_drug_discovery.ranking.for_drug.disease_side import DiseaseSide
from clinical_drug_discovery.ranking.for_drug.one_drug import OneDrug
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.treatments import order_by_drugs
from clinical_drug_discovery.system.errors import InputError

DAMPING = 0.4


def facts_of_drugs(seed: int = 0) -> list[Fact]:
    """Random facts in which every drug and disease stands, whatever indications are taken out."""
    rng = np.random.default_rng(seed)
    facts = random_facts(rng, 260)
    extra = [(node("drug", i), "drug_drug", node("drug", (i + 1) % 30)) for i in range(30)]
    extra += [
        (node("disease", i), "disease_disease", node("disease", i // 2)) for i in range(1, 20)
    ]
    return facts + extra


def numbers(graph: KnowledgeGraph, kind: str) -> dict[str, int]:
    table = graph.nodes.filter(graph.nodes["node_type"] == kind)
    return {str(id_): i for i, id_ in enumerate(table["node_id"])}


def all_features(features: MetapathFeatures, diseases: np.ndarray) -> np.ndarray:
    """Base features and those of co-indicated drugs, shape (n, F, drugs)."""
    known = [features.co_indicated_similarity(disease)[1] for disease in diseases.tolist()]
    co_indicated = np.stack([co_indicated_features(similarity) for similarity in known])
    return np.concatenate([features.base(diseases), co_indicated], axis=1)


def training_features(features: MetapathFeatures, disease: int, drug: int) -> np.ndarray:
    """All features of a disease as in training, when `drug` is the positive."""
    drugs, similarity = features.co_indicated_similarity(disease)
    at = np.flatnonzero(drugs == drug)
    co_indicated = (
        co_indicated_features_without(similarity, at)[0]
        if len(at)
        else co_indicated_features(similarity)
    )
    return np.concatenate([features.base(np.array([disease]))[0], co_indicated])


def test_direct_paths_are_those_counted_one_by_one() -> None:
    facts = facts_of_drugs()
    graph = graph_of(facts)
    features = MetapathFeatures(graph)
    name = (
        "drug - drug_protein - gene/protein - protein_protein - gene/protein"
        " - disease_protein - disease"
    )
    got = features.base(np.arange(features.num_diseases))[:, features.feature_names.index(name)]
    degree: Counter[tuple[str, str, str]] = Counter()
    links: dict[str, list[tuple[tuple[str, str], tuple[str, str]]]] = defaultdict(list)
    for x, relation, y in facts:
        for one, other in ((x, y), (y, x)):
            links[relation].append(((one.type, one.id), (other.type, other.id)))
            degree[relation, one.type, one.id] += 1
    weight = {
        relation: {
            (a, b): (degree[relation, *a] * degree[relation, *b]) ** -DAMPING for a, b in pairs
        }
        for relation, pairs in links.items()
    }
    expected = np.zeros_like(got)
    drugs, diseases = numbers(graph, "drug"), numbers(graph, "disease")
    for (a, b), first in weight["drug_protein"].items():
        for (c, d), second in weight["protein_protein"].items():
            for (e, f), third in weight["disease_protein"].items():
                if a[0] == "drug" and b == c and d == e and f[0] == "disease":
                    expected[diseases[f[1]], drugs[a[1]]] += first * second * third
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert expected.any()


def test_paths_through_other_diseases_leave_the_asked_one_out() -> None:
    facts = facts_of_drugs()
    graph = graph_of(facts)
    features = MetapathFeatures(graph)
    name = "drug - treats - disease - disease_disease - disease"
    got = features.base(np.arange(features.num_diseases))[:, features.feature_names.index(name)]
    drugs, diseases = numbers(graph, "drug"), numbers(graph, "disease")
    treats = {(drugs[x.id], diseases[y.id]) for x, r, y in facts if r == "indication"}
    near = [(diseases[x.id], diseases[y.id]) for x, r, y in facts if r == "disease_disease"]
    near += [(b, a) for a, b in near]
    relatives = Counter(a for a, _ in near)
    expected = np.zeros_like(got)
    for s, other in near:
        for drug, treated in treats:
            if treated == other:
                expected[s, drug] += (relatives[s] * relatives[other]) ** -DAMPING
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert expected.any()


def test_no_feature_of_a_pair_depends_on_its_own_edges() -> None:
    facts = facts_of_drugs()
    graph = graph_of(facts)
    drugs, diseases = numbers(graph, "drug"), numbers(graph, "disease")
    full = MetapathFeatures(graph)
    pairs = [(x, y) for x, relation, y in facts if relation == "indication"]
    changed = False
    for x, y in pairs[::5]:
        # Without the pair under every relation, so also without its off-label use.
        less = MetapathFeatures(graph_of([f for f in facts if {f[0], f[2]} != {x, y}]))
        drug, disease = drugs[x.id], diseases[y.id]
        # The whole list: not the pair alone, but what the other drugs have beside it.
        np.testing.assert_allclose(
            training_features(full, disease, drug),
            training_features(less, disease, drug),
            rtol=1e-4,
            atol=1e-5,
        )
        other = (disease + 1) % full.num_diseases
        changed |= not np.allclose(
            all_features(full, np.array([other])), all_features(less, np.array([other])), atol=1e-5
        )
    assert changed  # for other diseases the edge does count


def test_hidden_pairs_are_as_if_they_were_not_in_the_graph() -> None:
    facts = facts_of_drugs()
    graph = graph_of(facts)
    drugs, diseases = numbers(graph, "drug"), numbers(graph, "disease")
    gone = [(x, y) for x, r, y in facts if r == "indication"][:7]
    hidden = np.array([(drugs[x.id], diseases[y.id]) for x, y in gone])
    less = MetapathFeatures(graph_of([f for f in facts if (f[0], f[2]) not in gone]))
    every = np.arange(less.num_diseases)
    got = all_features(MetapathFeatures(graph, hidden=hidden), every)
    np.testing.assert_allclose(got, all_features(less, every), rtol=1e-4, atol=1e-5)


def test_the_order_of_facts_does_not_matter() -> None:
    facts = facts_of_drugs()
    every = np.arange(20)
    one = all_features(MetapathFeatures(graph_of(facts)), every)
    np.testing.assert_array_equal(one, all_features(MetapathFeatures(graph_of(facts[::-1])), every))


def test_features_do_not_depend_on_what_is_asked_with_them() -> None:
    features = MetapathFeatures(graph_of(facts_of_drugs()))
    every = np.arange(20)  # many at once are computed another way than a few
    together = all_features(features, every[::-1])
    alone = all_features(features, np.array([5]))
    np.testing.assert_allclose(together[14], alone[0], rtol=1e-4, atol=1e-6)
    sparing = all_features(
        MetapathFeatures(graph_of(facts_of_drugs()), for_many=False), every[::-1]
    )
    np.testing.assert_allclose(sparing, together, rtol=1e-4, atol=1e-6)
    assert together.shape[1] == len(features.feature_names) == len(set(features.feature_names))


def test_a_first_question_computes_the_similarities_that_it_needs() -> None:
    graph = graph_of(facts_of_drugs())
    after = MetapathFeatures(graph)
    every, _ = after.steps_between_treated
    assert every.shape == (len(after.treated), len(after.treated))
    num_needed = []
    for disease in after.treated.tolist():
        alone = MetapathFeatures(graph)
        found, wanted = (f.co_indicated_similarity(disease)[1] for f in (alone, after))
        np.testing.assert_array_equal(found, wanted)
        missing = alone._similar.missing(np.arange(len(alone.treated)))
        num_needed.append(len(alone.treated) - len(missing))
        first = alone.steps_between_treated[0]
        np.testing.assert_array_equal(first.toarray(), every.toarray())
    assert min(num_needed) < max(num_needed) < len(after.treated)  # not all of them


def test_missing_types_give_fewer_paths() -> None:
    facts = [f for f in facts_of_drugs() if f[1] == "indication"]
    features = MetapathFeatures(graph_of(facts))
    assert 0 < len(features.feature_names) < 25
    assert np.isfinite(all_features(features, np.arange(features.num_diseases))).all()


def test_a_graph_without_treatments_is_refused() -> None:
    facts = [f for f in facts_of_drugs() if f[1] != "indication"]
    with pytest.raises(InputError, match="no edges between drug and disease"):
        MetapathFeatures(graph_of(facts))
    with pytest.raises(InputError, match="no nodes of type 'disease'"):
        MetapathFeatures(graph_of([f for f in facts if "disease" not in (f[0].type, f[2].type)]))


@pytest.mark.parametrize("most", [1, 4, 100])
def test_known_drugs_of_many_diseases_are_compared_together(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listwise_examples, "MAX_KNOWN", most)
    features = MetapathFeatures(graph_of(facts_of_drugs()))
    order = order_by_drugs(features.known_by_disease, most)
    np.testing.assert_array_equal(np.sort(order), np.arange(features.num_diseases))
    known = features.known_counts[order] > 0
    assert known[: len(features.treated)].all()  # diseases without known drugs are last
    together = listwise_examples.co_indicated_similarities(features, order)
    for disease, (drugs, got) in zip(order.tolist(), together, strict=True):
        alone, expected = features.co_indicated_similarity(disease)
        np.testing.assert_array_equal(drugs, alone)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_co_indicated_features_without_one_drug_are_those_of_the_others() -> None:
    features = MetapathFeatures(graph_of(facts_of_drugs()))
    disease = int(np.argmax(features.known.sum(axis=0)))
    _, similarity = features.co_indicated_similarity(disease)
    every = np.arange(similarity.shape[1])
    assert len(every) > 2
    for drug, got in zip(every, co_indicated_features_without(similarity, every), strict=True):
        expected = co_indicated_features(np.delete(similarity, drug, axis=1))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("drug", range(0, 30, 3))
def test_the_features_of_one_drug_are_those_among_all(drug: int) -> None:
    features = MetapathFeatures(graph_of(facts_of_drugs()))
    diseases = np.arange(features.num_diseases)
    side = DiseaseSide.of(features)
    one = OneDrug(side, drug)
    of_all, of_diseases = features.base_parts(diseases)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(one.of_pairs.T, of_all[:, :, drug])
    close(side.of_diseases.T, of_diseases)
    close(side.largest, of_all[:, features.walk_rows].sum(axis=1).max(axis=1))
    close(one.anchors, [features.walk_anchor(of_all[disease])[drug] for disease in diseases])
    close(one.popularity.T, [features.popularity(disease)[:, drug] for disease in diseases])
    similarities = map(features.co_indicated_similarity, features.treated.tolist())
    wanted = [co_indicated_features(similarity)[:, drug] for _, similarity in similarities]
    close(one.co_indicated.T, wanted)
