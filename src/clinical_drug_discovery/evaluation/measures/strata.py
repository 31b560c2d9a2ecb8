"""Metrics of parts of the ranked pairs: of drugs and diseases with few or many known treatments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ...ranking.treatments import Pairs, treatment_matrix
from ..metrics import Metrics, bootstrap_interval, pair_values

#: Column of a table of ranks: the smallest and the largest number of each stratum.
STRATA: dict[str, tuple[tuple[int, int | None], ...]] = {
    "diseases_of_drug": ((0, 0), (1, 1), (2, 3), (4, 8), (9, None)),
    "drugs_of_disease": ((0, 0), (1, 2), (3, None)),
}
_METRICS = ("mrr", "recall@50")
#: Column, then stratum such as "2-3" or "9+", then the metrics.
Strata = dict[str, dict[str, Metrics]]


def known_counts(graph: KnowledgeGraph, pairs: Pairs) -> dict[str, IntArray]:
    """Return how much a graph knows about the drug and the disease of each pair.

    Args:
        graph: the training graph, on the CPU; it does not list the pairs as treatments.
        pairs: K ranked pairs.

    Returns:
        `diseases_of_drug`, the number of (other) diseases that the drug treats in the graph, and
        `drugs_of_disease`, the number of (other) drugs that treat the disease, each of shape (K,).
    """
    known, words = treatment_matrix(graph), graph.vocabulary
    drug, disease = (
        nodes - node_range_of(graph, kind)[0]
        for nodes, kind in ((pairs.drug, words.drug_type), (pairs.disease, words.disease_type))
    )
    by_drug = np.bincount(known.indices, minlength=known.shape[1])
    return {
        "diseases_of_drug": by_drug[drug],
        "drugs_of_disease": np.diff(known.indptr)[disease].astype(np.int64),
    }


def strata_metrics(ranks: pl.DataFrame, *, seed: int = 0) -> dict[str, Strata]:
    """Return the metrics of each ranker in each stratum.

    Args:
        ranks: columns `ranker`, `disease_index`, `rank`, and the columns of `STRATA`.
        seed: seed of the bootstrap over diseases.

    Returns:
        For each ranker, column and stratum: `num_pairs`, and `mrr` and `recall@50` with their
        intervals, or None if the stratum lacks pairs.
    """
    found: dict[str, Strata] = {}
    for (ranker,), rows in ranks.group_by("ranker", maintain_order=True):
        found[str(ranker)] = {
            column: {
                stratum_name(*bounds): _metrics(rows.filter(_within(column, *bounds)), seed)
                for bounds in strata
            }
            for column, strata in STRATA.items()
        }
    return found


def stratum_name(least: int, most: int | None) -> str:
    """Return the name of a stratum, such as "0", "2-3" or "9+"."""
    if most is None:
        return f"{least}+"
    return str(least) if most == least else f"{least}-{most}"


def _within(column: str, least: int, most: int | None) -> pl.Expr:
    at_least = pl.col(column) >= least
    return at_least if most is None else at_least & (pl.col(column) <= most)


def _metrics(rows: pl.DataFrame, seed: int) -> Metrics:
    found: Metrics = {"num_pairs": rows.height}
    ranks: npt.NDArray[np.float64] = rows["rank"].to_numpy()
    for name in _METRICS:
        figures: tuple[float | None, ...] = (None, None, None)
        if rows.height:
            values = pair_values(name, ranks)
            ends = bootstrap_interval(values, rows["disease_index"].to_numpy(), seed=seed)
            figures = float(values.mean()), *ends
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), figures, strict=True))
    return found
