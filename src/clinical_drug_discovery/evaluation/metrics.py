"""Ranking metrics: filtered ranks, MRR, recall, areas under curves, and bootstrap intervals.

Notation: n rows (diseases), M candidates (drugs), K held-out pairs of a row and a candidate. A
candidate of a row is known if the training graph or a held-out pair joins the two. Ranks are
filtered: a held-out candidate is compared only with unknown candidates of the same row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph.knowledge_graph import IntArray
from ..system.errors import InputError
from .gnn_scores import Scores

Metrics = dict[str, float | int | None]
Known = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.float64]
_TOP = 50  # number of best candidates of each row whose entropy is measured
_NUM_SAMPLES, _QUANTILES = 1000, ((1 - 0.95) / 2, (1 + 0.95) / 2)  # bootstrap: samples, interval
#: Maps a metric to k (the fraction of pairs with rank <= k) or to None (the mean of 1 / rank).
PAIR_METRICS = {"mrr": None, "hits@10": 10, "recall@50": 50, "recall@100": 100}


def filtered_ranks(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray
) -> npt.NDArray[np.float64]:
    """Rank each held-out candidate among the unknown candidates of the same row.

    rank = 1 + number of higher scores + (number of equal scores) / 2, so candidates with equal
    scores get the mean rank of a random order.

    Args:
        scores: shape (n, M), higher is better.
        known: shape (n, M), True for known candidates. Held-out candidates may be True or False.
        row: shape (K,), row of each held-out pair.
        candidate: shape (K,), column of each held-out pair.

    Returns:
        shape (K,), from 1 to M.

    Raises:
        InputError: a score is NaN or infinite, or the shapes or indices do not fit.
    """
    ranks = np.empty(len(row))
    for at, positive, negative in _rows(scores, known, row, candidate):
        for i, score in zip(at, positive, strict=True):  # few pairs per row: faster than sorting
            ranks[i] = 1 + (negative > score).sum() + (negative == score).sum() / 2
    return ranks


def ranking_metrics(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray, *, seed: int = 0
) -> Metrics:
    """Return all metrics of one ranking.

    Args:
        scores: see `filtered_ranks`.
        known: see `filtered_ranks`.
        row: see `filtered_ranks`.
        candidate: see `filtered_ranks`.
        seed: seed of the sampled negatives and of the bootstrap.

    Returns:
        `mrr`, `hits@10`, `recall@50` and `recall@100` are means over pairs, so a row with many
        pairs counts more. `map` is the mean over rows of `average_precision`. `auroc` and `auprc`
        (average precision) compare the scores of all pairs with the scores of all unknown
        candidates of all rows with pairs. `balanced_auroc` and `balanced_auprc` compare them with
        one unknown candidate per pair, sampled from the same row. These nine metrics have 95%
        intervals, `_low` and `_high`; see `bootstrap_interval`.
        For `entropy@50` and `normalized_entropy@50` see `top_entropy`. `num_pairs`, `num_diseases`
        (rows with a pair) and `num_candidates` are counts. Areas without negatives are None.

    Raises:
        InputError: see `filtered_ranks`; or `row` is empty.
    """
    if not len(row):
        raise InputError("row (got no pairs) must hold at least 1 held-out pair")
    rng = np.random.default_rng(seed)
    positives, negatives, balanced = [], [], []
    for _, positive, negative in _rows(scores, known, row, candidate):
        positives.append(positive)
        negatives.append(negative)
        balanced.append(rng.choice(negative, len(positive)) if len(negative) else negative)
    metrics = pair_metrics(filtered_ranks(scores, known, row, candidate), row, seed=seed)
    metrics |= _areas("", positives, negatives, seed)
    metrics |= _areas("balanced_", positives, balanced, seed)
    entropy, normalized = top_entropy(scores, known, row, candidate)
    metrics |= {f"entropy@{_TOP}": entropy, f"normalized_entropy@{_TOP}": normalized}
    metrics |= {"num_pairs": len(row), "num_diseases": len(np.unique(row))}
    return {**metrics, "num_candidates": scores.shape[1]}


def pair_metrics(
    ranks: npt.NDArray[np.floating],
    cluster: IntArray,
    *,
    ranking: IntArray | None = None,
    seed: int = 0,
) -> Metrics:
    """Return the metrics that depend on ranks alone, each with a 95% interval.

    Args:
        ranks: shape (K,), the rank of each pair.
        cluster: shape (K,), the disease (or source node) of each pair.
        ranking: shape (K,), number of the ranked list of each pair. None: one list per cluster.
        seed: seed of the bootstrap.

    Returns:
        `mrr`, `hits@10`, `recall@50`, `recall@100` and `map` (the mean over ranked lists of
        `average_precision`), and the interval `_low` to `_high` of each.
    """
    metrics: Metrics = {}
    for name in PAIR_METRICS:
        values = pair_values(name, ranks)
        low, high = bootstrap_interval(values, cluster, seed=seed)
        metrics |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    lists = cluster if ranking is None else ranking
    precision = average_precision(ranks, lists)
    owner = cluster[np.unique(lists, return_index=True)[1]]
    low, high = bootstrap_interval(precision, owner, seed=seed)
    return {**metrics, "map": float(precision.mean()), "map_low": low, "map_high": high}


def pair_values(name: str, ranks: npt.NDArray[np.floating]) -> Counts:
    """Return the value of each pair, shape (K,), whose mean is a metric of `PAIR_METRICS`."""
    most = PAIR_METRICS[name]
    return np.asarray(1 / ranks if most is None else ranks <= most, np.float64)


def average_precision(ranks: npt.NDArray[np.floating], ranking: IntArray) -> Counts:
    """Return the average precision of each ranked list, in the order of their numbers.

    The list of a disease has its held-out drugs and the unknown drugs. The k-th best held-out drug
    is at position rank + k - 1, because its rank does not count the other held-out drugs. The
    average precision is the mean over k of k / position.

    Args:
        ranks: shape (K,), from `filtered_ranks`.
        ranking: shape (K,), number of the ranked list of each pair.
    """
    order = np.lexsort((ranks, ranking))
    _, first, size = np.unique(ranking[order], return_index=True, return_counts=True)
    k = np.arange(len(ranks)) - np.repeat(first, size) + 1
    return np.add.reduceat(k / (ranks[order] + k - 1), first) / size


def top_entropy(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray, *, top: int = _TOP
) -> tuple[float, float | None]:
    """Compute the entropy of the candidates that are at the top of the rows with held-out pairs.

    The ranking of a row contains the unknown and the held-out candidates of the row. Candidates
    with equal scores share the last positions of the top equally.

    Args:
        scores: see `filtered_ranks`.
        known: see `filtered_ranks`.
        row: see `filtered_ranks`.
        candidate: see `filtered_ranks`.
        top: number of top positions of each row.

    Returns:
        entropy = -sum(p ln p), where p is the fraction of all top positions that a candidate has;
        and entropy / ln(M), the normalized entropy, or None if M = 1.
    """
    _check(scores, known, row, candidate)
    positions = np.zeros(scores.shape[1])
    for i in np.unique(row):
        listed = ~known[i]
        listed[candidate[row == i]] = True
        columns = np.flatnonzero(listed)
        values = scores[i, columns]
        number = min(top, len(values))
        last = np.partition(values, len(values) - number)[len(values) - number]
        above, equal = values > last, values == last
        positions[columns] += above + equal * ((number - above.sum()) / equal.sum())
    fraction = positions[positions > 0] / positions.sum()
    entropy = abs(float((fraction * np.log(fraction)).sum()))
    return entropy, entropy / math.log(len(positions)) if len(positions) > 1 else None


def bootstrap_interval(
    values: npt.NDArray[np.floating], cluster: IntArray, *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean of clustered values.

    The pairs of one disease are not independent, so the bootstrap resamples whole diseases.

    Args:
        values: shape (K,), one value for each pair, such as 1 / rank.
        cluster: shape (K,), the disease (or source node) of each pair.
        seed: seed of the resampling.

    Returns:
        The lower and the upper end. With one cluster, both ends are the mean.
    """
    _, number, size = np.unique(cluster, return_inverse=True, return_counts=True)
    total = np.bincount(number, values)
    resamples = _resamples(len(size), seed)
    low, high = np.quantile((resamples @ total) / (resamples @ size), _QUANTILES)
    return float(low), float(high)


def _resamples(num_clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each bootstrap sample has each cluster, shape (samples, num_clusters)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), _NUM_SAMPLES)


def _rows(
    scores: Scores, known: Known, row: IntArray, candidate: IntArray
) -> Iterator[tuple[IntArray, Scores, Scores]]:
    """Yield for each row with pairs: indices of the pairs, scores of pairs, scores of unknowns."""
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
            f"{known.dtype}, shape {known.shape}) must be bool and have the same shape"
        )
    if row.shape != candidate.shape or row.ndim != 1:
        raise InputError(
            f"row (got shape {row.shape}) must be 1-dimensional and have the shape of candidate "
            f"(got {candidate.shape})"
        )
    for name, values, size in zip(
        ("row", "candidate"), (row, candidate), scores.shape, strict=True
    ):
        if len(values) and not 0 <= values.min() <= values.max() < size:
            raise InputError(
                f"{name} (got {values.min()} to {values.max()}) must be from 0 to {size - 1}"
            )
    if not np.isfinite(scores).all():
        i, j = np.argwhere(~np.isfinite(scores))[0]
        raise InputError(f"scores (got {scores[i, j]} at row {i}, column {j}) must be finite")


def _areas(prefix: str, positives: list[Scores], negatives: list[Scores], seed: int) -> Metrics:
    """Return the areas under the ROC and the precision-recall curve, with bootstrap intervals.

    Balanced areas skip rows without negatives. The areas are None if all rows lack negatives.
    """
    names = [f"{prefix}{area}" for area in ("auroc", "auprc")]
    kept = [i for i, scores in enumerate(negatives) if prefix == "" or len(scores)]
    if not sum(map(len, negatives)):
        return {f"{name}{end}": None for name in names for end in ("", "_low", "_high")}
    pool = pool_rows([positives[i] for i in kept], [negatives[i] for i in kept])
    resamples = _resamples(len(kept), seed).astype(float)
    metrics: Metrics = {}
    values = pool.areas(np.ones((1, len(kept))))
    for name, value, sampled in zip(names, values, pool.areas(resamples), strict=True):
        low, high = np.nanquantile(sampled, _QUANTILES)
        metrics |= {name: float(value[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return metrics


@dataclass(frozen=True)
class Pool:
    """For each of K positives and n rows, the number of scores in the row that are higher.

    These numbers are counted once. The areas of each bootstrap sample of rows are then matrix
    products. scikit-learn's functions would sort a million scores for each of 1,000 samples.
    """

    row: IntArray  #: shape (K,), row of each positive
    above: Counts  #: shape (K, n), number of negatives that score higher, plus half of the equal
    not_below: Counts  #: shape (K, n), number of negatives that score at least as high
    positives_not_below: Counts  #: shape (K, n), number of positives that score at least as high
    num_negatives: Counts  #: shape (n,), number of negatives of each row

    def areas(self, weights: Counts) -> tuple[Counts, Counts]:
        """Return the area under the ROC curve and the average precision, each of shape (B,).

        weights[b, i] is the number of times that bootstrap sample b contains row i. Both areas are
        NaN if all positives have weight 0. The ROC area is also NaN if all negatives have weight 0.
        """
        weight = weights[:, self.row].T  # weight of each positive, shape (K, B)
        negatives = weights @ self.num_negatives
        with np.errstate(invalid="ignore", divide="ignore"):
            fraction_above = (self.above @ weights.T) / negatives
            true_positives = self.positives_not_below @ weights.T
            predicted = true_positives + self.not_below @ weights.T
            precision = np.where(weight > 0, true_positives / predicted, 0)
            total = weight.sum(axis=0)
            roc = (weight * (1 - fraction_above)).sum(axis=0) / total
            average_precision = (weight * precision).sum(axis=0) / total
        return roc, average_precision


def pool_rows(
    positives: Sequence[npt.NDArray[np.floating]], negatives: Sequence[npt.NDArray[np.floating]]
) -> Pool:
    """Compare each positive with the scores of each row. The arguments have one array per row.

    The result takes 24 bytes per positive and row: 1.6 MB for 434 pairs of 160 diseases.
    """
    scores = np.concatenate(positives)
    row = np.repeat(np.arange(len(positives)), [len(one) for one in positives])
    shape = (len(scores), len(positives))
    above, not_below, positives_not_below = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, (positive, negative) in enumerate(zip(positives, negatives, strict=True)):
        order = np.sort(negative)
        left, right = (np.searchsorted(order, scores, side) for side in ("left", "right"))
        above[:, i] = len(order) - (left + right) / 2
        not_below[:, i] = len(order) - left
        positives_not_below[:, i] = len(positive) - np.searchsorted(np.sort(positive), scores)
    sizes = np.array([len(negative) for negative in negatives], np.float64)
    return Pool(row, above, not_below, positives_not_below, sizes)
