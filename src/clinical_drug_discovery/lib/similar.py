"""Find the nodes with the most similar embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..graph.node_lookup import did_you_mean, find_node
from ..graph.synonyms import read_synonyms
from ..models.embeddings_file import read_embeddings
from ..ranking.explanations import Explainer
from ..system.errors import InputError, check_at_least
from ._run.model_dir import model_dir_of, read_model_graph


def similar_nodes(
    embeddings: str | Path,
    node: str,
    *,
    type: str | None = None,
    top: int = 10,
    explain: bool = False,
    model_dir: str | Path | None = None,
    synonyms: str | Path | None = None,
) -> list[dict[str, Any]]:
    """List the nodes whose embeddings are most similar to the embedding of one node.

    Args:
        embeddings: file that `cdd embed` has written.
        node: the node, given by name or identifier in any spelling, such as MONDO:0005148.
        type: node type to list (default: the type of `node`).
        top: number of nodes to list.
        explain: add the neighbors in the graph that each listed node shares with `node`.
        model_dir: model directory with the graph for `explain` (default: beside the embeddings).
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.

    Returns:
        A list with one dict per node, the most similar node first. The keys are rank, cosine,
        node_name, node_type, node_id, node_source and node_index. With `explain`, each dict also
        has the keys "stated" and "evidence", see `Explainer.shared`.

    Raises:
        InputError: the file, node, type or graph does not exist, the node is ambiguous, or the file
            of synonyms is invalid.

    Example:
        >>> from clinical_drug_discovery.lib.similar import similar_nodes
        >>> rows = similar_nodes("embeddings.parquet", "Warfarin", top=3)
        >>> [(row["rank"], row["node_type"]) for row in rows]
        [(1, 'drug'), (2, 'drug'), (3, 'drug')]
    """
    check_at_least("top", top, 1)
    if model_dir is not None and not explain:
        raise InputError(f"model_dir (got {model_dir}) can only be used with explain")
    nodes, values = read_embeddings(embeddings)
    at = find_node(nodes, node, synonyms=read_synonyms(synonyms, nodes))
    found = nearest(nodes, values, at, type=type, top=top)
    if not explain:
        return found
    graph = read_model_graph(model_dir_of(embeddings) if model_dir is None else Path(model_dir))
    rows = {index: row for row, index in enumerate(graph.nodes["node_index"].to_list())}
    asked = nodes["node_index"][at]
    if missing := {asked, *(record["node_index"] for record in found)} - rows.keys():
        raise InputError(
            f"model_dir contains a different graph: it lacks the node_index {min(missing)}"
        )
    explainer = Explainer(graph)
    return [
        {**record, **explainer.shared(rows[asked], rows[record["node_index"]])} for record in found
    ]


def nearest(
    nodes: pl.DataFrame, values: np.ndarray, at: int, *, type: str | None = None, top: int = 10
) -> list[dict[str, Any]]:
    """Return the nodes of one type that are most similar to the node in row `at`.

    `values` has the embeddings, shape (N, D). The default of `type` is the type of the node in row
    `at`. The result is described in `similar_nodes`.

    Raises:
        InputError: `nodes` does not contain this type.
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
