"""A new drug or another new node, from the form of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ...api.pending_model import PendingModel
from ...lib._model.extended import extend_graph
from ...system.errors import InputError, shown
from ...system.limits.parameters import is_text
from .open_model import OpenModel

_LONGEST_NAME = 200
_MOST_FACTS = 200
_SOURCE = "NEW"  # source of nodes from the form


def relations_of(opened: OpenModel, node_type: str) -> list[dict[str, str]]:
    """Return the relations that a new node of a type can have, in the order of the graph."""
    return [
        {"relation": kind.relation, "type": kind.dst_type, "phrase": opened.phrase(kind)}
        for kind, count in zip(opened.graph.edge_types, opened.graph.edge_type_counts, strict=True)
        if kind.src_type == node_type and count
    ]


def add_new_node(opened: OpenModel, asked: Any) -> tuple[OpenModel, int]:
    """Add a node and its facts to a model. The facts are there at once; the ranks follow.

    Args:
        opened: the model, which does not change.
        asked: a dict with name, type, and facts: a list of dicts with relation and node (a
            node_index of the model).

    Returns:
        The larger model, and the node_index of the new node in it.

    Raises:
        InputError: the name or a fact is missing or invalid.
    """
    name, node_type, facts = _checked(opened, asked)
    graph = opened.graph
    ids = set(graph.nodes["node_id"].to_list())
    number = next(i for i in range(1, len(ids) + 2) if f"NEW{i}" not in ids)
    others = graph.nodes[opened.rows([node for _, node in facts])].to_dicts()
    rows = [
        {
            "relation": relation,
            "x_id": f"NEW{number}",
            "x_type": node_type,
            "x_name": name,
            "x_source": _SOURCE,
            "y_id": other["node_id"],
            "y_type": other["node_type"],
            "y_name": other["node_name"],
            "y_source": other["node_source"],
        }
        for (relation, _), other in zip(facts, others, strict=True)
    ]
    sources = (graph.nodes["node_source"] != "").any()
    columns = [c for c in rows[0] if sources or not c.endswith("_source")]
    table = {column: [row[column] for row in rows] for column in columns}
    extended = extend_graph(graph, pl.DataFrame(table))
    assert extended is not None  # the node is new
    larger = OpenModel(PendingModel(opened.source, extended), before=opened)
    return larger, int(extended.new_nodes["node_index"][-1])


def _checked(opened: OpenModel, asked: Any) -> tuple[str, str, list[tuple[str, int]]]:
    """Return the name, the type and the facts of a new node.

    Raises:
        InputError: one of them is missing or invalid.
    """
    if not isinstance(asked, Mapping):
        raise InputError(f"new node (got {shown(asked)}) must have name, type and facts")
    name, node_type, facts = (asked.get(field) for field in ("name", "type", "facts"))
    if not is_text(name) or not 0 < len(name.strip()) <= _LONGEST_NAME:
        rule = f"must be a text of 1 to {_LONGEST_NAME} characters, valid in UTF-8"
        raise InputError(f"name (got {shown(name)}) {rule}")
    if node_type not in opened.graph.node_type_names:
        types = ", ".join(opened.graph.node_type_names)
        raise InputError(f"type (got {shown(node_type)}) must be one of {types}")
    if not isinstance(facts, list) or not 0 < len(facts) <= _MOST_FACTS:
        raise InputError(f"facts (got {shown(facts)}) must be a list of 1 to {_MOST_FACTS} facts")
    found = []
    for place, fact in enumerate(facts, start=1):
        relation = fact.get("relation") if isinstance(fact, Mapping) else None
        node = fact.get("node") if isinstance(fact, Mapping) else None
        if not isinstance(relation, str) or not isinstance(node, int):
            rule = "must have a relation and the node_index of a node"
            raise InputError(f"fact {place} (got {shown(fact)}) {rule}")
        found.append((relation, node))
    return name.strip(), str(node_type), list(dict.fromkeys(found))
