"""How to put rankings of drugs together, by pairs of which some or all have seen nothing.

From scores to probabilities: Platt's method.

J. Platt, "Probabilistic outputs for support vector machines", 1999: a logistic curve through the
scores of pairs that the scorer has not learned from, with targets drawn a little towards the
middle, so that it exists even where a threshold would part known pairs from all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import Floats

_STEPS, _RIDGE, _ENOUGH = 30, 1e-6, 1e-4
_DECIMALS = 3
_MOST = 10.0  # with more the first would vanish in rounding
_NEAR = 100  # drugs of a disease by which it is judged what is said of those that rank high
_Doubles = npt.NDArray[np.float64]


def fit_weight(first: Floats, second: Floats, known: npt.NDArray[np.bool_]) -> float:
    """The w of first + w second that finds known drugs best.

    A conditional logit of both: each known drug among those that are not known. How sharp the sum
    is does not count: a temperature is fitted as well, and w is the ratio.

    Args:
        first: shape (n, D), log-chances of the drugs of n diseases.
        second: shape (n, D), as well.
        known: shape (n, D), the drugs to be found.

    Returns:
        The weight, from 0, where the second says nothing that helps, to 10.
    """
    both = np.stack([first, second], axis=2).astype(np.float64)
    rows = [(features[~has], features[has]) for features, has in zip(both, known, strict=True)]
    rows = [(others, goals) for others, goals in rows if len(others) and len(goals)]
    theta = np.array([1.0, 0.0])
    loss, gradient, curvature = _loss(rows, theta)
    for _ in range(_STEPS):
        step, size = np.linalg.solve(curvature + _RIDGE * np.eye(2), gradient), 1.0
        found = _loss(rows, theta - step)
        while found[0] > loss and size > _RIDGE:
            size /= 2
            found = _loss(rows, theta - size * step)
        theta, gained = theta - size * step, loss - found[0]
        loss, gradient, curvature = found
        if gained < _ENOUGH:
            break
    if theta[1] <= 0:
        return 0.0
    return round(float(min(theta[1] / max(theta[0], _ENOUGH), _MOST)), _DECIMALS)


@dataclass(frozen=True)
class Expectation:
    """What a ranking that has seen a pair is taken to say of it, had it not."""

    slope: float
    intercept: float

    def of(self, rest: Floats) -> Floats:
        """By what the rest says, of any shape."""
        return np.asarray(self.slope * rest + self.intercept, np.float32)


def fit_expectation(rest: Floats, seen: Floats, known: npt.NDArray[np.bool_]) -> Expectation:
    """A straight line through what is said of drugs that are not known, those that rank high.

    Args:
        rest: shape (n, D), log-chances by what has not seen the known pairs.
        seen: shape (n, D), by what has.
        known: shape (n, D).
    """
    others = np.where(known, -np.inf, rest)
    best = np.argsort(-others, axis=1, kind="stable")[:, :_NEAR]
    row, drug = np.nonzero(~np.take_along_axis(known, best, axis=1))
    at = row, best[row, drug]
    x, y = rest[at].astype(np.float64), seen[at].astype(np.float64)
    if not len(x):
        return Expectation(0.0, 0.0)
    spread = x - x.mean()
    slope = float(spread @ y / max(float(spread @ spread), _RIDGE))
    return Expectation(slope, float(y.mean() - slope * x.mean()))


def _loss(
    rows: list[tuple[_Doubles, _Doubles]], theta: _Doubles
) -> tuple[float, _Doubles, _Doubles]:
    """Negative log-likelihood, gradient and curvature."""
    loss, gradient, curvature = 0.0, np.zeros(2), np.zeros((2, 2))
    for others, goals in rows:
        logits = others @ theta
        most = logits.max()
        chance = np.exp(logits - most)
        total = chance.sum()
        chance /= total
        mean = chance @ others
        spread = (others * chance[:, None]).T @ others - np.outer(mean, mean)
        # Goal or any of the others is a coin's throw; which of the others, a softmax.
        lead = goals @ theta - (most + np.log(total))
        missed = 1 / (1 + np.exp(np.clip(lead, -500, 500)))
        apart = goals - mean
        loss += float(np.logaddexp(0, -lead).sum())
        gradient -= missed @ apart
        curvature += (apart * (missed * (1 - missed))[:, None]).T @ apart + missed.sum() * spread
    return loss, gradient, curvature


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
    loss = _logistic_loss(x, target, theta)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (p - target)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > _RIDGE and _logistic_loss(x, target, theta - size * step) > loss:
            size /= 2
        theta = theta - size * step
        before, loss = loss, _logistic_loss(x, target, theta)
        if before - loss < 1e-10 * max(1.0, loss):
            break
    if theta[0] < 0:  # scores that say nothing: the same probability for all
        theta = np.array([0.0, start])
    slope = float(theta[0]) / width
    return Calibration(slope, float(theta[1]) - slope * middle)


def _logistic_loss(
    x: npt.NDArray[np.float64], target: npt.NDArray[np.float64], theta: npt.NDArray[np.float64]
) -> float:
    logits = x @ theta
    return float((np.logaddexp(0, logits) - target * logits).sum())
