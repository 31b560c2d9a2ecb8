"""From scores to probabilities: Platt's method.

J. Platt, "Probabilistic outputs for support vector machines", 1999: a logistic curve through the
scores of pairs that the scorer has not learned from, with targets drawn a little towards the
middle, so that it exists even where a threshold would part known pairs from all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import Floats

_STEPS, _RIDGE = 50, 1e-6


@dataclass(frozen=True)
class Calibration:
    """p = 1 / (1 + exp(-(slope score + intercept))); the slope is never below 0."""

    slope: float
    intercept: float

    def probability(self, scores: Floats) -> Floats:
        """The probability that a pair is a recorded indication; of any shape."""
        logits = self.slope * scores.astype(np.float64) + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)


def fit_calibration(scores: Floats, known: npt.NDArray[np.bool_]) -> Calibration:
    """Fit Platt's curve by Newton's method.

    Args:
        scores: shape (K,), finite.
        known: shape (K,), whether the pair is recorded.
    """
    num_known, num_others = int(known.sum()), int((~known).sum())
    target = np.where(known, (num_known + 1) / (num_known + 2), 1 / (num_others + 2))
    middle, width = float(scores.mean()), max(float(scores.std()), 1e-6)
    x = np.stack([(scores.astype(np.float64) - middle) / width, np.ones(len(scores))], axis=1)
    start = np.log((num_known + 1) / (num_others + 1))
    theta = np.array([1.0, start])
    loss = _loss(x, target, theta)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (p - target)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > _RIDGE and _loss(x, target, theta - size * step) > loss:
            size /= 2
        theta = theta - size * step
        before, loss = loss, _loss(x, target, theta)
        if before - loss < 1e-10 * max(1.0, loss):
            break
    if theta[0] < 0:  # scores that say nothing: the same probability for all
        theta = np.array([0.0, start])
    slope = float(theta[0]) / width
    return Calibration(slope, float(theta[1]) - slope * middle)


def _loss(
    x: npt.NDArray[np.float64], target: npt.NDArray[np.float64], theta: npt.NDArray[np.float64]
) -> float:
    logits = x @ theta
    return float((np.logaddexp(0, logits) - target * logits).sum())
