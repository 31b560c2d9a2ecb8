"""Effects of metapaths are the parts of the score that they add."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import Fact, graph_of, node, random_facts

from clinical_drug_discovery.ranking.evidence.feature_effects import feature_effects
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import PathRanker, ScoreMlp

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
def test_a_walk_counts_for_its_own_visits_only(
    rng: np.random.Generator, relations: tuple[str, ...]
) -> None:
    features = MetapathFeatures(graph_of(facts_with_walks(rng, relations)))
    size = len(features.feature_names)
    mlp = ScoreMlp(torch.zeros(size), torch.ones(size), len(features.popularity_names), 8)
    mlp.initialise(torch.Generator().manual_seed(0))  # the anchor alone decides
    scales = np.ones(features.num_base, np.float32), np.ones(size - features.num_base, np.float32)
    paths = PathRanker((mlp,), *scales, {}, ())
    drugs, num_both = np.arange(features.num_drugs), 0
    for disease in features.treated.tolist():
        visits = features.base(np.array([disease]))[0][features.walk_rows]
        share = visits / max(visits.sum(axis=0).max(initial=0), 1e-30)
        effects = feature_effects(paths, features, disease, drugs)
        for drug, effect in zip(drugs.tolist(), effects, strict=True):
            expected = {
                f"drug - treats - disease - walk along {relation} - disease": np.log(
                    (share[:, drug].sum() + 1e-3) / (share[:, drug].sum() - own + 1e-3)
                )
                for relation, own in zip(relations, share[:, drug].tolist(), strict=True)
                if own
            }
            num_both += len(expected) == 2
            others = dict.fromkeys(effect.keys() - expected.keys(), 0.0)
            assert effect == pytest.approx(expected | others, abs=2e-3)
    assert (num_both > 20) == (len(relations) == 2)
