"""How well scores rank what was held out: filtered, tie-aware ranks, and figures made of them.

Notation: n rows (diseases), M candidates (drugs), K held-out pairs of a row and a candidate. What
is known of a row is its own: other known candidates never compete with a held-out one, be they
from training or held out themselves. All others do, whatever else a graph says of them.

Areas under the ROC and the precision-recall curve of many rows in one pool, and their spread.

The scores are looked at once. After that a resampling of rows is a matrix product, so that a
thousand of them cost no more than a look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.ranking.bilinear_score import Scores
from clinical_drug_discovery.system.errors import InputError

Metrics = dict[str, float | int | None]


Known = npt.NDArray[np.bool_]
_TOP = 50  # of a list, of which one asks how many different drugs it names
_FEW = 8
LEVEL, NUM_SAMPLES = 0.95, 1000  # of the bootstrap
#: Means over pairs: name, and the highest rank that counts; 1 / rank without one.
PAIR_METRICS = {"mrr": None, "hits@10": 10, "recall@50": 50, "recall@100": 100}


def filtered_ranks(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray
) -> npt.NDArray[np.float64]:
    """The rank of each held-out candidate among those of its row that are not known, and itself.

    Equal scores share their mean rank, so a constant score is as good as chance: rank is
    1 + number of greater + half the number of equal others.

    Args:
        scores: shape (n, M), high is good.
        known: shape (n, M), bool, all known candidates; whether the held-out ones are among them
            makes no difference.
        row: shape (K,), row of each held-out pair.
        candidate: shape (K,), column of each held-out pair.

    Returns:
        shape (K,), from 1 to M.

    Raises:
        InputError: a score is NaN or infinite, or shapes or numbers do not fit.
    """
    ranks = np.empty(len(row))
    for at, positive, negative in _rows(scores, known, row, candidate):
        if len(positive) <= _FEW:  # a look at all of them each is quicker than to sort
            own = positive[:, None]
            above, equal = (negative > own).sum(axis=1), (negative == own).sum(axis=1)
            ranks[at] = 1 + above + equal / 2
            continue
        order = np.sort(negative)
        not_above = np.searchsorted(order, positive, side="right")
        below = np.searchsorted(order, positive, side="left")
        ranks[at] = 1 + len(order) - (not_above + below) / 2
    return ranks


def ranking_metrics(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray, *, seed: int = 0
) -> Metrics:
    """All figures of one ranking.

    Args:
        scores: see `filtered_ranks`.
        known: see `filtered_ranks`.
        row: see `filtered_ranks`.
        candidate: see `filtered_ranks`.
        seed: of the sampled negatives and of the bootstrap.

    Returns:
        Means over pairs, so that a row with many counts for many: `mrr`, and `hits@10`,
        `recall@50`, `recall@100`, the shares of pairs with a rank of at most that. `auroc`,
        `auprc` (average precision): all pairs in one pool against every candidate that is not
        known of the same rows, once each. `balanced_auroc`, `balanced_auprc`: against as many, one
        drawn for each pair from its row. Of each of them `_low` and `_high`: see
        `bootstrap_interval`. `entropy@50`, `normalized_entropy@50`: see `top_entropy`.
        `num_pairs`, `num_diseases` (rows with a pair) and `num_candidates`. None where there is
        nothing to compare with.

    Raises:
        InputError: as `filtered_ranks`; or there is no pair.
    """
    if not len(row):
        raise InputError("row (got no pairs) must hold at least 1 held-out pair")
    rng = np.random.default_rng(seed)
    positives, negatives, drawn = [], [], []
    for _, positive, negative in _rows(scores, known, row, candidate):
        positives.append(positive)
        negatives.append(negative)
        drawn.append(rng.choice(negative, len(positive)) if len(negative) else negative)
    metrics = pair_metrics(filtered_ranks(scores, known, row, candidate), row, seed=seed)
    metrics |= _areas("", positives, negatives, seed)
    metrics |= _areas("balanced_", positives, drawn, seed)
    entropy, normalized = top_entropy(scores, known, row, candidate)
    metrics |= {f"entropy@{_TOP}": entropy, f"normalized_entropy@{_TOP}": normalized}
    metrics |= {"num_pairs": len(row), "num_diseases": len(np.unique(row))}
    return {**metrics, "num_candidates": scores.shape[1]}


def pair_metrics(ranks: npt.NDArray[np.floating], cluster: IntArray, *, seed: int = 0) -> Metrics:
    """The figures that follow from ranks alone, each with its interval.

    Args:
        ranks: shape (K,).
        cluster: shape (K,), the disease of each pair.
        seed: of the bootstrap.

    Returns:
        `mrr`, `hits@10`, `recall@50` and `recall@100`, and of each `_low` and `_high`.
    """
    metrics: Metrics = {}
    for name, most in PAIR_METRICS.items():
        values = 1 / ranks if most is None else (ranks <= most).astype(float)
        low, high = bootstrap_interval(values, cluster, seed=seed)
        metrics |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return metrics


def top_entropy(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray, *, top: int = _TOP
) -> tuple[float, float | None]:
    """How many different candidates the heads of the lists name: does every row get the same few?

    A row's list holds what is not known of it, and its held-out candidates; rows without a
    held-out pair have none. Candidates that tie for the last places share them.

    Args:
        scores: see `filtered_ranks`.
        known: see `filtered_ranks`.
        row: see `filtered_ranks`.
        candidate: see `filtered_ranks`.
        top: length of the heads.

    Returns:
        Shannon entropy, in nats, of the candidates' shares of all places; and the same divided by
        its maximum ln(M), None for a single candidate.
    """
    _check(scores, known, row, candidate)
    places = np.zeros(scores.shape[1])
    for i in np.unique(row):
        listed = ~known[i]
        listed[candidate[row == i]] = True
        columns = np.flatnonzero(listed)
        own = scores[i, columns]
        free = min(top, len(own))
        last = np.partition(own, len(own) - free)[len(own) - free]
        above, equal = own > last, own == last
        places[columns] += above + equal * ((free - above.sum()) / equal.sum())
    share = places[places > 0] / places.sum()
    entropy = abs(float((share * np.log(share)).sum()))
    return entropy, entropy / math.log(len(places)) if len(places) > 1 else None


def bootstrap_interval(
    values: npt.NDArray[np.floating],
    cluster: IntArray,
    *,
    level: float = LEVEL,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean whose values come in clusters.

    The pairs of one disease are no independent evidence, so whole diseases are drawn.

    Args:
        values: shape (K,), one for each pair, such as 1 / rank.
        cluster: shape (K,), the disease of each pair.
        level: share of the bootstrap means within the interval.
        num_samples: how many bootstrap means.
        seed: of the drawing.

    Returns:
        The lower and the upper end; with one cluster both are the mean.

    Raises:
        InputError: no values, or not one cluster each, or a parameter breaks its rule.
    """
    if not len(values) or values.shape != cluster.shape or not np.isfinite(values).all():
        raise InputError(
            f"values (got shape {values.shape}) must be at least 1 finite number for each of "
            f"cluster (got shape {cluster.shape})"
        )
    if not 0 < level < 1:
        raise InputError(f"level (got {level}) must be above 0 and below 1")
    if num_samples < 1:
        raise InputError(f"num_samples (got {num_samples}) must be at least 1")
    _, number, size = np.unique(cluster, return_inverse=True, return_counts=True)
    total = np.bincount(number, values)
    drawn = _resamples(len(size), num_samples, seed)
    means = (drawn @ total) / (drawn @ size)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resamples(num_clusters: int, num_samples: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each cluster is drawn, with replacement, shape (num_samples, num_clusters)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), num_samples)


def _rows(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray
) -> Iterator[tuple[IntArray, Scores, Scores]]:
    """For each row with held-out pairs their positions, their scores, and those of its unknown."""
    _check(scores, known, row, candidate)
    order = np.argsort(row, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(row[order])) + 1) if len(row) else []:
        i = row[at[0]]
        others = ~known[i]
        others[candidate[at]] = False
        yield at, scores[i, candidate[at]], scores[i, others]


def _check(scores: Scores, known: Known, row: IntArray, candidate: IntArray) -> None:
    if scores.ndim != 2 or scores.shape != known.shape or known.dtype != bool:
        raise InputError(
            f"scores (got shape {scores.shape}) must have two dimensions, and known (got "
            f"{known.dtype}, shape {known.shape}) must be bool, of the same shape"
        )
    if row.shape != candidate.shape or row.ndim != 1:
        raise InputError(f"row (got shape {row.shape}) must be as candidate {candidate.shape}")
    for name, values, size in (
        ("row", row, len(scores)),
        ("candidate", candidate, scores.shape[1]),
    ):
        if len(values) and not 0 <= values.min() <= values.max() < size:
            raise InputError(
                f"{name} (got {values.min()} to {values.max()}) must be from 0 to {size - 1}"
            )
    if not np.isfinite(scores).all():
        i, j = np.argwhere(~np.isfinite(scores))[0]
        raise InputError(f"scores (got {scores[i, j]} at row {i}, column {j}) must be finite")


def _areas(prefix: str, positives: list[Scores], negatives: list[Scores], seed: int) -> Metrics:
    """Areas under the ROC and the precision-recall curve, with intervals over rows.

    Rows without negatives are no part of it; without any negatives there are no areas.
    """
    names = [f"{prefix}{area}" for area in ("auroc", "auprc")]
    kept = [i for i, own in enumerate(negatives) if prefix == "" or len(own)]
    if not sum(map(len, negatives)):
        return {f"{name}{end}": None for name in names for end in ("", "_low", "_high")}
    pool = pool_rows([positives[i] for i in kept], [negatives[i] for i in kept])
    drawn = _resamples(len(kept), NUM_SAMPLES, seed).astype(float)
    metrics: Metrics = {}
    once = pool.areas(np.ones((1, len(kept))))
    for name, value, sampled in zip(names, once, pool.areas(drawn), strict=True):
        low, high = np.nanquantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        metrics |= {name: float(value[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return metrics


Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """For each of K positives how many of each of n rows stand above it."""

    row: IntArray  #: shape (K,), which row each positive is of
    above: Counts  #: shape (K, n), negatives with a higher score, and half of those with an equal
    not_below: Counts  #: shape (K, n), negatives with a score at least as high
    positives_not_below: Counts  #: shape (K, n), itself included
    num_negatives: Counts  #: shape (n,)

    def areas(self, weights: Counts) -> tuple[Counts, Counts]:
        """Both areas for some weights of rows, such as how often each was drawn.

        Args:
            weights: shape (B, n).

        Returns:
            Area under the ROC curve, and average precision, each of shape (B,): the first NaN
            where no negative has a weight, either NaN where no positive has.
        """
        of_positive = weights[:, self.row].T  # shape (K, B)
        negatives = weights @ self.num_negatives
        with np.errstate(invalid="ignore", divide="ignore"):
            share_above = (self.above @ weights.T) / negatives
            found = self.positives_not_below @ weights.T
            listed = found + self.not_below @ weights.T
            precision = np.where(of_positive > 0, found / listed, 0)
            total = of_positive.sum(axis=0)
            roc = (of_positive * (1 - share_above)).sum(axis=0) / total
            average_precision = (of_positive * precision).sum(axis=0) / total
        return roc, average_precision


def pool_rows(
    positives: Sequence[npt.NDArray[np.floating]], negatives: Sequence[npt.NDArray[np.floating]]
) -> Pool:
    """Count once what every resampling needs.

    Args:
        positives: for each row their scores.
        negatives: for each row their scores.

    Returns:
        Counts of 24 bytes for each positive and row: 1.6 MB for 434 pairs of 160 diseases.
    """
    every = np.concatenate(positives)
    row = np.repeat(np.arange(len(positives)), [len(own) for own in positives])
    shape = (len(every), len(positives))
    above, not_below, positives_not_below = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, (own, others) in enumerate(zip(positives, negatives, strict=True)):
        order = np.sort(others)
        left, right = (np.searchsorted(order, every, side) for side in ("left", "right"))
        above[:, i] = len(order) - (left + right) / 2
        not_below[:, i] = len(order) - left
        positives_not_below[:, i] = len(own) - np.searchsorted(np.sort(own), every, "left")
    sizes = np.array([len(others) for others in negatives], np.float64)
    return Pool(row, above, not_below, positives_not_below, sizes)
