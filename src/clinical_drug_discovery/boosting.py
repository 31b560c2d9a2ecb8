"""Boosted trees over the same features: they see thresholds and pairs of features, not lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from clinical_drug_discovery.fellows import fellows_without
from clinical_drug_discovery.lists import TrainingList, squash
from clinical_drug_discovery.typed import Floats

_GOALS, _OTHERS = 8, 120  # known drugs of a disease that are learned, other drugs beside each
_HARD = 0.7  # share of the others that treat something


@dataclass(frozen=True)
class Trees:
    """A fitted classifier of known pairs."""

    classifier: Any

    def log_odds(self, features: Floats) -> Floats:
        """Score pairs.

        Args:
            features: shape (K, F), squashed.

        Returns:
            Shape (K,), the log odds among the others it was shown, so comparable within a list.
        """
        return np.asarray(self.classifier.decision_function(features), np.float32)


def fit_trees(lists: list[TrainingList], fellow_scale: Floats, *, seed: int = 0) -> Trees:
    """Fit boosted trees to tell a disease's known drug, itself hidden, from others.

    Args:
        lists: of the treated diseases.
        fellow_scale: of the fellow features.
        seed: of the draws.

    Returns:
        The trees.
    """
    rng = np.random.default_rng(seed)
    features, labels, weights = [], [], []
    for one in lists:
        known, size = one.num_known, len(one.candidates)
        goals = rng.permutation(known)[:_GOALS]
        rows = one.rows.astype(np.float32)
        tried = np.arange(size - known) < one.num_tried
        chance = np.where(tried, _HARD / max(tried.sum(), 1), (1 - _HARD) / max((~tried).sum(), 1))
        for goal in goals:
            others = known + rng.choice(size - known, _OTHERS, p=chance / chance.sum())
            at = np.concatenate([[goal], others])
            fellows = squash(fellows_without(rows[:, :, at], np.array([goal]))[0], fellow_scale).T
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
    return Trees(classifier)
