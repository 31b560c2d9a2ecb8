"""Boosted trees over the features of paths: they see thresholds and pairs of them, not lists.

A ranker to compare with: blended into the one that is kept, they earned nothing for much time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.ranking.drug_similarity import (
    co_indicated_features,
    co_indicated_features_without,
)
from clinical_drug_discovery.ranking.listwise_examples import (
    feature_scales,
    sample_examples,
    squash,
)
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures

_GOALS, _OTHERS = 8, 120  # known drugs of a disease that are learned, other drugs beside each
_HARD = 0.7  # share of the others that treat something


@dataclass(frozen=True)
class BoostedPaths:
    """A fitted classifier of known pairs."""

    classifier: Any
    base_scale: Floats
    co_indicated_scale: Floats

    def scores(self, evidence: MetapathFeatures, diseases: IntArray) -> Floats:
        """Score all drugs for diseases.

        Args:
            evidence: of the graph whose known pairs count.
            diseases: shape (n,), numbered within their type.

        Returns:
            Shape (n, drugs), the log odds among the others that it was shown, comparable within a
            disease.
        """
        out = np.empty((len(diseases), evidence.num_drugs), np.float32)
        for i, disease in enumerate(diseases.tolist()):
            base = squash(evidence.base(diseases[[i]])[0], self.base_scale)
            fellows = squash(
                co_indicated_features(evidence.co_indicated_similarity(disease)[1]),
                self.co_indicated_scale,
            )
            out[i] = self.classifier.decision_function(np.concatenate([base, fellows]).T)
        return out


def fit_boosted(evidence: MetapathFeatures, *, seed: int = 0) -> BoostedPaths:
    """Fit boosted trees to tell a disease's known drug, itself hidden, from others.

    Args:
        evidence: of the graph to learn from.
        seed: of the draws.

    Returns:
        The trees.
    """
    base_scale, co_indicated_scale = feature_scales(evidence)
    lists = sample_examples(evidence, base_scale, seed=seed)
    rng = np.random.default_rng(seed)
    features, labels, weights = [], [], []
    for one in lists:
        known, size = one.num_positives, one.num_candidates
        goals = rng.permutation(known)[:_GOALS]
        rows = one.co_indicated.astype(np.float32)
        tried = np.arange(size - known) < one.num_hard
        chance = np.where(tried, _HARD / max(tried.sum(), 1), (1 - _HARD) / max((~tried).sum(), 1))
        for goal in goals:
            others = known + rng.choice(size - known, _OTHERS, p=chance / chance.sum())
            at = np.concatenate([[goal], others])
            fellows = squash(
                co_indicated_features_without(rows[:, :, at], np.array([goal]))[0],
                co_indicated_scale,
            ).T
            features.append(np.concatenate([one.base[at].astype(np.float32), fellows], axis=1))
            labels.append(np.arange(len(at)) == 0)
            weights.append(np.full(len(at), (known / len(goals)) ** 0.5))
    classifier = HistGradientBoostingClassifier(
        max_iter=250,
        learning_rate=0.06,
        max_leaf_nodes=15,
        min_samples_leaf=min(50, max(1, len(lists) // 4)),
        l2_regularization=5.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    classifier.fit(np.concatenate(features), np.concatenate(labels), np.concatenate(weights))
    return BoostedPaths(classifier, base_scale, co_indicated_scale)
