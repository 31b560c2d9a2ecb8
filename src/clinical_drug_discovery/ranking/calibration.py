"""Combine rankings of drugs, and turn their scores into probabilities.

Each function fits on known pairs. The rankings that it gets must not have been trained on these
pairs, except where its docstring states that they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import Floats

_MAX_WEIGHT = 10.0  # largest weight that `fit_weight` returns
_MIN_WEIGHT = 1e-4  # smallest coefficient of the first ranking, by which `fit_weight` divides
_DECIMALS = 3  # decimals of a fitted weight
_NUM_TOP = 100  # number of drugs per disease on which the imputed score is fitted
_MIN_SPREAD = 1e-6  # smallest divisor for the spread of scores
_MAX_LINES = 12  # of the curve from scores to log-odds, with at least as many known pairs as below
_LEAST_BEST, _PARTS = 25, 8  # known pairs among the best ones, but at most an eighth of all
_NUM_BINS = 4096  # of the scores of pairs that are not known: their number does not matter then
_FIRST_RISE = 0.5  # of the log-odds along each line, before the fit
_Doubles = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def fit_weight(first: Floats, second: Floats, known: _Mask, others: _Mask) -> float:
    """Fit the weight w with which first + w * second ranks the known drugs best.

    The fit is a conditional logit model with both scores as features: each known drug competes with
    the others. w is the coefficient of `second` divided by that of `first`.

    Args:
        first: shape (n, D), log-probabilities of D drugs for n diseases.
        second: shape (n, D), log-probabilities by another ranking.
        known: shape (n, D), true for the drugs that should rank first.
        others: shape (n, D), true for the drugs that should rank below them.

    Returns:
        w, between 0 (`second` is ignored) and 10.
    """
    both = np.stack([first, second], axis=2).astype(np.float64)
    masks = zip(both, known, others, strict=True)
    rows = [(values[below], values[above]) for values, above, below in masks]
    rows = [(below, above) for below, above in rows if len(below) and len(above)]
    if not rows:
        return 0.0
    num_positives = sum(len(above) for _, above in rows)

    def loss(theta: _Doubles) -> tuple[float, _Doubles]:
        total, gradient = 0.0, np.zeros(2)
        for below, above in rows:
            logits = below @ theta
            probability = np.exp(logits - logits.max())
            lead = above @ theta - (logits.max() + np.log(probability.sum()))
            mean = probability @ below / probability.sum()
            missed = np.exp(-np.logaddexp(0, lead))
            total += np.logaddexp(0, -lead).sum()
            gradient -= missed @ (above - mean)
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
    """A rising curve from scores to probabilities, linear in the log-odds between its knots.

    Left of the first knot and right of the last knot it is constant.
    """

    scores: tuple[float, ...]  #: the knots, ascending
    log_odds: tuple[float, ...]  #: at each knot, ascending
    recorded_share: float  #: see `fit_calibration`

    def probability(self, scores: Floats) -> Floats:
        """Return for each score the probability of a recorded indication; any shape."""
        logits = np.interp(scores.astype(np.float64), self.scores, self.log_odds)
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)

    def probability_treats(self, scores: Floats) -> Floats:
        """Return for each score the probability of a treatment, recorded or not; any shape.

        It is min(1, probability / recorded_share), if treatments are recorded at random (C. Elkan
        and K. Noto, "Learning classifiers from only positive and unlabeled data", 2008, lemma 1).
        """
        return np.asarray(np.minimum(self.probability(scores) / self.recorded_share, 1), np.float32)

    def moved(self, scores: Floats, others: Floats) -> Calibration:
        """Return the curve for other scores of the same pairs.

        Another score gets the probability of the score that as many pairs exceed. So as many pairs
        have a probability above p as before.

        Args:
            scores: shape (K,), of pairs for which the curve holds.
            others: shape (K,), the other scores of these pairs.
        """
        old, new = np.sort(scores.astype(np.float64)), np.sort(others.astype(np.float64))
        knots = np.asarray(self.scores)
        if not len(old):
            return self
        # Beyond the ends, the distance to the end stays.
        inside = np.interp(knots, old, new)
        outside = np.minimum(knots - old[0], 0) + np.maximum(knots - old[-1], 0)
        return replace(self, scores=tuple(np.maximum.accumulate(inside + outside).tolist()))


def fit_calibration(scores: Floats, known: _Mask, weight: float = 1.0) -> Calibration:
    """Fit the curve from scores to probabilities, by maximum likelihood.

    The log-odds rise along a chain of straight lines. They meet at quantiles of the scores of known
    pairs, so each line has about as many known pairs. As in Platt's method, the targets are
    slightly below 1 for known pairs and slightly above 0 for all others, so that no probability is
    0 or 1 (J. Platt, "Probabilistic outputs for support vector machines", 1999).

    The recorded share is the share of the treatments that the graph records, an estimate from
    below: the largest share of known pairs among the best pairs, which are nearly all treatments
    (the estimator e3 of Elkan and Noto). At least 25 known pairs are among them, or an eighth of
    all if that is less.

    Args:
        scores: shape (K,), finite.
        known: shape (K,), true for recorded indications.
        weight: of each known pair; above 1 if only a sample of the known pairs is given.
    """
    x, hits = scores.astype(np.float64), int(known.sum())
    others, count = _binned(x[~known])
    size = max(min(_LEAST_BEST, hits // _PARTS), 1)
    quantiles = np.linspace(0, 1, min(_MAX_LINES, hits // size) + 1)
    inner = np.quantile(x[known], quantiles) if hits else x[:1]
    knots = np.unique([x.min(), *inner, x.max()])
    data = np.concatenate([x[known], others])
    weights = np.concatenate([np.full(hits, weight), count])
    target = np.repeat([(hits + 1) / (hits + 2), 1 / (count.sum() + 2)], [hits, len(others)])
    widths = np.maximum(np.diff(knots), _MIN_SPREAD)
    rise = np.clip((data[:, None] - knots[:-1]) / widths, 0, 1)  # along each line, from 0 to 1
    base = np.log((weight * hits + 1) / (count.sum() + 1))

    def loss(theta: _Doubles) -> tuple[float, _Doubles]:
        logits = theta[0] + rise @ theta[1:]
        softplus = np.logaddexp(0, logits)
        error = weights * (np.exp(logits - softplus) - target)
        total = float((weights * (softplus - target * logits)).sum())
        return total / weights.sum(), np.append(error.sum(), error @ rise) / weights.sum()

    start = np.append(base, np.full(len(widths), _FIRST_RISE))
    theta = _minimize(loss, start, [(None, None), *[(0, None)] * len(widths)])
    log_odds = theta[0] + np.append(0, np.cumsum(theta[1:]))
    best = _best_share(x, known, size, weight) if hits else 1.0
    return Calibration(tuple(knots.tolist()), tuple(log_odds.tolist()), best)


def _binned(scores: _Doubles) -> tuple[_Doubles, _Doubles]:
    """Return the mean score and the number of pairs of each of many narrow bins."""
    if not len(scores):
        return np.zeros(0), np.zeros(0)
    width = max(float(np.ptp(scores)), _MIN_SPREAD) / _NUM_BINS
    number = np.minimum(((scores - scores.min()) / width).astype(np.int64), _NUM_BINS - 1)
    count = np.bincount(number, minlength=_NUM_BINS).astype(np.float64)
    total = np.bincount(number, scores, minlength=_NUM_BINS)
    return total[count > 0] / count[count > 0], count[count > 0]


def _best_share(scores: _Doubles, known: _Mask, size: int, weight: float) -> float:
    """Return the largest share of known pairs among the best pairs with `size` or more of them."""
    order = np.argsort(-scores, kind="stable")
    ranked = -scores[order]
    number = np.searchsorted(ranked, ranked[known[order]], "right")  # pairs down to a known one
    hits = np.arange(1, len(number) + 1)[size - 1 :]
    return float((weight * hits / (number[size - 1 :] + (weight - 1) * hits)).max())


def _minimize(
    loss: Callable[[_Doubles], tuple[float, _Doubles]],
    start: _Doubles,
    bounds: list[tuple[float | None, float | None]] | None = None,
) -> _Doubles:
    """Return the minimizer of a convex loss; `loss` returns the value and the gradient."""
    from scipy.optimize import minimize

    # Plain BFGS takes up to nine times as many steps and improves only the last digits.
    result: _Doubles = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12
    ).x
    return result
