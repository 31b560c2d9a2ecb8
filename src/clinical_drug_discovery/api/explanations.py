"""The explanation of a drug for a disease as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ..graph.knowledge_graph import KnowledgeGraph
from ..ranking.evidence.explanations import Explainer

STATED = "stated"  #: the kind of a fact between the two nodes
_NODE = {
    "node_index": pl.Int64, "node_id": pl.String, "node_name": pl.String, "node_type": pl.String,
}  # fmt: skip
_COLUMNS: dict[str, Any] = {
    "kind": pl.String, "text": pl.String, "path_score": pl.Float64, "through_target": pl.Boolean,
    "nodes": pl.List(pl.Struct(_NODE)), "relations": pl.List(pl.String), "effect": pl.Float64,
}  # fmt: skip


def explanation_table(
    graph: KnowledgeGraph,
    explainer: Explainer,
    drug: int,
    disease: int,
    effects: Mapping[str, float] | None,
) -> pl.DataFrame:
    """Return the facts between two nodes, then the best paths; see `Model.explain`.

    Args:
        graph: on the CPU.
        explainer: of this graph.
        drug: node number.
        disease: node number.
        effects: see `Explainer.drug_for_disease`.
    """
    found = explainer.drug_for_disease(drug, disease, effects)
    ends = graph.nodes[[drug, disease]].select(*_NODE).to_dicts()
    facts = [
        {"kind": STATED, "text": fact["text"], "nodes": ends, "relations": [fact["relation"]]}
        for fact in found["stated_facts"]
    ]
    return pl.DataFrame([*facts, *found["evidence"]], schema=_COLUMNS)
