"""Boosted trees over metapath features, a drug ranker to compare with.

The package does not use them: blended into its drug ranker, they improved nothing and took long.
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

_MAX_POSITIVES, _NUM_NEGATIVES = 8, 120  # positives of a disease, negatives for each
_HARD = 0.7  # fraction of the negatives that treat some disease


@dataclass(frozen=True)
class BoostedPaths:
    """A classifier of pairs, fitted to known treatments."""

    classifier: Any
    base_scale: Floats
    co_indicated_scale: Floats

    def scores(self, features: MetapathFeatures, diseases: IntArray) -> Floats:
        """Score all drugs for diseases.

        Args:
            features: features of the graph.
            diseases: shape (n,), numbered within their type.

        Returns:
            Log odds, shape (n, drugs). They can be compared within a disease only.
        """
        out = np.empty((len(diseases), features.num_drugs), np.float32)
        for i, disease in enumerate(diseases.tolist()):
            base = squash(features.base(diseases[[i]])[0], self.base_scale)
            co_indicated = squash(
                co_indicated_features(features.co_indicated_similarity(disease)[1]),
                self.co_indicated_scale,
            )
            out[i] = self.classifier.decision_function(np.concatenate([base, co_indicated]).T)
        return out


def fit_boosted(features: MetapathFeatures, *, seed: int = 0) -> BoostedPaths:
    """Fit boosted trees to tell the known drugs of a disease, each hidden, from other drugs.

    Args:
        features: features of the graph to learn from.
        seed: seed of the sampling.
    """
    base_scale, co_indicated_scale = feature_scales(features)
    examples = sample_examples(features, base_scale, seed=seed)
    rng = np.random.default_rng(seed)
    rows, labels, weights = [], [], []
    for one in examples:
        known, size = one.num_positives, len(one.base)
        positives = rng.permutation(known)[:_MAX_POSITIVES]
        similarity = one.co_indicated.astype(np.float32)
        hard = np.arange(size - known) < one.num_hard
        p = np.where(hard, _HARD / max(hard.sum(), 1), (1 - _HARD) / max((~hard).sum(), 1))
        for positive in positives:
            negatives = known + rng.choice(size - known, _NUM_NEGATIVES, p=p / p.sum())
            at = np.concatenate([[positive], negatives])
            co_indicated = squash(
                co_indicated_features_without(similarity[:, :, at], np.array([positive]))[0],
                co_indicated_scale,
            ).T
            rows.append(np.concatenate([one.base[at].astype(np.float32), co_indicated], axis=1))
            labels.append(np.arange(len(at)) == 0)
            weights.append(np.full(len(at), (known / len(positives)) ** 0.5))
    classifier = HistGradientBoostingClassifier(
        max_iter=250,
        learning_rate=0.06,
        max_leaf_nodes=15,
        min_samples_leaf=min(50, max(1, len(examples) // 4)),
        l2_regularization=5.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    classifier.fit(np.concatenate(rows), np.concatenate(labels), np.concatenate(weights))
    return BoostedPaths(classifier, base_scale, co_indicated_scale)
