"""Questions to finished embeddings: which node is meant, and what lies near it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clinical_drug_discovery.graph.node_lookup import did_you_mean, find_node
from clinical_drug_discovery.lib._run.model_dir import model_dir_of, read_model_graph
from clinical_drug_discovery.models.embeddings_file import read_embeddings
from clinical_drug_discovery.ranking.explanations import Explainer
from clinical_drug_discovery.system.errors import InputError


def similar_nodes(
    embeddings: str | Path,
    node: str,
    *,
    type: str | None = None,
    top: int = 10,
    explain: bool = False,
    model_dir: str | Path | None = None,
) -> list[dict[str, Any]]:
    """List the nodes whose embeddings point the same way as one node's.

    Args:
        embeddings: a file that `cdd embed` wrote.
        node: a name (in any case), an id, or source:id such as MONDO:5148.
        type: node type to list; the node's own if None.
        top: how many to list.
        explain: say for each what the two share in the graph.
        model_dir: with `explain`, the directory that the run left the graph in; that beside the
            embeddings if left out.

    Returns:
        The nearest first: rank, cosine, node_name, node_type, node_id, node_source, node_index;
        with `explain` also stated and evidence, see `explain.Explainer`.

    Raises:
        InputError: no such file, node or type, or an ambiguous node; no graph to explain with.
    """
    if top < 1:
        raise InputError(f"top (got {top}) must be at least 1")
    if model_dir is not None and not explain:
        raise InputError(f"model_dir (got {model_dir}) is of no use without explain")
    nodes, values = read_embeddings(embeddings)
    at = find_node(nodes, node)
    found = nearest(nodes, values, at, type=type, top=top)
    if not explain:
        return found
    graph = read_model_graph(model_dir_of(embeddings) if model_dir is None else Path(model_dir))
    rows = {index: row for row, index in enumerate(graph.nodes["node_index"].to_list())}
    asked = nodes["node_index"][at]
    if missing := {asked, *(record["node_index"] for record in found)} - rows.keys():
        raise InputError(
            f"model_dir holds the graph of other nodes: it has no node_index {min(missing)}"
        )
    explainer = Explainer(graph)
    return [
        {**record, **explainer.shared(rows[asked], rows[record["node_index"]])} for record in found
    ]


def nearest(
    nodes: pl.DataFrame, values: np.ndarray, at: int, *, type: str | None = None, top: int = 10
) -> list[dict[str, Any]]:
    """The rows nearest to row `at` by cosine, among the nodes of one type.

    Args:
        nodes: N rows.
        values: shape (N, D), embeddings.
        at: a row number.
        type: node type to list; that of row `at` if None.
        top: how many to list.

    Returns:
        As `similar_nodes`.
    """
    wanted = type if type is not None else nodes["node_type"][at]
    if wanted not in nodes["node_type"]:
        types = nodes["node_type"].unique().sort().to_list()
        raise InputError(
            f"type (got {wanted!r}) must be one of {', '.join(types)}{did_you_mean(wanted, types)}"
        )
    rows = np.flatnonzero((nodes["node_type"] == wanted).to_numpy())
    rows = rows[rows != at]
    candidates = values[rows]
    norms = np.linalg.norm(candidates, axis=1) * np.linalg.norm(values[at])
    cosine = candidates @ values[at] / np.maximum(norms, np.finfo(np.float32).tiny)
    best = np.argsort(-cosine, kind="stable")[:top]
    columns = ("node_name", "node_type", "node_id", "node_source", "node_index")
    found = nodes[rows[best]].select(columns).to_dicts()
    return [
        {"rank": rank, "cosine": round(float(score), 6), **record}
        for rank, (score, record) in enumerate(zip(cosine[best], found, strict=True), start=1)
    ]
