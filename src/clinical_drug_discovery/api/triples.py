"""The scores of triples by the decoder of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ..graph.frames.tables import to_polars
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..graph.node_lookup import NodeIndex, did_you_mean
from ..models.layers import DistMult
from ..system.errors import InputError

_COLUMNS = ("x", "relation", "y")


def score_triples(
    graph: KnowledgeGraph, index: NodeIndex, embeddings: Tensor, decoder: DistMult, triples: Any
) -> pl.DataFrame:
    """Return a row with the score of each triple; see `Model.score`.

    Args:
        graph: on the CPU.
        index: of all its nodes.
        embeddings: shape (N, D).
        decoder: trained with the embeddings.
        triples: list of (x, relation, y), or a data frame with these columns.

    Raises:
        InputError: a triple is invalid.
    """
    if isinstance(triples, list | tuple):
        if not all(isinstance(one, list | tuple) and len(one) == len(_COLUMNS) for one in triples):
            raise InputError("triples must be a list of (x, relation, y)")
        triples = {name: [one[i] for one in triples] for i, name in enumerate(_COLUMNS)}
    table = to_polars("triples", triples)
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise InputError(f"triples must have the columns x, relation and y; they lack {missing[0]}")
    x, kind, y = _numbers(graph, index, table)
    relation = graph.edge_type_relation[torch.from_numpy(kind)]
    with torch.no_grad():
        scores = decoder(embeddings, torch.from_numpy(x), relation, torch.from_numpy(y))
    columns: dict[str, Any] = {}
    for side, at in (("x", x), ("y", y)):
        columns |= {f"{side}_{name}": graph.nodes[f"node_{name}"][at] for name in ("name", "type")}
    columns["relation"] = [graph.edge_types[r].relation for r in kind.tolist()]
    columns |= {"score": scores.numpy(), "known": graph.has_edges(x, kind, y)}
    order = ("x_name", "x_type", "relation", "y_name", "y_type", "score", "known")
    return pl.DataFrame(columns).select(order)


def _numbers(
    graph: KnowledgeGraph, index: NodeIndex, table: pl.DataFrame
) -> tuple[IntArray, IntArray, IntArray]:
    """Return x, the edge type and y of each row, each of shape (K,).

    Raises:
        InputError: a node does not exist, or the graph does not have such an edge type.
    """
    kinds = {tuple(kind): r for r, kind in enumerate(graph.edge_types)}
    types = graph.nodes["node_type"]
    found = np.empty((table.height, 3), np.int64)
    for number, (x, relation, y) in enumerate(table.select(_COLUMNS).iter_rows(), start=1):
        where = f"triples, row {number}"
        src, dst = (
            index.find(query, parameter=f"{where}: {side}") for side, query in (("x", x), ("y", y))
        )
        kind = (types[src], relation, types[dst])
        if kind not in kinds:
            fit = sorted(k.relation for k in graph.edge_types if (k[0], k[2]) == kind[::2])
            rule = f"must be one of {', '.join(fit)}" if fit else "does not exist"
            raise InputError(
                f"{where}: relation (got {relation!r}) {rule} between {kind[0]} and {kind[2]}"
                f"{did_you_mean(str(relation), fit)}"
            )
        found[number - 1] = src, kinds[kind], dst
    return found[:, 0].copy(), found[:, 1].copy(), found[:, 2].copy()
