"""Combine rankings of drugs, and turn their scores into probabilities.

Each function fits on known pairs. The rankings that it gets must not have been trained on these
pairs, except where its docstring states that they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import Floats

_MAX_WEIGHT = 10.0  # largest weight that `fit_weight` returns
_MIN_WEIGHT = 1e-4  # smallest coefficient of the first ranking, by which `fit_weight` divides
_DECIMALS = 3  # decimals of a fitted weight
_NUM_TOP = 100  # number of drugs per disease on which the imputed score is fitted
_MIN_SPREAD = 1e-6  # smallest divisor for the spread of scores
_Doubles = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def fit_weight(first: Floats, second: Floats, known: _Mask) -> float:
    """Fit the weight w with which first + w * second ranks the known drugs best.

    The fit is a conditional logit model with both scores as features: each known drug competes with
    the unknown drugs. w is the coefficient of `second` divided by that of `first`.

    Args:
        first: shape (n, D), log-probabilities of D drugs for n diseases.
        second: shape (n, D), log-probabilities by another ranking.
        known: shape (n, D), true for the drugs that should rank first.

    Returns:
        w, between 0 (`second` is ignored) and 10.
    """
    both = np.stack([first, second], axis=2).astype(np.float64)
    rows = [(features[~has], features[has]) for features, has in zip(both, known, strict=True)]
    rows = [(others, positives) for others, positives in rows if len(others) and len(positives)]
    if not rows:
        return 0.0
    num_positives = sum(len(positives) for _, positives in rows)

    def loss(theta: _Doubles) -> tuple[float, _Doubles]:
        total, gradient = 0.0, np.zeros(2)
        for others, positives in rows:
            logits = others @ theta
            probability = np.exp(logits - logits.max())
            lead = positives @ theta - (logits.max() + np.log(probability.sum()))
            mean = probability @ others / probability.sum()
            missed = np.exp(-np.logaddexp(0, lead))
            total += np.logaddexp(0, -lead).sum()
            gradient -= missed @ (positives - mean)
        return total / num_positives, gradient / num_positives

    theta = _minimize(loss, np.array([1.0, 0.0]))
    if theta[1] <= 0:
        return 0.0
    return round(float(min(theta[1] / max(theta[0], _MIN_WEIGHT), _MAX_WEIGHT)), _DECIMALS)


@dataclass(frozen=True)
class ImputedScore:
    """A line that predicts which score a model would give a known pair without training on it."""

    slope: float
    intercept: float

    def __call__(self, other: Floats) -> Floats:
        """Return slope * other + intercept; `other` has scores by another ranking, any shape."""
        return np.asarray(self.slope * other + self.intercept, np.float32)


def fit_imputed_score(unseen: Floats, seen: Floats, known: _Mask) -> ImputedScore:
    """Fit the line that predicts `seen` from `unseen`, on the best drugs that are not known.

    Args:
        unseen: shape (n, D), log-probabilities by rankings not trained on the known pairs.
        seen: shape (n, D), scores by a model that was trained on the known pairs.
        known: shape (n, D), true for known pairs.
    """
    others = np.where(known, -np.inf, unseen)
    best = np.argsort(-others, axis=1, kind="stable")[:, :_NUM_TOP]
    row, column = np.nonzero(~np.take_along_axis(known, best, axis=1))
    at = row, best[row, column]
    x, y = unseen[at].astype(np.float64), seen[at].astype(np.float64)
    if not len(x):
        return ImputedScore(0.0, 0.0)
    centred = x - x.mean()
    slope = float(centred @ y / max(float(centred @ centred), _MIN_SPREAD))
    return ImputedScore(slope, float(y.mean() - slope * x.mean()))


@dataclass(frozen=True)
class Calibration:
    """A logistic curve: p = 1 / (1 + exp(-(slope * score + intercept))), with slope >= 0."""

    slope: float
    intercept: float

    def probability(self, scores: Floats) -> Floats:
        """Return for each score the probability of a recorded indication; any shape."""
        logits = self.slope * scores.astype(np.float64) + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)


def fit_calibration(scores: Floats, known: _Mask) -> Calibration:
    """Fit the curve from scores to probabilities by Platt's method.

    The targets are slightly below 1 for known pairs and slightly above 0 for all others. This keeps
    the fit finite even if a threshold separates the two groups (J. Platt, "Probabilistic outputs
    for support vector machines", 1999).

    Args:
        scores: shape (K,), finite.
        known: shape (K,), true for recorded indications.
    """
    num_known, num_others = int(known.sum()), int((~known).sum())
    target = np.where(known, (num_known + 1) / (num_known + 2), 1 / (num_others + 2))
    middle, width = float(scores.mean()), max(float(scores.std()), _MIN_SPREAD)
    x = (scores.astype(np.float64) - middle) / width

    def loss(theta: _Doubles) -> tuple[float, _Doubles]:
        logits = theta[0] * x + theta[1]
        softplus = np.logaddexp(0, logits)
        error = np.exp(logits - softplus) - target
        total = float((softplus - target * logits).sum())
        return total / len(x), np.array([error @ x, error.sum()]) / len(x)

    base_rate = np.array([0.0, np.log((num_known + 1) / (num_others + 1))])
    theta = _minimize(loss, base_rate)
    if theta[0] < 0:  # known pairs score lower: give all pairs one probability
        theta = base_rate
    slope = float(theta[0]) / width
    return Calibration(slope, float(theta[1]) - slope * middle)


def _minimize(loss: Callable[[_Doubles], tuple[float, _Doubles]], start: _Doubles) -> _Doubles:
    """Return the minimizer of a convex loss; `loss` returns the value and the gradient."""
    from scipy.optimize import minimize

    # Plain BFGS takes up to nine times as many steps and improves only the last digits.
    result: _Doubles = minimize(loss, start, jac=True, method="L-BFGS-B", tol=1e-12).x
    return result
