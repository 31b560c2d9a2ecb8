"""Folds: every eligible pair, disease or area is held out once, each fold with a model of its own.

The ranks of all folds together tell small differences apart that one draw cannot show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..system.errors import InputError
from .metrics import Metrics, pair_metrics

_EDGE_TYPE = ("source_type", "relation", "target_type")


class Fold(NamedTuple):
    """One fold of several."""

    number: int  #: counted from 1
    of: int  #: number of folds

    def part(self, shuffled: IntArray, what: str) -> IntArray:
        """Return this fold's part of all eligible pairs, diseases or areas.

        The parts of two folds never share an element, and their sizes differ by at most 1.

        Args:
            shuffled: all of them, in a random order that is the same for all folds.
            what: their name, for the error message.

        Raises:
            InputError: there are more folds than elements.
        """
        if self.of > len(shuffled):
            raise InputError(
                f"folds (got {self.of}) must be at most {len(shuffled)}, the number of {what}"
            )
        return np.asarray(np.array_split(shuffled, self.of)[self.number - 1])


def graph_fingerprint(graph: KnowledgeGraph) -> str:
    """Return a hash of the nodes, the edges and the vocabulary of a graph on the CPU."""
    digest = hashlib.sha256()
    digest.update(repr((graph.edge_types, graph.node_type_names, graph.vocabulary)).encode())
    for tensor in (graph.src, graph.indptr, graph.type_ptr):
        digest.update(tensor.numpy().data)
    for name in graph.nodes.columns:
        digest.update("\n".join(graph.nodes[name].cast(pl.String).to_list()).encode())
    return digest.hexdigest()


def pooled_rankers(
    reports: Sequence[Mapping[str, Any]], ranks: pl.DataFrame, *, seed: int
) -> dict[str, Metrics]:
    """Return the metrics of each ranker over all folds.

    Args:
        reports: the report of each fold.
        ranks: the ranks of all folds, with the columns `ranker`, `disease_index`, `rank`, `fold`.
        seed: seed of the bootstrap over diseases.

    Returns:
        For each ranker, the metrics of `pair_metrics` from the ranks of all folds. The other
        metrics of a fold need all scores, which are not kept: they are means over folds, without
        intervals. Counts of contraindicated pairs and diseases are sums.
    """
    found: dict[str, Metrics] = {}
    for (ranker,), rows in ranks.group_by("ranker", maintain_order=True):
        disease = rows["disease_index"].to_numpy()
        lists = rows["fold"].to_numpy() * (disease.max() + 1) + disease
        metrics = pair_metrics(rows["rank"].to_numpy(), disease, ranking=lists, seed=seed)
        metrics |= {"num_pairs": rows.height, "num_diseases": len(np.unique(disease))}
        of_folds = [report["rankers"][ranker] for report in reports]
        for name in of_folds[0]:
            if name not in metrics and not name.endswith(("_low", "_high")):
                values = [fold[name] for fold in of_folds]
                counted = name.startswith("num_contraindicated")
                metrics[name] = sum(values) if counted else _mean(values)
        metrics["num_candidates"] = of_folds[0]["num_candidates"]
        found[str(ranker)] = metrics
    return found


def pooled_relations(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return link prediction over all folds: means over folds, and the sum of `num_targets`."""
    records: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for report in reports:
        for record in report["relations"]:
            records.setdefault(tuple(record[name] for name in _EDGE_TYPE), []).append(record)
    found = []
    for kind, folds in sorted(records.items()):
        metrics = {
            name: _mean([fold[name] for fold in folds])
            for name in folds[0]
            if name not in _EDGE_TYPE and not name.endswith(("_low", "_high"))
        }
        sizes = {"num_targets": sum(fold["num_targets"] for fold in folds)}
        sizes["num_candidates"] = folds[0]["num_candidates"]
        found.append({**dict(zip(_EDGE_TYPE, kind, strict=True)), **metrics, **sizes})
    return found


def _mean(values: Sequence[float | int | None]) -> float | None:
    """Return the mean of the values that are not None."""
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if given else None
