"""Where a ranker places the drugs that the graph lists as contraindicated for a disease.

A good ranker places these drugs below the drugs that treat the disease. The shared proteins of a
contraindicated drug and a disease often look like those of a treatment.
"""

from __future__ import annotations

import numpy as np

from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ...ranking.treatments import pairs_of
from ..gnn_scores import Scores
from ..metrics import Metrics, filtered_ranks
from ..split import RankingTask

TOP = 50  #: number of first positions in which contraindicated drugs are counted
#: The metrics of `contraindication_metrics`.
CONTRAINDICATION_METRICS = (
    "contraindicated_rank_fraction", f"contraindicated@{TOP}", "contraindicated_auroc",
)  # fmt: skip


def contraindicated_drugs(graph: KnowledgeGraph, task: RankingTask) -> tuple[IntArray, IntArray]:
    """Return the contraindicated pairs of a task's diseases in the training graph.

    Pairs that are also known or held-out treatments are left out: they say nothing about a ranker.

    Args:
        graph: the training graph, on the CPU.
        task: the diseases, and the drugs that treat them.

    Returns:
        The row (position in `task.diseases`) and the column (drug, numbered within the node type)
        of each pair.
    """
    words = graph.vocabulary
    pairs = pairs_of(graph, words.contraindicates)
    pairs = pairs.select(np.isin(pairs.disease, task.diseases))
    row = np.searchsorted(task.diseases, pairs.disease)
    column = pairs.drug - node_range_of(graph, words.drug_type)[0]
    kept = ~task.known[row, column]
    return row[kept], column[kept]


def contraindication_metrics(
    scores: Scores, task: RankingTask, row: IntArray, column: IntArray
) -> Metrics:
    """Return where a ranker places contraindicated drugs.

    Args:
        scores: shape (n, M), scores of all drugs for the diseases of the task; higher is better.
        task: the diseases, the drugs that treat them, and the held-out pairs.
        row: see `contraindicated_drugs`.
        column: see `contraindicated_drugs`.

    Returns:
        `contraindicated_rank_fraction`: median over the contraindicated pairs of (rank - 1) /
        (number of drugs that neither treat the disease nor are contraindicated); 0 is the first
        place, 1 the last place, and a random order gives 0.5. `contraindicated@50`: fraction of
        the pairs with a rank of at most 50. `contraindicated_auroc`: mean over diseases of the
        probability that a held-out drug scores higher than a contraindicated drug (ties count
        half). `num_contraindicated_pairs` and `num_contraindicated_diseases` are counts. Without
        contraindicated pairs, the metrics are None.

    Raises:
        InputError: a score is NaN or infinite.
    """
    diseases, counts = np.unique(row, return_counts=True)
    metrics: Metrics = dict.fromkeys(CONTRAINDICATION_METRICS)
    if len(row):
        ranks = filtered_ranks(scores, task.known, row, column)
        others = (~task.known[diseases]).sum(axis=1) - counts
        fraction = (ranks - 1) / np.maximum(others, 1)[np.searchsorted(diseases, row)]
        areas = [
            _area(scores[i, task.candidate[task.row == i]], scores[i, column[row == i]])
            for i in diseases
        ]
        values = float(np.median(fraction)), float((ranks <= TOP).mean()), float(np.mean(areas))
        metrics = dict(zip(CONTRAINDICATION_METRICS, values, strict=True))
    counted = {"pairs": len(row), "diseases": len(diseases)}
    return metrics | {f"num_contraindicated_{name}": number for name, number in counted.items()}


def _area(positives: Scores, negatives: Scores) -> float:
    """Return the fraction of the pairs in which the positive scores higher; ties count half."""
    difference = positives[:, None] - negatives
    return float(((difference > 0) + (difference == 0) / 2).mean())
