"""An outside list of drug-disease pairs: read it, find its nodes, and build the ranking task."""

from __future__ import annotations

import numpy as np

from ..graph.knowledge_graph import IntArray
from ..ranking.bilinear_score import Scores
from .metrics import Metrics, bootstrap_interval
from .split import RankingTask


def above_metrics(
    label: str, scores: Scores, task: RankingTask, row: IntArray, column: IntArray, *, seed: int = 0
) -> Metrics:
    """Return how often a ranked drug scores higher than a drug with another label.

    Args:
        label: label of the other drugs, such as failed.
        scores: shape (n, M), scores of all drugs for the diseases of the task.
        task: the diseases and their ranked pairs.
        row: shape (K,), position in `task.diseases` of the disease of each other pair.
        column: shape (K,), drug of each other pair.
        seed: seed of the bootstrap over diseases.

    Returns:
        `approved_above_<label>`: fraction of the comparisons of a ranked and another drug of one
        disease in which the ranked drug scores higher (ties count half), with its interval; None
        without comparisons. `num_comparisons_<label>` is their number.
    """
    values, diseases = [np.zeros(0)], [np.zeros(0, np.int64)]
    for i in np.intersect1d(row, task.row).tolist():
        ranked = scores[i, task.candidate[task.row == i]]
        difference = ranked[:, None] - scores[i, column[row == i]]
        values.append(((difference > 0) + (difference == 0) / 2).ravel())
        diseases.append(np.full(difference.size, i))
    won, disease = np.concatenate(values), np.concatenate(diseases)
    name, figures = f"approved_above_{label}", (None, None, None)
    found: Metrics = dict(zip((name, f"{name}_low", f"{name}_high"), figures, strict=True))
    if len(won):
        low, high = bootstrap_interval(won, disease, seed=seed)
        found = {name: float(won.mean()), f"{name}_low": low, f"{name}_high": high}
    return {**found, f"num_comparisons_{label}": len(won)}
