"""Effects of kinds of evidence are the parts of the score that they add."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from graphs import Fact, graph_of, node, random_facts

from clinical_drug_discovery.ranking.evidence.explanations import KINDS
from clinical_drug_discovery.ranking.evidence.kind_effects import kind_effects, kind_of
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_scores import PathRanker
from clinical_drug_discovery.ranking.score_mlp import ScoreMlp, weights_of

WALKS = ("disease_disease", "phenotype_link")


def facts_with_walks(rng: np.random.Generator, relations: tuple[str, ...]) -> list[Fact]:
    facts = random_facts(rng, 260)
    for relation in relations:
        ends = np.sort(rng.integers(20, size=(25, 2)), axis=1)
        facts += [
            (node("disease", a), relation, node("disease", b))
            for a, b in np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0).tolist()
        ]
    return facts


@pytest.mark.parametrize("relations", [WALKS, WALKS[:1], ()])
def test_walks_count_as_related_diseases(
    rng: np.random.Generator, relations: tuple[str, ...]
) -> None:
    features = MetapathFeatures(graph_of(facts_with_walks(rng, relations)))
    size = len(features.feature_names)
    mlp = ScoreMlp(torch.zeros(size), torch.ones(size), len(features.popularity_names), 8)
    mlp.initialise(torch.Generator().manual_seed(0))  # the anchor alone decides
    scales = np.ones(features.num_base, np.float32), np.ones(size - features.num_base, np.float32)
    paths = PathRanker((weights_of(mlp),), *scales, {}, ())
    drugs, num_walks = np.arange(features.num_drugs), 0
    for disease in features.treated.tolist():
        visits = features.base(np.array([disease]))[0][features.walk_rows].sum(axis=0)
        share = visits / max(visits.max(initial=0), 1e-30)
        effects = kind_effects(paths, features, disease, drugs)
        for drug, effect in zip(drugs.tolist(), effects, strict=True):
            expected = dict.fromkeys(effect, 0.0)
            if share[drug]:
                num_walks += 1
                expected["related disease"] = np.log((share[drug] + 1e-3) / 1e-3)
            assert effect == pytest.approx(expected, abs=2e-3)
    assert (num_walks > 20) == (len(relations) > 0)


def test_every_feature_has_the_kind_of_its_paths(rng: np.random.Generator) -> None:
    facts = [
        *facts_with_walks(rng, WALKS),
        (node("drug", 0), "drug_effect", node("effect/phenotype", 0)),
        (node("disease", 1), "disease_phenotype_positive", node("effect/phenotype", 0)),
        (node("drug", 1), "contraindication", node("disease", 2)),
    ]
    names = MetapathFeatures(graph_of(facts)).feature_names
    kinds = {name: kind_of(name) for name in names}
    assert kinds["drug - drug_protein - gene/protein - disease_protein - disease"] == "mechanism"
    walk = "drug - treats - disease - walk along disease_disease - disease"
    assert kinds[walk] == "related disease"
    own = "drug - drug_protein - gene/protein - drug_protein - drug - treats - disease"
    assert kinds[own] == kinds[f"{own}, nearest"] == "similar drug"
    for name, kind in kinds.items():
        if "drug_effect" in name.split(" - ")[:2] or "contraindication" in name:
            assert kind is None, name
        if name.endswith("how many"):
            assert kind is None, name


def test_words_of_other_graphs_give_the_same_kinds(rng: np.random.Generator) -> None:
    facts = facts_with_walks(rng, WALKS)
    words = {"drug": "Compound", "disease": "Disease", "gene/protein": "Gene"}
    renamed = [
        (x._replace(type=words[x.type]), relation, y._replace(type=words[y.type]))
        for x, relation, y in facts
    ]
    of_graphs = [
        Counter(map(kind_of, MetapathFeatures(graph_of(some)).feature_names))
        for some in (facts, renamed)
    ]
    assert of_graphs[0] == of_graphs[1]
    assert min(of_graphs[0][kind] for kind in (None, *KINDS)) > 1
